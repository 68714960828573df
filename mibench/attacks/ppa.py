r"""PPA: plug and play attacks on a generator's styles.

Struppek et al., Plug & Play Attacks: Towards Robust and Flexible Model Inversion Attacks, ICML 2022.
The attacker owns the target's weights and a style-based generator that was trained on public images without the target;
another target needs no other generator. With mapping :math:`f` and synthesis :math:`S`, for a class :math:`y`:

1. of many :math:`w = f(z)`, truncated, the ``candidates`` are kept whose images the target scores highest for
   :math:`y`, on average over image and mirror image;
2. each descends the Poincaré distance of the logits under random crops :math:`A`,
   :math:`\min_w d(T(A(S(w))), y)`, with one style for all layers (:mod:`mibench.optim.identity`);
3. the results with the highest mean :math:`p_y` over many random views are returned: what only one rendering fools the
   target with does not survive.

Official code: https://github.com/LukasStruppek/Plug-and-Play-Attacks (``attacks/``, ``configs/attacking``); defaults
are those for CelebA, without a schedule. Deviations: no centre crop, since the generator is trained on images framed as
the target's; candidates are judged as they then descend, with one style for all layers; mirroring only where it keeps
the class; no discriminator term, whose weight is 0 there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import ClassSearch
from mibench.card import AttackCard
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.model import StylePrior
from mibench.optim.augmentation import Views
from mibench.optim.descent import in_chunks
from mibench.optim.identity import IdentityLoss
from mibench.optim.selection import best_of_each, robust_score
from mibench.optim.style_search import best_styles, painted, random_styles, selection_views, style_descent
from mibench.options import Count, CountOrNone, NonNegative, Positive, Share
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassGoal


class Ppa(ClassSearch):
    """Search of styles under the Poincaré loss, with selection before and after.

    Args:
        latents: Random styles among which the candidates are found.
        psi: Truncation of these.
        cutoff: Number of first layers that are truncated.
        candidates: Styles per class that descend; at least the budget's samples.
        iterations: Descent steps.
        lr: Adam's step size.
        crop: Least share of the image that the random crop of a step keeps.
        rounds: Views per candidate in the final selection; 0 keeps the best candidates as they were found.
        identity: Loss that the descent minimises.
        batch: Styles that descend at once: bounds the memory.
    """

    card = AttackCard(
        name="ppa",
        title="PPA",
        modalities=("image",),
        year=2022,
        bib="ppa",
        code="https://github.com/LukasStruppek/Plug-and-Play-Attacks",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
        space="style",
    )

    def __init__(
        self,
        *,
        latents: Count = 5000,
        psi: NonNegative = 0.5,
        cutoff: CountOrNone = 8,
        candidates: Count = 200,
        iterations: Count = 70,
        lr: Positive = 0.005,
        crop: Share = 0.9,
        rounds: CountOrNone = 100,
        identity: IdentityLoss = "poincare",
        batch: Count = 1000,
    ) -> None:
        self.latents = latents
        self.psi = psi
        self.cutoff = cutoff
        self.candidates = candidates
        self.iterations = iterations
        self.lr = lr
        self.views = Views(scale=(crop, 1.0))
        self.rounds = rounds
        self.identity = identity
        self.batch = batch

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        if not goal.samples <= self.candidates <= self.latents:
            raise UserError(
                f"Expected attack.candidates to lie between budget.samples={goal.samples} and attack.latents="
                f"{self.latents}, but got {self.candidates}."
            )
        prior = knowledge.prior
        assert isinstance(prior, StylePrior)
        targets = goal.targets.to(view.device)
        labels = targets.repeat_interleave(self.candidates)
        pool = random_styles(prior, self.latents, self.psi, self.cutoff, self.draws(view.device, "latents"))
        found = best_styles(view, prior, pool, targets, self.candidates)
        self.keep(lambda: self._first(prior, found, goal))  # sees how far each style has come
        draws = self.draws(view.device, "views")

        def descend(rows: Tensor) -> None:
            def remember(moving: Sequence[Tensor], _: Tensor) -> None:
                found[rows] = moving[0]

            style_descent(
                prior,
                [found[rows]],
                self.objective(view, labels[rows]),
                self.steps(self.iterations),
                lr=self.lr,
                views=self.views,
                draws=draws,
                after=remember,
            )

        for rows in torch.arange(len(found), device=view.device).split(self.batch):
            descend(rows)
        return self._select(view, prior, found, goal)

    def objective(self, view: WhiteBoxView, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what the styles of one batch descend: from images ``(N, C, H, W)`` to their losses ``(N,)``."""
        return lambda images: self.identify(view, images, labels)

    def _first(self, prior: StylePrior, found: Tensor, goal: ClassGoal) -> Reconstruction:
        """Return each class's candidates that scored highest at the start."""
        best = found.reshape(len(goal.targets), self.candidates, -1)[:, : goal.samples].flatten(0, 1)
        return Reconstruction(painted(prior, best), goal.labels.to(found.device))

    def _select(self, view: WhiteBoxView, prior: StylePrior, found: Tensor, goal: ClassGoal) -> Reconstruction:
        """Return each class's results whose score holds under random views."""
        if not self.rounds:
            return self._first(prior, found, goal)
        images, draws = painted(prior, found), self.draws(view.device, "selection")
        labels = goal.targets.to(view.device).repeat_interleave(self.candidates)
        views = selection_views(view.spec.mirrored)

        def score(part: Tensor, wanted: Tensor) -> Tensor:
            return robust_score(lambda x: view.logits(x).softmax(1), part, wanted, views, self.rounds, draws)

        with view.phase("select"):
            scores = in_chunks(score, self.batch, images, labels)
        return Reconstruction(
            images[best_of_each(scores, len(goal.targets), goal.samples)], goal.labels.to(view.device)
        )
