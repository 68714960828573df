"""The layers of StyleGAN2: equalised learning rates, modulated and demodulated convolutions, resampling by a filter.

Details are those of https://github.com/NVlabs/stylegan2-ada-pytorch (``training/networks.py``). Weights are modulated
by scaling what goes in and demodulated by scaling what comes out, which is the same and needs no convolution of each
sample's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def activated(x: Tensor) -> Tensor:
    """Return a leaky ReLU of slope 0.2, scaled so that the variance stays."""
    return functional.leaky_relu(x, 0.2) * math.sqrt(2)


def clamped(x: Tensor, limit: float | None) -> Tensor:
    """Return values between ``-limit`` and ``limit``; None leaves them as they are."""
    return x if limit is None else x.clamp(-limit, limit)


def smoothing() -> Tensor:
    """Return the filter [1, 3, 3, 1] in both directions, of sum 1, shape ``(1, 1, 4, 4)``."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(taps, taps)[None, None]


class EqualLinear(nn.Module):
    """A linear layer whose weights have variance 1 and are scaled when used, so that Adam moves all layers alike.

    Args:
        before: Width of the input.
        after: Width of the output.
        bias: Initial bias.
        lr_multiplier: Factor of the learning rate.
    """

    products = ("weight", "bias")

    def __init__(self, before: int, after: int, bias: float = 0.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((after,), bias / lr_multiplier))
        self.gain = lr_multiplier / math.sqrt(before)
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs ``(N, after)``."""
        return functional.linear(x, self.weight * self.gain, self.bias * self.lr_multiplier)


class EqualConv(nn.Module):
    """A convolution with equalised learning rate that keeps the size or, filtered, halves it.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        kernel: Pixels per side of the kernel, odd.
        down: Whether it halves the size.
        bias: Whether it has a bias.
    """

    products = ("weight", "bias")
    blur: Tensor

    def __init__(self, before: int, after: int, kernel: int, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.gain = 1 / math.sqrt(before * kernel**2)
        self.down = down
        self.register_buffer("blur", smoothing(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps ``(N, after, h, w)``."""
        kernel = self.weight.shape[-1]
        if not self.down:
            return functional.conv2d(x, self.weight * self.gain, self.bias, padding=kernel // 2)
        channels = x.shape[1]
        padding = 1 + kernel // 2
        x = functional.conv2d(x, self.blur.expand(channels, -1, -1, -1), padding=padding, groups=channels)
        return functional.conv2d(x, self.weight * self.gain, self.bias, stride=2)


class ModulatedConv(nn.Module):
    """A convolution whose input channels a style scales.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        kernel: Pixels per side of the kernel, odd.
        w_dim: Dimension of a style.
        demodulate: Whether every output channel is brought back to variance 1.
        up: Whether it doubles the size.
    """

    products = ("weight",)
    blur: Tensor

    def __init__(
        self, before: int, after: int, kernel: int, w_dim: int, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel))
        self.affine = EqualLinear(w_dim, before, bias=1.0)
        self.demodulate = demodulate
        self.up = up
        self.gain = 1.0 if demodulate else 1 / math.sqrt(before * kernel**2)
        self.register_buffer("blur", 4 * smoothing(), persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Return feature maps of ``x`` under styles ``w`` of shape ``(N, w_dim)``."""
        style = self.affine(w) * self.gain
        x = x * style[:, :, None, None]
        if self.up:
            x = functional.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            channels = x.shape[1]
            x = functional.conv2d(x, self.blur.expand(channels, -1, -1, -1), padding=1, groups=channels)
        else:
            x = functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)
        if self.demodulate:
            energy = style.square() @ self.weight.square().sum((2, 3)).T
            x = x * (energy + 1e-8).rsqrt().to(x.dtype)[:, :, None, None]
        return x
