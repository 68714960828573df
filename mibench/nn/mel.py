r"""Log-mel spectrograms: a bank of triangular filters on the mel scale over the power of a short-time spectrum.

The scale and the bank are those of S. Young et al., The HTK Book, version 3.4, 2006, section 5.4:

.. math:: \mathrm{mel}(f) = 2595 \log_{10}(1 + f / 700), \qquad
          w_m(f) = \max(0, 1 - |\mathrm{mel}(f) - c_m| / s), \qquad c_m = m s, \quad s = \mathrm{mel}(f_N) / (M + 1)

with :math:`f` in Hz, :math:`M` bands :math:`m = 1 \ldots M` and half the sampling rate :math:`f_N`. Triangles are
straight on the mel scale and one high, so that between the first and the last centre the weights of every frequency
add up to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mel(hertz: Tensor) -> Tensor:
    """Return frequencies in Hz on the mel scale."""
    return 2595 * torch.log10(1 + hertz / 700)


def hertz(mels: Tensor) -> Tensor:
    """Return frequencies on the mel scale in Hz."""
    return 700 * (10 ** (mels / 2595) - 1)


def centres(bands: int, rate: int) -> Tensor:
    """Return the frequencies in Hz at which the bands' filters are one, shape ``(bands,)``."""
    top = mel(torch.tensor(rate / 2, dtype=torch.float64))
    return hertz(top * torch.arange(1, bands + 1, dtype=torch.float64) / (bands + 1))


def filter_bank(bands: int, window: int, rate: int) -> Tensor:
    """Return the weight of every frequency of a short-time spectrum in every band, ``(bands, window // 2 + 1)``.

    Args:
        bands: Number of bands, of which the first is the lowest.
        window: Samples of one short-time spectrum.
        rate: Samples per second.
    """
    frequencies = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    step = mel(torch.tensor(rate / 2, dtype=torch.float64)) / (bands + 1)
    middles = mel(centres(bands, rate))
    return (1 - (mel(frequencies) - middles[:, None]).abs() / step).clamp_min(0).float()


def mel_power(waves: Tensor, bank: Tensor, window: int, hop: int) -> Tensor:
    """Return the power in every band of waves ``(N, samples)``, shape ``(N, bands, frames)``.

    Frames are ``window`` samples long under a Hann window and begin ``hop`` samples apart; none reaches over an end.
    """
    hann = torch.hann_window(window, device=waves.device)
    spectrum = torch.stft(waves, window, hop, window=hann, center=False, return_complex=True)
    return bank.to(waves.device) @ spectrum.abs().square()


def relative_decibels(power: Tensor, floor: float) -> Tensor:
    """Return power ``(N, bands, frames)`` in decibels below each example's loudest bin, not lower than ``floor``.

    Silence is at the floor everywhere.
    """
    loudest = power.flatten(1).amax(1).clamp_min(torch.finfo(power.dtype).tiny)
    share = power / loudest[:, None, None]
    return (10 * share.clamp_min(10 ** (floor / 10)).log10()).clamp(floor, 0.0)
