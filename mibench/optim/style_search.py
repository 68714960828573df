"""Search in the styles of a generator: which latents to start from, and the descent of their styles.

Parts of the attacks that start at the public generator's images which the target scores highest and then move the
styles (Struppek et al., ICML 2022; An et al., NDSS 2022; Qiu et al., ECCV 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import softmax

from mibench.access import WhiteBoxView
from mibench.model import StylePrior, StyleState
from mibench.optim.augmentation import Views
from mibench.optim.descent import adam_descent, in_chunks
from mibench.optim.selection import best_candidates

#: PPA's decay rates of Adam (``configs/attacking``); no misprint.
BETAS = (0.1, 0.1)


@torch.no_grad()
def random_styles(prior: StylePrior, count: int, psi: float, cutoff: int | None, draws: torch.Generator) -> Tensor:
    """Return the styles of ``count`` random latents, shape ``(count, w_dim)``.

    Truncation by ``psi`` counts in the first ``cutoff`` layers, and the first layer's style stands for all: a descent
    then moves one style that every layer takes.
    """
    return prior.styles(prior.sample_latent(count, draws), psi, cutoff)[:, 0]


def broadcast(prior: StylePrior, w: Tensor) -> Tensor:
    """Return styles ``(N, num_ws, w_dim)`` in which every layer takes the same one."""
    return w[:, None].expand(-1, prior.num_ws, -1)


def painted(prior: StylePrior, w: Tensor) -> Tensor:
    """Return the images in [0, 1] of one style per sample, without gradient, in bounded memory."""
    with torch.no_grad():
        return in_chunks(lambda part: prior.synthesise(broadcast(prior, part)).clamp(0, 1), prior.chunk, w)


@torch.no_grad()
def target_scores(view: WhiteBoxView, images: Tensor) -> Tensor:
    """Return the target's probabilities ``(N, classes)``, averaged with those of the mirrored images.

    Only where a mirrored image shows the same class is it looked at.
    """
    scores = softmax(view.logits(images), 1)
    return (scores + softmax(view.logits(images.flip(3)), 1)) / 2 if view.spec.mirrored else scores


def best_styles(view: WhiteBoxView, prior: StylePrior, w: Tensor, targets: Tensor, count: int) -> Tensor:
    """Return for each target the ``count`` styles of ``w`` that the view's model scores highest, none twice.

    Args:
        view: The target.
        prior: The generator.
        w: Styles ``(N, w_dim)``; N is at least ``count``.
        targets: Class ids ``(T,)``.
        count: Styles per class.

    Returns:
        Styles ``(T * count, w_dim)``, those of a class side by side, best first.
    """
    with view.phase("initialise"), torch.no_grad():
        scores = in_chunks(
            lambda part: target_scores(view, prior.synthesise(broadcast(prior, part)).clamp(0, 1))[:, targets],
            prior.chunk,
            w,
        )
    return w[best_candidates(scores, count).T.flatten()]


def style_descent(
    prior: StylePrior,
    variables: Sequence[Tensor],
    identity: Callable[[Tensor], Tensor],
    steps: Iterable[int],
    *,
    lr: float,
    views: Views,
    draws: torch.Generator,
    betas: tuple[float, float] = BETAS,
    schedule: Callable[[int], float] | None = None,
    start: int = 0,
    state: StyleState | None = None,
    project: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None,
    after: Callable[[Sequence[Tensor], Tensor], None] | None = None,
) -> list[Tensor]:
    """Return the variables after a descent in which one style per sample moves and every step sees a random view.

    Args:
        prior: The generator.
        variables: Styles ``(N, w_dim)`` to start from and, where ``state`` is given, features that move with them.
        identity: Returns the loss ``(N,)`` of images, which are not clipped.
        steps: An attack's own ``self.steps(n)``.
        lr: Adam's step size.
        views: Random views under which images are judged.
        draws: Their random generator.
        betas: Adam's decay rates.
        schedule: Factor of ``lr`` at each step.
        start: Block at which the synthesis is entered.
        state: What it holds there; its features are replaced by the moving ones.
        project: As of :func:`adam_descent`.
        after: As of :func:`adam_descent`.
    """

    def objective(w: Tensor, *hidden: Tensor) -> Tensor:
        entered = None if state is None else replace(state, hidden=hidden[0])
        return identity(views(prior.synthesise(broadcast(prior, w), entered, start), draws))

    return adam_descent(
        variables, objective, steps, lr=lr, betas=betas, schedule=schedule, project=project, after=after
    )


def selection_views(mirrored: bool) -> Views:
    """Return the views under which PPA chooses among its results (``attacks/final_selection.py``).

    Args:
        mirrored: Whether half of them are mirrored, as the authors do for faces.
    """
    return Views(scale=(0.5, 0.9), ratio=(0.8, 1.2), mirror=0.5 * mirrored)
