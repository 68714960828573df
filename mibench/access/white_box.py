"""The module itself, frozen, on a copy of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.access.base import View, counted_copy
from mibench.access.ledger import Ledger, uncounted
from mibench.access.services import ScoresView
from mibench.data import InputSpec
from mibench.model import Classifier
from mibench.precision import widened


@dataclass(frozen=True)
class WhiteBoxView(View):
    """Access ``white_box``: the module itself, frozen, in evaluation mode, on a copy of its own.

    Every path from an input through the model (``model(x)``, ``model.features(x)``, ``model.blocks(x)``) is counted,
    because all of them begin with the model's own normalisation.

    Attributes:
        model: The victim's module. Its parameters take no gradients: optimise the input.
    """

    model: Classifier

    @classmethod
    def of(cls, model: Classifier, spec: InputSpec, ledger: Ledger, device: torch.device) -> WhiteBoxView:
        """Return a view on a frozen copy of ``model``."""
        frozen = counted_copy(model, ledger, device)
        return cls(spec, ledger, device, frozen.requires_grad_(False))

    def logits(self, x: Tensor) -> Tensor:
        """Return logits of shape ``(N, classes)``, differentiable in ``x``."""
        return widened(self.model(x))

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(N, classes)`` and penultimate features ``(N, F)`` from one forward pass."""
        logits, blocks = self.model.forward_with_blocks(x)
        return widened(logits), widened(self.model.pool(blocks[-1]))

    def narrow(self) -> ScoresView:
        """Return the scores of the same module, on the same account (output defenses are not on a white-box path)."""
        model, view = self.model, self

        def ask(x: Tensor) -> Tensor:
            with uncounted(view.ledger):
                scores: Tensor = model(x).softmax(1)
            return scores

        return ScoresView(self.spec, self.ledger, self.device, ask)
