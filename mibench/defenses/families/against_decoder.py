"""Training against a decoder of what a split client sends, which learns beside the model, one step each in turn."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from mibench.defenses.base import Defense, Training
from mibench.nn.feature_decoder import Body
from mibench.nn.simulated_attacker import SimulatedAttacker
from mibench.options import Count, Positive


class AgainstDecoder(Defense):
    """A defense whose loss asks a simulated attacker how wrong its decoder is."""

    decoder: Body = "custom"
    """``custom``, ``conv_norm`` or ``res_norm``."""
    decoder_blocks: Count = 1
    """Blocks before the decoder's doublings."""
    decoder_channels: Count = 32
    """Channels of each."""
    decoder_lr: Positive = 1e-3
    """Adam's learning rate of the decoder."""

    def attacker(self, training: Training, error: Callable[[Tensor, Tensor], Tensor]) -> SimulatedAttacker:
        """Return the untrained attacker of a training, whose ``error`` is that of decoded and true images."""
        return SimulatedAttacker(
            training,
            error,
            lr=self.decoder_lr,
            body=self.decoder,
            blocks=self.decoder_blocks,
            channels=self.decoder_channels,
        )
