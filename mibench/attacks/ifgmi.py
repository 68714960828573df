r"""IF-GMI: search of a generator's styles, then of its intermediate features.

Qiu et al., A Closer Look at GAN Priors: Exploiting Intermediate Features for Enhanced Model Inversion Attacks, ECCV
2024.
The attacker owns the target's weights and a style-based generator trained on public images, whose synthesis
:math:`S = S_B \circ \dots \circ S_0` can be entered at any block. Starting from the styles that the target scores
highest (as in PPA), stage 0 moves the style alone and every later stage :math:`i` style and features at once:

.. math:: \min_{w, h_i} d\big(T(A(S_{B..i}(h_i, w))), y\big), \qquad
    \|h_i - h_i^0\|_1 \le r_i, \quad \|w - w^0\|_1 \le r_i

under the Poincaré distance :math:`d` and random crops :math:`A`. Balls lie around the stage's own start, which is what
the stage before ended in, run through one more block. The images of the last stage are returned.

The authors start from the 50 best of 5,000 styles and score all of them. Where the budget has fewer ``samples``, that
many of the ``starts`` are searched, evenly over their ranks. The lower budgets have ``starts=null``: the best
``samples``. With the authors' radii a ball binds only in a search of at least four stages of 25 steps: shorter ones
stay inside.

Official code: https://github.com/final-solution/IF-GMI (``attacks/optimize.py``, ``configs``); defaults are those for
CelebA. The authors' radii are for features of 512 channels: for a smaller generator they shrink with the number of
features and of style dimensions. Deviations: the running image enters a stage beside the features (the authors drop
it), so that a stage starts at the image where the one before ended; the image after the last step is returned, not the
one before it; there is no centre crop; images are mirrored only where that keeps the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import AttackCard, ClassGoal, Knowledge, Reconstruction
from mibench.attacks.families.style_start import CroppedStyles
from mibench.errors import IncompatibleCellError, UserError
from mibench.model import StylePrior, StyleState
from mibench.optim.constraints import l1_ball
from mibench.optim.selection import spread_ranks
from mibench.optim.style_search import best_styles, broadcast, style_descent
from mibench.options import Count, Positive

#: Channels of the authors' features and dimension of their styles.
OFFICIAL_WIDTH = 512


class Ifgmi(CroppedStyles):
    """Search of styles, then of styles and features, inside l1 balls."""

    card = AttackCard(
        name="ifgmi",
        title="IF-GMI",
        modalities=("image",),
        revision=2,
        year=2024,
        code="https://github.com/final-solution/IF-GMI",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
        space="style",
    )
    length = ("first_steps", "later_steps")

    stages: Count = 5
    """Number of stages, at most the generator's number of blocks."""
    first_steps: Count = 70
    """Descent steps of the first stage, which moves styles alone."""
    later_steps: Count = 25
    """Descent steps of every later stage."""
    starts: Count | None = 50
    """Best random styles per class, among which the budget's samples start, evenly over their ranks; null starts from
    the budget's samples."""
    radii: Sequence[Positive | None] = (1000.0, 2000.0, 3000.0, 4000.0, 5000.0)
    """Radius of every stage's l1 balls in a generator of 512 channels; null does not bound a stage."""

    def __post_init__(self) -> None:
        """Refuse a stage without a radius."""
        super().__post_init__()
        if len(self.radii) < self.stages:
            raise UserError(
                f"Expected attack.radii to name a radius for each of the {self.stages} stages (attack.stages), but got "
                f"{len(self.radii)}."
            )

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        prior = knowledge.prior
        assert isinstance(prior, StylePrior)
        if self.stages > prior.num_blocks:
            raise IncompatibleCellError(
                f"Incompatible: attack 'ifgmi' has {self.stages} stages, but the generator has only "
                f"{prior.num_blocks} blocks; set attack.stages to at most that."
            )
        starts = goal.samples if self.starts is None else self.starts
        if not goal.samples <= starts <= self.latents:
            raise UserError(
                f"Expected attack.starts to lie between budget.samples={goal.samples} and attack.latents="
                f"{self.latents}, but got {starts}."
            )
        targets, labels = goal.targets.to(view.device), goal.labels.to(view.device)
        draws = self.draws(view.device, "views")
        best = best_styles(view, prior, self.pool(view, prior, goal), targets, starts).unflatten(0, (-1, starts))
        w = best[:, spread_ranks(starts, goal.samples)].flatten(0, 1)
        state: StyleState | None = None
        for stage in range(self.stages):
            start = [w] if state is None else [w, state.hidden]

            def inside(moving: Sequence[Tensor], start: Sequence[Tensor] = start, stage: int = stage) -> list[Tensor]:
                return [self.bounded(one, centre, stage) for one, centre in zip(moving, start, strict=True)]

            def remember(
                moving: Sequence[Tensor], _: Tensor, state: StyleState | None = state, stage: int = stage
            ) -> None:
                self.keep(lambda: Reconstruction(_painted(prior, moving, state, stage), labels))

            w, *hidden = style_descent(
                prior,
                start,
                lambda images: self.identify(view, images, labels),
                self.steps(self.later_steps if stage else self.first_steps, f"stage {stage}"),
                lr=self.lr,
                views=self.views,
                draws=draws,
                start=stage,
                state=state,
                project=inside,
                after=remember,
            )
            state = None if state is None else replace(state, hidden=hidden[0])
            if stage < self.stages - 1:
                with torch.no_grad():
                    state = prior.blocks(broadcast(prior, w), state, stage, stage + 1)
        return Reconstruction(_painted(prior, [w, *hidden], state, stage), labels)

    def bounded(self, values: Tensor, centre: Tensor, stage: int) -> Tensor:
        """Return a stage's styles ``(N, w_dim)`` or features ``(N, channels, h, w)`` brought back into their ball."""
        radius = self.radii[stage]
        return values if radius is None else l1_ball(values, centre, radius * values.shape[1] / OFFICIAL_WIDTH)


def _painted(prior: StylePrior, moved: Sequence[Tensor], state: StyleState | None, start: int) -> Tensor:
    """Return the images in [0, 1] of styles and, beyond the first stage, features."""
    with torch.no_grad():
        entered = None if state is None else replace(state, hidden=moved[1])
        return prior.synthesise(broadcast(prior, moved[0]), entered, start).clamp(0, 1)
