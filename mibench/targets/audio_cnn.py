"""A small convolutional network on spectrograms: it keeps apart what sounds high and low, and not when it sounds.

Three blocks of convolution, batch norm and pooling as in ``cnn``; then every band's mean over time goes to a linear
head, so that a recording that begins later is classified alike. There is no paper.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.options import Count
from mibench.targets.base import Target, centred


class AudioCnn(Target):
    """Three convolutional blocks, averaged over time.

    Args:
        spec: Facts of the input: spectrograms ``(channels, bands, frames)`` of at least 8 bands and 8 frames.
        width: Channels of the first block; doubled by each following one.
    """

    card = TargetCard(
        name="audio_cnn", title="Small CNN on spectrograms", modalities=("audio",), family="convolutional"
    )

    def __init__(self, *, spec: InputSpec, width: Count = 16) -> None:
        super().__init__(spec=spec)
        channels, bands, frames = spec.shape
        if min(bands, frames) < 8:
            raise UserError(
                f"target=audio_cnn needs spectrograms of at least 8 bands and 8 frames, but these have {bands} bands "
                f"and {frames} frames."
            )
        self.normalise = centred(spec)
        widths = [channels, width, 2 * width, 4 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
            for before, after in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1] * (bands // 8), spec.classes)

    def pool(self, last: Tensor) -> Tensor:
        """Return every band's mean over time, of all channels."""
        return last.mean(3).flatten(1)
