r"""Random prior: samples of the attacker's generator, drawn without looking at the victim.

The floor under every generative attack: what a prior trained on public data gives by itself, before any leak. An attack
that does not beat it has learned nothing from the victim. There is no paper.

.. math:: x = G(z), \qquad z \sim N(0, I)
"""

from __future__ import annotations

import torch
from torch import nn

from mibench.access import NoView
from mibench.attacks.base import Attack, AttackCard, ClassGoal, Knowledge, Reconstruction


class RandomPrior(Attack[NoView, ClassGoal]):
    """Independent samples of the prior, the same for every class but for the draw."""

    card = AttackCard(
        name="random_prior",
        title="Random samples of the prior",
        modalities=("image", "audio"),
        fidelity="paper",
        family="floor",
        task="class",
        access=("none",),
        needs=("public", "prior"),
    )
    length = ()

    def reconstruct(
        self, view: NoView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` random images per class."""
        prior, wanted = knowledge.prior, goal.labels.to(view.device)
        with torch.no_grad():
            images = prior.generate(prior.sample_latent(len(wanted), self.draws(view.device, "latents")))
        return Reconstruction(images, wanted)
