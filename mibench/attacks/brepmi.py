r"""BREP-MI: boundary-repelling model inversion, from class labels alone.

Kahla et al., Label-Only Model Inversion Attacks via Boundary Repulsion, CVPR 2022. The attacker owns a generator
:math:`G` trained on public images and is told of each image the class that the target names, nothing else. Far inside a
class its images are its own, so a latent :math:`z` of class :math:`y` is pushed away from where the label changes. With
:math:`N` unit directions :math:`u_i` and the radius :math:`R`,

.. math:: z' = \mathrm{clip}\Big(z - \min(R / 3, 3) \, \frac1N \sum_i u_i \, [T(G(z + R u_i)) \ne y],\; -b,\; b\Big),

and :math:`z'` is taken if the target still names :math:`y` there. Where more than ``inside`` of the sphere is of the
class, :math:`R` grows by ``growth``; the result is where it last grew. The code asks for a sum of the decisions (1
inside, -1 outside) above :math:`0.75 N`, which is a share above 0.875. It starts from the first draws of
:math:`z \sim \mathrm{clip}(N(0, I), -b, b)` that the target takes for :math:`y`; a class that none of ``draws`` meets
is not found and counts as a failure. An iteration costs :math:`N + 1` queries for every sample of every class.

Official code: https://github.com/m-kahla/Label-Only-Model-Inversion-Attacks-via-Boundary-Repulsion (``brep_mi.py``,
``config2.yaml``). Deviations: the code draws without end for its starts, and may reject without end, because a
rejection is no iteration there; here ``draws`` and ``iterations`` bound both. It divides the push by the radius that
has just grown, so that such a step is shorter by ``growth``; ours is not. It makes one image for each of any 300
classes it meets; here every sample of the wanted classes has a start and a search of its own, all in one batch. Where
fewer starts than samples were met they are begun from again, and where :math:`R` never grew the last point is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mibench.access import LabelsView
from mibench.attacks.base import Attack, AttackCard, ClassGoal, Knowledge, Reconstruction
from mibench.model import LatentPrior
from mibench.optim.descent import in_chunks
from mibench.options import Count, Positive, Share

#: The longest step, whatever the radius.
LONGEST = 3.0


class BrepMi(Attack[LabelsView, ClassGoal]):
    """Latent search away from the boundary of the class, on spheres that grow."""

    card = AttackCard(
        name="brepmi",
        title="BREP-MI",
        modalities=("image",),
        revision=2,
        year=2022,
        code="https://github.com/m-kahla/Label-Only-Model-Inversion-Attacks-via-Boundary-Repulsion",
        fidelity="official",
        family="generative",
        task="class",
        access=("labels",),
        needs=("public", "prior"),
    )
    length = ("iterations",)

    points: Count = 32
    """Points on the sphere around a latent (N)."""
    radius: Positive = 2.0
    """Radius of the first sphere (R)."""
    growth: Positive = 1.3
    """Factor by which a radius grows."""
    inside: Share = 0.875
    """Share of the points that must be of the class for the radius to grow."""
    patience: Count = 1000
    """Iterations without growth after which a search ends."""
    iterations: Count = 10_000
    """Most iterations of a search."""
    bound: Positive = 1.5
    """Half-width of the latent box (b)."""
    draws_: Count = 100_000
    """Most random latents among which the starts are sought."""
    batch: Count = 256
    """Random latents of one query."""
    chunk: Count = 4096
    """Images of one query on the spheres: bounds the memory."""

    @torch.no_grad()
    def reconstruct(
        self, view: LabelsView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class; the loss of each is minus the radius that was reached."""
        prior = knowledge.prior
        z, found = self.starts(view, prior, goal)
        best, radius = z.clone(), torch.full_like(z[:, 0], self.radius)
        self.keep(partial(self._answer, prior, goal, best, found, radius))  # sees how far each has come
        self.repel(view, prior, goal.labels.to(view.device), found.nonzero()[:, 0], best, radius)
        return self._answer(prior, goal, best, found, radius)

    def starts(self, view: LabelsView, prior: LatentPrior, goal: ClassGoal) -> tuple[Tensor, Tensor]:
        """Return for every sample a latent of its class, ``(N, latent_dim)``, and whether there was one, ``(N,)``."""
        latents: list[Tensor] = []
        named: list[Tensor] = []
        draws, targets = self.draws(view.device, "latents"), goal.targets.to(view.device)

        def kept() -> Reconstruction:
            return self._answer(prior, goal, *first_of_each(latents, named, targets, goal.samples))

        with view.phase("initialise"):
            for _ in self.steps(-(-self.draws_ // self.batch), "starts"):
                z = prior.sample_latent(self.batch, draws).clamp(-self.bound, self.bound)
                answers = view.query(prior.generate(z))
                latents.append(z)
                named.append(answers)
                self.keep(kept)
                met = (torch.cat(named) == targets[:, None]).sum(1)
                if bool((met >= goal.samples).all()):  # looked at once per batch, which spares the queries of the rest
                    break
        return first_of_each(latents, named, targets, goal.samples)

    def repel(
        self, view: LabelsView, prior: LatentPrior, labels: Tensor, rows: Tensor, best: Tensor, radius: Tensor
    ) -> None:
        """Search all samples together; those without growth for ``patience`` iterations are asked about no more.

        Args:
            view: The target.
            prior: The generator.
            labels: Class ids of all samples, ``(N,)``.
            rows: The samples that have a start.
            best: The starts, ``(N, latent_dim)``; replaced in place by where the radius last grew.
            radius: The radii, ``(N,)``; replaced in place.
        """
        z, stale, grown = best.clone(), torch.zeros_like(labels), torch.zeros_like(labels, dtype=torch.bool)
        draws, check = self.draws(view.device, "directions"), self.patience

        def is_inside(points: Tensor, wanted: Tensor) -> Tensor:
            return in_chunks(lambda z, y: view.query(prior.generate(z)) == y, self.chunk, points, wanted)

        for step in self.steps(self.iterations):
            if step == check:  # no search can have ended earlier, so that the device is waited for here alone
                rows = rows[stale[rows] < self.patience]
                check += self.patience - (int(stale[rows].max()) if len(rows) else 0)
            if not len(rows):
                break
            at, reach, wanted = z[rows], radius[rows, None], labels[rows]
            u = torch.randn(len(rows), self.points, z.shape[1], generator=draws, device=view.device)
            u = normalize(u, dim=2)
            sphere = at[:, None] + reach[:, None] * u
            of_class = is_inside(sphere.flatten(0, 1), wanted.repeat_interleave(self.points)).unflatten(0, u.shape[:2])
            pushed = at + (reach / 3).clamp_max(LONGEST) * self.push(of_class, u)
            pushed = pushed.clamp(-self.bound, self.bound)
            z[rows] = at = torch.where(is_inside(pushed, wanted)[:, None], pushed, at)

            grows = of_class.float().mean(1) > self.inside
            best[rows] = torch.where((grows | ~grown[rows])[:, None], at, best[rows])
            radius[rows] = torch.where(grows, reach[:, 0] * self.growth, reach[:, 0])
            stale[rows] = torch.where(grows, 0, stale[rows] + 1)
            grown[rows] |= grows

    @staticmethod
    def push(of_class: Tensor, u: Tensor) -> Tensor:
        """Return where each latent is pushed, ``(n, latent_dim)``.

        Args:
            of_class: Whether each point of its sphere is of the class, ``(n, points)``.
            u: Their directions, ``(n, points, latent_dim)``.
        """
        return -(u * ~of_class[:, :, None]).mean(1)

    def _answer(
        self, prior: LatentPrior, goal: ClassGoal, z: Tensor, found: Tensor, radius: Tensor | None = None
    ) -> Reconstruction:
        """Return the images of latents; a class that was not met has none."""
        with torch.no_grad():
            images = in_chunks(prior.generate, self.chunk, z)
        return Reconstruction(images, goal.labels.to(z.device), valid=found, loss=None if radius is None else -radius)


def first_of_each(
    latents: Sequence[Tensor], named: Sequence[Tensor], targets: Tensor, samples: int
) -> tuple[Tensor, Tensor]:
    """Return the first latents that were named after each target, the few there are again and again.

    Args:
        latents: Batches of shape ``(batch, latent_dim)``.
        named: The class ids that the target gives them.
        targets: Class ids ``(T,)``.
        samples: Latents per class.

    Returns:
        Latents ``(T * samples, latent_dim)``, those of a class side by side, and whether there was any for the class.
    """
    pool, hit = torch.cat(list(latents)), torch.cat(list(named)) == targets[:, None]
    met = hit.sum(1, keepdim=True)
    earliest = hit.to(torch.int8).sort(dim=1, descending=True, stable=True).indices
    turn = torch.arange(samples, device=pool.device) % met.clamp_min(1)
    return pool[earliest.gather(1, turn).flatten()], (met > 0).expand(-1, samples).flatten()
