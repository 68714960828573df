r"""The input of a linear layer, solved from the layer's own gradient.

For :math:`z = W a + b` and a batch of inputs :math:`a_n` with :math:`\delta_n = \partial L / \partial z_n` the
gradients are :math:`\partial L / \partial W = \sum_n \delta_n a_n^T` and :math:`\partial L / \partial b = \sum_n
\delta_n`: every row of the first over its entry of the second is a weighted mean of the inputs, and of one input that
input itself. No weight of the layer takes part, and a factor on the whole gradient cancels.
"""

from __future__ import annotations

from torch import Tensor


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
