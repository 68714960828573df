r"""GGI: gradient inversion in the latent space of a generator (Zhu, DOCS 2024).

The attacker owns a generator :math:`G` trained on public images of the same kind, and searches the latents of a
client's batch instead of its pixels,

.. math:: \min_{z \in [-c, c]^{B \times d}} 1 - \frac{\langle \nabla_\theta L(G(z), y), g \rangle}{\|
    \nabla_\theta L(G(z), y) \| \| g \|} + \alpha \, \overline{z^2}

with labels read off the gradient and Adam whose step size rises over the first twentieth of the steps and falls along
a half cosine over the last three quarters. Of several starts the one of the lowest distance is returned. There are only
:math:`B d` unknowns, and all that comes back looks like the public data. That is also its floor: the error is at least
the distance of the private images from the range of :math:`G`, and private and public people or classes are disjoint
here (digits: a generator of 5-9 against images of 0-4), so that other methods can come closer in every pixel.

Reconstruction: from the abstract. Inferred: distance, regulariser, bound and selection; step size, steps and schedule
are those of the latent search in https://github.com/ffhibnese/GIFD_Gradient_Inversion_Attack (0.03, 1000 steps, 4
starts). Kept is the iterate of the lowest distance, not the last.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import GradientSearch
from mibench.card import AttackCard
from mibench.knowledge import Knowledge
from mibench.model import LatentPrior
from mibench.optim.constraints import box
from mibench.optim.gradient_distance import DISTANCES, DistanceName
from mibench.optim.gradient_matching import Adam, Found, Sent
from mibench.optim.label_recovery import LabelRule
from mibench.options import Count, NonNegative, Positive
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceGoal


@dataclass(frozen=True)
class Latents:
    """The latent space of a generator.

    Attributes:
        prior: The generator.
    """

    prior: LatentPrior

    def images(self, z: Tensor) -> Tensor:
        """Return images ``(n, batch, C, H, W)`` in [0, 1] of latents ``(n, batch, latent_dim)``."""
        images = self.prior.generate(z.flatten(0, 1))
        return images.reshape(*z.shape[:2], *images.shape[1:])


@dataclass(kw_only=True, eq=False)
class Ggi(GradientSearch):
    """Search of a generator's latents under the cosine distance of gradients."""

    card = AttackCard(
        name="ggi",
        title="GGI",
        modalities=("image",),
        year=2024,
        fidelity="reconstruction",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        needs=("public", "prior"),
        uses=("labels", "local_training"),
    )

    iterations: Count = 1500
    """Steps."""
    lr: Positive = 0.03
    """Adam's largest step size."""
    z_reg: NonNegative = 1e-4
    """Weight of the mean square of the latents."""
    z_clip: Positive | None = 2.0
    """Largest size of a latent's entry; None for no bound."""
    distance: DistanceName = "cosine"
    """``cosine``, ``layer_cosine`` or ``squared``."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""
    restarts: Count = 4
    """Starts per message."""

    def bounded(self, z: Tensor) -> Tensor:
        """Return latents inside the box."""
        return z if self.z_clip is None else box(z, -self.z_clip, self.z_clip)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the generator's images whose gradient is closest to every message, and their labels."""
        labels, space, problems = self.labels(view, knowledge), Latents(knowledge.prior), self.problems(view)
        assert labels is not None
        sent, found = Sent(view.messages, problems), Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels, space))

        def objective(rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            apart = DISTANCES[self.distance](
                view.updates(space.images(z), labels[problems.message(rows)]), sent.of(rows)
            )
            return apart + self.z_reg * z.square().flatten(1).mean(1), apart

        start = self.noise(view, problems, "latents", view.batch_size, knowledge.prior.latent_dim)
        Adam(self.iterations, self.lr, rise=0.05, fall=0.75).minimise(
            objective,
            [self.bounded(start)],
            found,
            self.steps(self.iterations),
            project=lambda rows, moving: [self.bounded(moving[0])],
        )
        return self.answer(view, goal, found, labels, space)
