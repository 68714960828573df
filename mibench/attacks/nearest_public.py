r"""Nearest public: of the attacker's public images those that the victim takes for the class most of all.

The floor under every attack with scores: no image is made, the victim is only asked which of the public people or
classes :math:`P` looks most like the private one. An attack that does not beat it has shown nothing that its public
data did not hold already. There is no paper.

.. math:: x = \arg\max_{x \in P} p_y(x)
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import ScoresView
from mibench.attacks.base import Attack, AttackCard, ClassGoal, Knowledge, Reconstruction
from mibench.optim.selection import highest_inputs
from mibench.options import Count


class NearestPublic(Attack[ScoresView, ClassGoal]):
    """The public images that the victim scores highest for each class, none twice for one class."""

    card = AttackCard(
        name="nearest_public",
        title="Nearest public images",
        modalities=("image", "audio"),
        fidelity="paper",
        family="floor",
        task="class",
        access=("scores",),
        needs=("public",),
    )
    length = ()

    batch_size: Count = 256
    """Images per query."""

    def reconstruct(
        self, view: ScoresView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` public images per class, the highest score first.

        Where there are fewer public images than samples, they come again from the first.
        """
        public, targets = knowledge.public.x.to(view.device), goal.targets.to(view.device)
        scores = torch.empty(0, len(targets), device=view.device)
        parts = public.split(self.batch_size)
        with view.phase("select"):
            for step in self.steps(len(parts)):
                scores = torch.cat([scores, view.query(parts[step])[:, targets]])
                self.keep(partial(self._highest, public, scores, goal))
        return self._highest(public, scores, goal)

    @staticmethod
    def _highest(public: Tensor, scores: Tensor, goal: ClassGoal) -> Reconstruction:
        """Return the best of the public images that were asked about, whose scores are ``(images, targets)``."""
        return Reconstruction(highest_inputs(public, scores, goal.samples), goal.labels.to(public.device))
