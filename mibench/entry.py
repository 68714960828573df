"""What enters a model, and what it is trained for: the first module of every classifier, and its objective."""

from __future__ import annotations

from torch import Tensor, nn


def argmax_or_abstain(answers: Tensor) -> Tensor:
    """Return the most probable class of every answer ``(N, classes)``, -1 for one of zeros: the service abstains.

    >>> import torch
    >>> argmax_or_abstain(torch.tensor([[0.1, 0.9], [0.0, 0.0]])).tolist()
    [1, -1]
    """
    best, labels = answers.max(1)
    return labels.where(best > 0, -1)


class Entry(nn.Module):
    """The first module of a model: it maps canonical inputs to what stage 0 takes.

    What a search of inputs moves in their place (soft one-hots of records, embeddings of tokens) enters here as well,
    by :meth:`relaxed`, so that whoever counts or guards inputs sees all of them.

    Attributes:
        width: Numbers of one relaxed entry (of a record's all columns, of one token); 0 where nothing can be relaxed.
        relaxing: Whether the module takes relaxed inputs; a view sets this of its own copy.
    """

    width: int = 0
    relaxing: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return what stage 0 takes, of canonical inputs or, where :attr:`relaxing` is set, of relaxed ones."""
        return self.relaxed(x) if self.relaxing else self.canonical(x)

    def canonical(self, x: Tensor) -> Tensor:
        """Return what stage 0 takes of canonical inputs ``(N, ...)``."""
        raise NotImplementedError(f"{type(self).__name__} has no canonical inputs.")

    def relaxed(self, u: Tensor) -> Tensor:
        """Return what stage 0 takes of relaxed inputs: they themselves, unless a module says otherwise."""
        return u

    def scaling(self) -> tuple[Tensor, Tensor] | None:
        """Return what of a record's relaxed numbers was subtracted and what they were then divided by.

        Both are of shape ``(width,)``. None where the module takes no records.
        """
        return None


class Normalise(Entry):
    """Maps inputs from mibench's canonical range to the model's own: ``(x - mean) / std`` per channel or column.

    Args:
        mean: One value per channel.
        std: One value per channel.
        image: Whether inputs are images or spectrograms ``(N, C, H, W)``; otherwise records ``(N, columns)``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, image: bool = True) -> None:
        super().__init__()
        shape = (1, -1, 1, 1) if image else (1, -1)
        self.register_buffer("mean", mean.float().reshape(shape))
        self.register_buffer("std", std.float().reshape(shape))

    def canonical(self, x: Tensor) -> Tensor:
        """Return the normalised input."""
        return (x - self.mean) / self.std


class Objective:
    """What a model is trained for: its loss, and when it is right. This class itself is plain classification."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy of every example, shape ``(N,)``; ``y`` holds class ids or distributions."""
        return nn.functional.cross_entropy(logits, y, reduction="none")

    def mean(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss."""
        return nn.functional.cross_entropy(logits, y)

    def correct(self, answers: Tensor, y: Tensor) -> Tensor:
        """Return whether the most probable class of every unit is its own, shape ``(units,)``; no answer is wrong."""
        return argmax_or_abstain(answers) == y.to(answers.device)

    def soft(self, y: Tensor, classes: int) -> Tensor:
        """Return class ids ``(N,)`` as distributions ``(N, classes)``."""
        return nn.functional.one_hot(y, classes).float()
