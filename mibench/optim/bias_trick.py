r"""The input of a linear layer, solved from the layer's own gradient.

For :math:`z = W a + b` and a batch of inputs :math:`a_n` with :math:`\delta_n = \partial L / \partial z_n` the
gradients are :math:`\partial L / \partial W = \sum_n \delta_n a_n^T` and :math:`\partial L / \partial b = \sum_n
\delta_n`: every row of the first over its entry of the second is a weighted mean of the inputs, and of one input that
input itself. No weight of the layer takes part, and a factor on the whole gradient cancels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: How far outside its range, in shares of it, an image's entry may lie.
ROUNDING = 1e-3


def least_squares(weight: Tensor, bias: Tensor) -> Tensor:
    r"""Return :math:`(\partial b^T \partial W) / \|\partial b\|^2`, which weights each row's ratio by its square.

    Args:
        weight: Gradients of the weight, shape ``(..., units, inputs)``.
        bias: Gradients of the bias, shape ``(..., units)``.

    Returns:
        Inputs, shape ``(..., inputs)``; NaN where the bias has no gradient.
    """
    return (bias[..., None, :] @ weight)[..., 0, :] / bias.square().sum(-1, keepdim=True)


def steepest_row(weight: Tensor, bias: Tensor) -> Tensor:
    """Return the ratio of the row whose bias gradient is largest, shape ``(..., inputs)``."""
    row = bias.abs().argmax(-1, keepdim=True)
    return (weight.take_along_dim(row[..., None], -2) / bias.take_along_dim(row, -1)[..., None])[..., 0, :]


def rows(weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the ratio of every row, and which are defined.

    Args:
        weight: Gradient of the weight, shape ``(units, inputs)``.
        bias: Gradient of the bias, shape ``(units,)``.
        eps: Share of the largest bias gradient from which a row counts; others are units that no example activated.

    Returns:
        Inputs ``(units, inputs)``, zero where undefined, and a mask ``(units,)``.
    """
    defined = bias.abs() > eps * bias.abs().max()
    return (weight / bias.where(defined, bias.new_ones(()))[:, None]).where(defined[:, None], 0.0), defined


def distinct(
    weight: Tensor,
    bias: Tensor,
    images: Callable[[Tensor], Tensor],
    count: int,
    eps: float,
    cosine: float,
    box: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Return the images of one message with which the most rows agree, and which of them are there.

    Args:
        weight: Gradient of the weight, shape ``(units, inputs)``.
        bias: Gradient of the bias, shape ``(units,)``.
        images: Returns the images of the layer's inputs ``(n, inputs)``.
        count: Images that are wanted.
        eps: Share of the largest bias gradient from which a row counts.
        cosine: From which two ratios are of the same input.
        box: Least and largest value of an image's entry; ratios outside are mixtures.
    """
    inputs, defined = rows(weight, bias, eps)
    made, slack = images(inputs), ROUNDING * (box[1] - box[0])
    inside = ((made >= box[0] - slack) & (made <= box[1] + slack)).flatten(1).all(1) & defined
    unit = nn.functional.normalize(inputs, dim=1)
    alike = (unit @ unit.T > cosine) & inside
    votes = alike.sum(1) + 0.5 * bias.abs() / bias.abs().max()  # of equals the row with the larger gradient
    left = votes.where(inside, 0.0)
    chosen, there = [], []
    for _ in range(count):
        best = left.argmax()
        chosen.append(best)
        there.append(left[best] > 0)
        left = left.where(~alike[best], 0.0)
    return made[torch.stack(chosen)], torch.stack(there)
