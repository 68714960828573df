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
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.generator_search import GeneratorSearch
from mibench.model import LatentPrior
from mibench.optim.constraints import box
from mibench.optim.gradient_distance import DistanceName
from mibench.optim.problems import Found, Sent
from mibench.options import Count, NonNegative, Positive


@dataclass(frozen=True)
class Latents:
    """The latent space of a generator.

    Attributes:
        prior: The generator.
        clip: Largest size of a latent's entry; None for no bound.
    """

    prior: LatentPrior
    clip: float | None

    def to_inputs(self, z: Tensor) -> Tensor:
        """Return images ``(n, batch, C, H, W)`` in [0, 1] of latents ``(n, batch, latent_dim)``."""
        images = self.prior.generate(z.flatten(0, 1))
        return images.reshape(*z.shape[:2], *images.shape[1:])

    def project(self, z: Tensor) -> Tensor:
        """Return latents inside the box."""
        return z if self.clip is None else box(z, -self.clip, self.clip)

    def decode(self, z: Tensor) -> Tensor:
        """Return the images of latents."""
        return self.to_inputs(z)


class Ggi(GeneratorSearch):
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

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the generator's images whose gradient is closest to every message, and their labels."""
        labels, space, problems = (
            self.labels(view, knowledge),
            Latents(knowledge.prior, self.z_clip),
            self.problems(view),
        )
        sent, found = Sent(view.messages, problems), Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels, space))

        def objective(rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            apart = self.apart(view, space.to_inputs(z), labels[problems.message(rows)], sent.of(rows))
            return apart + self.z_reg * z.square().flatten(1).mean(1), apart

        start = self.noise(view, problems, "latents", view.batch_size, knowledge.prior.latent_dim)
        self.descend(objective, [space.project(start)], found, lambda rows, moving: [space.project(moving[0])])
        return self.answer(view, goal, found, labels, space)
