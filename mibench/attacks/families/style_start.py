"""The family of style search: it starts from the random styles that the target scores highest, and moves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import ClassGoal, ClassSearch, Knowledge, Reconstruction
from mibench.errors import UserError
from mibench.model import StylePrior
from mibench.optim.augmentation import Views
from mibench.optim.descent import in_chunks
from mibench.optim.identity import IdentityLoss
from mibench.optim.selection import best_of_each, robust_score, spread_ranks
from mibench.optim.style_search import best_styles, painted, random_styles, selection_views, style_descent
from mibench.options import Count, CountOrNone, NonNegative, Positive, Share, option


class StyleStart(ClassSearch):
    """A search of styles from a pool of random ones."""

    latents: Count = 5000
    """Random styles among which the starts are found, at least the budget's samples."""
    psi: NonNegative = 0.5
    """Truncation of these."""
    cutoff: CountOrNone = 8
    """Number of first layers that are truncated."""
    lr: Positive = 0.005
    """Adam's step size."""

    def pool(self, view: WhiteBoxView, prior: StylePrior, goal: ClassGoal) -> Tensor:
        """Return the random styles, shape ``(latents, w_dim)``."""
        if self.latents < goal.samples:
            raise UserError(
                f"Expected attack.latents to be at least budget.samples={goal.samples}, but got {self.latents}."
            )
        return random_styles(prior, self.latents, self.psi, self.cutoff, self.draws(view.device, "latents"))


class CroppedStyles(StyleStart):
    """The search that shows the target a random crop at every step."""

    crop: Share = 0.9
    """Least share of the image that the random crop of a step keeps."""
    identity: IdentityLoss = "poincare"
    """Loss that the descent minimises."""

    @property
    def views(self) -> Views:
        """The random crops."""
        return Views(scale=(self.crop, 1.0))


class SelectedStyles(CroppedStyles):
    """The search of many candidates per class, of which those are returned that the target knows from every view."""

    length = ("iterations",)

    candidates: Count = 200
    """Styles per class that descend; at least the budget's samples."""
    selected: Count | None = option(None, since=2)
    """Results per class that the final selection keeps, of which the budget's samples are returned, evenly over their
    ranks; null keeps the budget's samples."""
    iterations: Count = 70
    """Descent steps."""
    rounds: CountOrNone = 100
    """Views per candidate in the final selection; 0 keeps the best candidates as they were found."""
    batch: Count = 1000
    """Styles that descend at once: bounds the memory."""

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        if not goal.samples <= self.candidates <= self.latents:
            raise UserError(
                f"Expected attack.candidates to lie between budget.samples={goal.samples} and attack.latents="
                f"{self.latents}, but got {self.candidates}."
            )
        if not goal.samples <= (self.selected or goal.samples) <= self.candidates:
            raise UserError(
                f"Expected attack.selected to lie between budget.samples={goal.samples} and attack.candidates="
                f"{self.candidates}, but got {self.selected}."
            )
        prior = knowledge.prior
        assert isinstance(prior, StylePrior)
        targets = goal.targets.to(view.device)
        labels = targets.repeat_interleave(self.candidates)
        found = best_styles(view, prior, self.pool(view, prior, goal), targets, self.candidates)
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

    def _ranks(self, goal: ClassGoal) -> Tensor:
        """Return the ranks, in a class's selection, of the results that are returned, shape ``(samples,)``."""
        return spread_ranks(self.selected or goal.samples, goal.samples)

    def _first(self, prior: StylePrior, found: Tensor, goal: ClassGoal) -> Reconstruction:
        """Return of each class's candidates those of the ranks at the start that are returned."""
        best = found.reshape(len(goal.targets), self.candidates, -1)[:, self._ranks(goal)].flatten(0, 1)
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
        best = best_of_each(scores, len(goal.targets), self.selected or goal.samples).reshape(len(goal.targets), -1)
        return Reconstruction(images[best[:, self._ranks(goal)].flatten()], goal.labels.to(view.device))
