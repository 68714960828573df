r"""GIFD: gradient inversion over a generator's feature domains (Fang et al., ICCV 2023).

The attacker owns a style-based generator trained on public images, whose synthesis :math:`S = S_B \circ \dots \circ
S_0` can be entered at any block. Stage 0 searches latents :math:`z`, each kept at the length it started with; stage
:math:`k` enters the generator at block :math:`k` and searches its features :math:`h` and styles :math:`w` there,

.. math:: \min_{h, w} 1 - \cos\big(\nabla_\theta L(x, y), g\big) + \alpha \, \mathrm{TV}(x) + \beta \frac{\|x\|_2}{HW},
    \quad x = S_{B..k}(h, w), \quad \|h - h^0\|_1 \le r_k, \quad \|w - w^0\|_1 \le s_k

around where the stage before ended. So what the public images lack can be made in steps that stay close to them: the
latents have a floor, the distance of the private images from the generator's range (people or classes of public and
private data are disjoint here; see :mod:`mibench.attacks.ggi`), and the later stages reach below it. Every stage gives
an image per start, clamped, and the one of the lowest gradient distance over all stages and starts is returned. Where
clients prune what they send, ``mask_sent`` compares only the entries that were sent (the adaptive attacker); the length
of a clipped gradient does not matter to the cosine.

Official code: https://github.com/ffhibnese/GIFD_Gradient_Inversion_Attack; defaults are those for StyleGAN2. Its radii
are for the features of a generator of 1024 pixels: here they are per element, and the last one holds for all further
stages. Deviations: latents are searched before the mapping, one for all layers (there: one style per layer from the
start, in a ball); noise stays constant; a stage starts from the best point of the one before, not the last, with the
running image beside the features (there it is dropped), so that its image is the same; labels are read off by
``label_rule``, and their order in a batch is not taken from the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.generator_search import GeneratorSearch
from mibench.errors import IncompatibleCellError, UserError
from mibench.model import StylePrior, StyleState
from mibench.optim.constraints import l1_ball, sphere
from mibench.optim.input_space import Pixels
from mibench.optim.problems import Found, Sent
from mibench.optim.regularisers import batch_variation, l2_norm
from mibench.options import Count, NonNegative


@dataclass(frozen=True)
class Stage:
    """What is searched where the generator is entered at one of its blocks.

    Attributes:
        prior: The generator.
        block: The block; 0 searches latents, all others styles and features.
        start: Where the variables start, each of shape ``(problems, batch, ...)``.
        image: The running image there, shape ``(problems, batch, C, h, w)``; None where the generator has none.
    """

    prior: StylePrior
    block: int
    start: Sequence[Tensor]
    image: Tensor | None = None

    def images(self, rows: Tensor, *variables: Tensor) -> Tensor:
        """Return images ``(n, batch, C, H, W)``, not clipped, of the variables of ``rows``."""
        ws, state = self._entered(rows, variables)
        return _grouped(self.prior.synthesise(ws, state, self.block), variables[0])

    @torch.no_grad()
    def seen(self, rows: Tensor, *variables: Tensor) -> Tensor:
        """Return images of the variables of ``rows``, clamped to [0, 1]."""
        return self.images(rows, *variables).clamp(0, 1)

    @torch.no_grad()
    def next(self, rows: Tensor, *variables: Tensor) -> Stage:
        """Return the stage one block later, which starts at the image of the variables."""
        ws, state = self._entered(rows, variables)
        state = self.prior.blocks(ws, state, self.block, self.block + 1)
        image = None if state.image is None else _grouped(state.image, variables[0])
        start = [_grouped(one, variables[0]) for one in (ws, state.hidden)]
        return Stage(self.prior, self.block + 1, start, image)

    def _entered(self, rows: Tensor, variables: Sequence[Tensor]) -> tuple[Tensor, StyleState | None]:
        """Return styles ``(n * batch, num_ws, w_dim)`` and what the generator holds before the block."""
        first, *hidden = (variable.flatten(0, 1) for variable in variables)
        if not hidden:
            return self.prior.styles(first), None
        image = None if self.image is None else self.image[rows.to(self.image.device)].flatten(0, 1)
        return first, StyleState(hidden[0], image)


def _grouped(flat: Tensor, like: Tensor) -> Tensor:
    """Return ``(n * batch, ...)`` as ``(n, batch, ...)``, with the first two sizes of ``like``."""
    return flat.reshape(*like.shape[:2], *flat.shape[1:])


class Gifd(GeneratorSearch):
    """Search of latents, then of styles and features inside l1 balls, one block after another."""

    card = AttackCard(
        name="gifd",
        title="GIFD",
        modalities=("image",),
        year=2023,
        code="https://github.com/ffhibnese/GIFD_Gradient_Inversion_Attack",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        needs=("public", "prior"),
        uses=("labels", "local_training"),
        space="style",
    )

    stages: Count | None = None
    """Number of stages, at most the generator's number of blocks; None for as many."""
    feature_radii: Sequence[NonNegative] = (0.24, 0.09, 0.03, 0.0095, 0.0029, 0.0019, 0.00095)
    """Radius of every later stage's ball of features, per feature; the last holds for all further."""
    style_radii: Sequence[NonNegative] = (0.22, 0.33, 0.43, 0.54, 0.65, 0.87, 0.87)
    """Radius of every later stage's ball of styles, per entry; likewise."""
    tv: NonNegative = 1e-4
    """Weight of the total variation, in the model's own input space."""
    l2: NonNegative = 1e-6
    """Weight of the images' norm over their number of pixels, likewise."""
    mask_sent: bool = False
    """Whether only entries that were sent as other than zero are compared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.style_radii and self.feature_radii):
            raise UserError(
                "Expected attack.style_radii and attack.feature_radii to name a radius each, but got an empty list."
            )

    def bounded(self, values: Tensor, centre: Tensor, radius: float) -> Tensor:
        """Return values ``(n, batch, ...)``, each image's in its ball around ``centre`` of ``radius`` per entry."""
        return _grouped(l1_ball(values.flatten(0, 1), centre.flatten(0, 1), radius * values[0, 0].numel()), values)

    def allowed(self, stage: Stage, rows: Tensor, moving: Sequence[Tensor]) -> list[Tensor]:
        """Return a stage's variables of ``rows`` brought back to where they may be."""
        centres = [start[rows.to(start.device)] for start in stage.start]
        if not stage.block:
            return [sphere(moving[0], centres[0])]
        radii = [each[min(stage.block, len(each)) - 1] for each in (self.style_radii, self.feature_radii)]
        return [self.bounded(*one) for one in zip(moving, centres, radii, strict=True)]

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the images of all stages and starts whose gradient is closest to every message, and their labels."""
        prior = knowledge.prior
        assert isinstance(prior, StylePrior)
        count = self.stages or prior.num_blocks
        if count > prior.num_blocks:
            raise IncompatibleCellError(
                f"Incompatible: attack 'gifd' has {count} stages, but the generator has only {prior.num_blocks} "
                "blocks; set attack.stages to at most that."
            )
        labels, pixels, problems = self.labels(view, knowledge), Pixels.of(view), self.problems(view)
        sent, chosen = Sent(view.messages, problems), Found(problems)

        def apart(rows: Tensor, images: Tensor) -> Tensor:
            return self.apart(view, images, labels[problems.message(rows)], sent.of(rows))

        def objective(stage: Stage, rows: Tensor, *variables: Tensor) -> tuple[Tensor, Tensor]:
            images = stage.images(rows, *variables)
            inputs, distance = pixels.inputs(images), apart(rows, images)
            rough = batch_variation(inputs)
            return distance + self.tv * rough + self.l2 * l2_norm(inputs) / images[0, 0, 0].numel(), distance

        def judged(stage: Stage, found: Found) -> tuple[list[Tensor], Tensor]:
            """Return a stage's best images, clamped, and their distances; infinite where it met no finite one."""
            images, scores = [], []
            with view.phase("select"):
                for rows in problems.rows.split(problems.at_once):
                    images.append(stage.seen(rows, *[value[rows.to(value.device)] for value in found.values]))
                    scores.append(apart(rows, images[-1]).detach())
            return [torch.cat(images)], torch.cat(scores).where(found.scores.isfinite(), torch.inf)

        def answer(stage: Stage, found: Found) -> Reconstruction:
            """Return the best of all finished stages, or where there is none that of the first."""
            if chosen.values or not found.values:
                return self.answer(view, goal, chosen, labels)
            first = Found(problems, [stage.seen(problems.rows, *found.values)], found.scores)
            return self.answer(view, goal, first, labels)

        stage = Stage(prior, 0, [self.noise(view, problems, "latents", view.batch_size, prior.latent_dim)])
        for number in range(count):
            found = Found(problems)
            self.keep(partial(answer, stage, found))
            self.descend(partial(objective, stage), stage.start, found, partial(self.allowed, stage), f"stage {number}")
            chosen.offer(problems.rows, *judged(stage, found))
            if number < count - 1:
                stage = stage.next(problems.rows, *found.values)
        return self.answer(view, goal, chosen, labels)
