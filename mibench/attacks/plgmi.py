r"""PLG-MI: pseudo-label-guided model inversion.

Yuan et al., Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial
Network, AAAI 2023; official code https://github.com/LetheSec/PLG-MI-Attack (``reconstruct.py``). The attacker owns the
target's weights and public images, which the target labels: on these a class-conditional GAN was trained, the prior
``projection_cgan``, where the first two of the paper's three steps stand. In the third the class :math:`y` is fixed
and every sample descends, from its own :math:`z \sim N(0, I)`, with Adam and without any prior term or clamp

.. math:: L_{mm}(T(A_1(G(z, y))), y) + L_{mm}(T(A_2(G(z, y))), y), \qquad L_{mm} = -l_y + \max_{k \ne y} l_k

where :math:`A_1, A_2` are two draws of the same random views (crop, rotation, jitter, mirror). The authors' five
restarts are five samples of a class: all are reported. Their batch loss is a mean; Adam does not see the factor.
Deviation: views are mirrored only where the dataset says that a mirrored image shows the same class.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import AttackCard, ClassGoal, ClassSearch, Knowledge, Reconstruction
from mibench.model import ClassPrior
from mibench.optim.augmentation import gentle
from mibench.optim.descent import adam_descent
from mibench.optim.identity import IdentityLoss
from mibench.options import Count, Positive


class PlgMi(ClassSearch):
    """Latent search in a class-conditional generator, under the margin of two random views."""

    card = AttackCard(
        name="plgmi",
        title="PLG-MI",
        modalities=("image",),
        year=2023,
        code="https://github.com/LetheSec/PLG-MI-Attack",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
        space="class",
    )
    length = ("iterations",)

    iterations: Count = 600
    """Descent steps."""
    lr: Positive = 0.1
    """Adam's step size."""
    identity: IdentityLoss = "max_margin"
    """The loss on the target's logits; the paper compares max_margin, cross_entropy and poincare."""
    flip: bool | None = None
    """Whether half of the views are mirrored; null: where a mirrored image shows the same class."""

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        prior, labels = knowledge.prior, goal.labels.to(view.device)
        assert isinstance(prior, ClassPrior)
        views = gentle(view.spec.mirrored if self.flip is None else self.flip)
        draws = self.draws(view.device, "views")

        def objective(z: Tensor) -> Tensor:
            images = prior.generate_class(z, labels)
            first, second = (self.identify(view, views(images, draws), labels) for _ in range(2))
            return first + second

        def keep(variables: Sequence[Tensor], losses: Tensor) -> None:
            self.keep(partial(_images, prior, variables[0], labels))

        start = prior.sample_latent(len(labels), self.draws(view.device, "latents"))
        (z,) = adam_descent([start], objective, self.steps(self.iterations), lr=self.lr, after=keep)
        return _images(prior, z, labels)


@torch.no_grad()
def _images(prior: ClassPrior, z: Tensor, labels: Tensor) -> Reconstruction:
    return Reconstruction(prior.generate_class(z, labels), labels)
