"""Keeping and choosing results by the attacker's own loss, without leaving the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def take_best(best: Tensor, best_loss: Tensor, values: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Return per sample the values with the lower loss, without leaving the device.

    Args:
        best: Best values so far, shape ``(N, ...)``.
        best_loss: Their losses, shape ``(N,)``.
        values: New values.
        loss: Their losses.
    """
    better = loss < best_loss
    mask = better.reshape(-1, *[1] * (values.dim() - 1))
    return torch.where(mask, values, best), torch.where(better, loss, best_loss)


class Best:
    """The variables with the lowest objective met so far, over steps and restarts; never leaves the device.

    Attributes:
        values: Copies of the variables; empty until something was offered.
        loss: Their objective, a scalar; infinite until a finite one was met.
    """

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.loss = torch.tensor(torch.inf)

    def offer(self, variables: Sequence[Tensor], loss: Tensor) -> None:
        """Take ``variables`` where their ``loss`` is lower than the best; a NaN never is."""
        if not self.values:
            self.values = [variable.detach().clone() for variable in variables]
            self.loss = self.loss.to(loss.device)
        better = loss.detach() < self.loss
        pairs = zip(variables, self.values, strict=True)
        self.values = [torch.where(better, variable.detach(), kept) for variable, kept in pairs]
        self.loss = torch.where(better, loss.detach(), self.loss)

    @torch.no_grad()
    def copy_to(self, variables: Sequence[Tensor]) -> None:
        """Put the best values into ``variables``, in place."""
        for variable, kept in zip(variables, self.values, strict=True):
            variable.copy_(kept)


def best_candidates(scores: Tensor, count: int) -> Tensor:
    """Return of every column the rows of the highest scores, highest first, none twice, shape ``(count, columns)``.

    Args:
        scores: Shape ``(candidates, columns)``: of every candidate for every class, say.
        count: At most the number of candidates.
    """
    return scores.topk(count, dim=0).indices


def highest_inputs(inputs: Tensor, scores: Tensor, samples: int) -> Tensor:
    """Return of every class the inputs that score highest, highest first, shape ``(classes * samples, ...)``.

    Those of a class stand side by side, none twice unless there are fewer inputs than samples: then they come again
    from the first.

    Args:
        inputs: Shape ``(n, ...)``.
        scores: Of the first of them, at least one, for every class, shape ``(m, classes)``.
        samples: Inputs wanted of each class.
    """
    rows = best_candidates(scores, min(samples, len(scores)))
    rows = rows[torch.arange(samples, device=rows.device) % len(rows)]
    return inputs[rows.T.flatten()]


def best_of_each(scores: Tensor, groups: int, keep: int) -> Tensor:
    """Return the positions of each group's highest scores, shape ``(groups * keep,)``, groups in their order.

    Args:
        scores: Shape ``(groups * n,)``, the members of a group side by side.
        groups: Number of groups.
        keep: How many of each are kept.
    """
    table = scores.reshape(groups, -1)
    first = torch.arange(groups, device=scores.device)[:, None] * table.shape[1]
    return (first + table.topk(keep, dim=1).indices).flatten()


def spread_ranks(selected: int, samples: int) -> Tensor:
    """Return ``samples`` of the ranks 0 to ``selected`` - 1, the middles of so many equal parts, shape ``(samples,)``.

    Their mean quality is that of all selected results, of which an authors' script scores every one.

    >>> spread_ranks(50, 5).tolist(), spread_ranks(3, 3).tolist()
    ([5, 15, 25, 35, 45], [0, 1, 2])
    """
    return ((2 * torch.arange(samples) + 1) * selected).div(2 * samples, rounding_mode="floor")


@torch.no_grad()
def robust_score(
    score: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    views: Callable[[Tensor, torch.Generator], Tensor],
    rounds: int,
    draws: torch.Generator,
) -> Tensor:
    """Return the mean probability of each image's class over random views of it, shape ``(N,)``.

    A high score that holds for one rendering only, as an adversarial one does, does not survive (Struppek et al.,
    ICML 2022, section 3.3).

    Args:
        score: Returns probabilities ``(N, classes)`` of images; the target's, never an evaluation model's.
        images: Shape ``(N, C, H, W)`` in [0, 1].
        labels: Class ids ``(N,)``.
        views: Returns a random view of images, as :class:`mibench.optim.augmentation.Views` does.
        rounds: Views per image.
        draws: Random generator on the images' device.
    """
    total = torch.zeros(len(images), device=images.device)
    for _ in range(rounds):
        total += score(views(images, draws)).gather(1, labels[:, None])[:, 0]
    return total / rounds
