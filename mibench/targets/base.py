"""The contract of a target architecture, and the input handling that all of them share."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.entry import Normalise
from mibench.model import Classifier


class Target(Classifier):
    """A classifier that can be attacked.

    Subclasses have a literal ``card``, take ``spec`` and keyword-only hyper-parameters, and set ``normalise``,
    ``stages`` and ``head``.

    Args:
        spec: Facts of the input and the number of classes.
    """

    card: ClassVar[TargetCard]

    def __init__(self, *, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def adapt(self, x: Tensor) -> None:
        """Take from the training inputs what the architecture needs before training (scales of columns)."""


def centred(spec: InputSpec) -> Normalise:
    """Return the normalisation of images, or spectrograms, from their range to [-1, 1]."""
    middle, reach = (spec.low + spec.high) / 2, (spec.high - spec.low) / 2
    return Normalise(torch.full((spec.shape[0],), middle), torch.full((spec.shape[0],), reach))
