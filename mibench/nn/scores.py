"""What a service does to score vectors, and what can be read off them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: The least probability that an inverse tells from zero.
LEAST = 1e-6


def label_kept(answers: Tensor, labels: Tensor) -> Tensor:
    """Return ``answers`` with every row's label alone at the top.

    Where another class has got ahead the two change places; where one has come level the label gets the next number.

    Args:
        answers: Scores ``(N, classes)``.
        labels: Class ids ``(N, 1)``.
    """
    best, first = answers.max(1, keepdim=True)
    swapped = answers.scatter(1, first, answers.gather(1, labels)).scatter(1, labels, best)
    others = swapped.scatter(1, labels, -torch.inf).amax(1, keepdim=True)
    above = torch.nextafter(others, torch.full_like(others, torch.inf))
    return swapped.scatter(1, labels, torch.maximum(best, above))


class ScoreInverse(nn.Sequential):
    """An inversion network: from score vectors back to the standardised inputs that they are answers to.

    It sees the log of the scores, so that small ones speak too (Yang et al., Neural Network Inversion in Adversarial
    Setting via Background Knowledge Alignment, CCS 2019).

    Args:
        classes: Length of a score vector.
        values: Numbers of one input.
        hidden: Units of the two hidden layers.
    """

    def __init__(self, classes: int, values: int, hidden: int = 256) -> None:
        layers = [nn.Linear(classes, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden, values))

    def forward(self, scores: Tensor) -> Tensor:
        """Return flat standardised inputs ``(N, values)`` for scores ``(N, classes)``."""
        seen = (scores + LEAST).log() / -math.log(LEAST)
        result: Tensor = super().forward(2 * seen + 1)  # type: ignore[no-untyped-call]
        return result

    def errors(self, scores: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean squared error of every row against the flat standardised inputs ``wanted``."""
        away: Tensor = self(scores) - wanted
        return away.square().mean(1)


class Standard(nn.Module):
    """Flat inputs less a mean, over a deviation.

    Args:
        mean: Shape ``(values,)``.
        deviation: Shape ``(values,)``.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    @classmethod
    def of(cls, x: Tensor) -> Standard:
        """Return the one in which ``x`` has mean 0 and deviation 1; constant values of it only lose their mean."""
        flat = x.flatten(1).float()
        deviation = flat.std(0, correction=0)
        return cls(flat.mean(0), torch.where(deviation > 0, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(N, values)`` for inputs ``(N, ...)``."""
        return (x.flatten(1) - self.mean) / self.deviation
