"""Two things seen beside each other: images as they are scrambled, and a model before and after."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.access.base import View, counted_copy
from mibench.access.ledger import Ledger
from mibench.data import InputSpec
from mibench.model import Classifier


@dataclass(frozen=True)
class EncryptedImagesView(View):
    """Access ``encrypted_images``: what a defense's ``input`` hook makes of private images, and nothing of the model.

    Attributes:
        images: The scrambled images, shape ``(N, ...)``.
    """

    images: Tensor


@dataclass(frozen=True)
class TwoModelsView(View):
    """Access ``two_models``: the model before and after it learned, or was made to forget, some examples.

    Attributes:
        before: The earlier model.
        after: The later one.
    """

    before: Classifier
    after: Classifier

    @classmethod
    def of(
        cls, before: Classifier, after: Classifier, spec: InputSpec, ledger: Ledger, device: torch.device
    ) -> TwoModelsView:
        """Return a view on copies of both models, counted on one account."""
        return cls(spec, ledger, device, counted_copy(before, ledger, device), counted_copy(after, ledger, device))
