r"""Labels read off the classifier's gradient.

For one example with features :math:`h` and probabilities :math:`p` the cross-entropy's gradient in the last linear
layer is :math:`\partial L / \partial b_c = p_c - 1[c = y]` and :math:`\partial L / \partial W_c = (p_c - 1[c = y])
h^T`: the row of the true class alone has its sign turned (Zhao et al., iDLG, 2020). The argument needs a batch of one
and hard labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mibench.errors import UserError


def bias_sign(message: Mapping[str, Tensor]) -> Tensor:
    """Returns the class whose bias gradient is lowest, the only negative one; shape ``(1,)``."""
    return _of_head(message, "head.bias", "row_sum or inner_product").argmin().reshape(1)


def row_sum(message: Mapping[str, Tensor]) -> Tensor:
    """Returns the class whose row of the weight gradient has the lowest sum, shape ``(1,)``.

    Right where features are never negative (after a sigmoid or a ReLU).
    """
    return _of_head(message, "head.weight", "bias_sign").sum(1).argmin().reshape(1)


def inner_product(message: Mapping[str, Tensor]) -> Tensor:
    """Returns the class whose row of the weight gradient opposes every other row, shape ``(1,)``.

    Right for features of any sign; two classes cannot be told apart, their rows are opposite to one another.
    """
    weight = _of_head(message, "head.weight", "bias_sign")
    products = (weight @ weight.T).fill_diagonal_(-torch.inf)
    return products.amax(1).argmin().reshape(1)


#: The rules by their name in the configuration.
LABEL_RULES = {"bias_sign": bias_sign, "row_sum": row_sum, "inner_product": inner_product}


def _of_head(message: Mapping[str, Tensor], name: str, instead: str) -> Tensor:
    if name not in message:
        raise UserError(
            f"The label rule reads the gradient of '{name}', which the message does not hold; set attack.label_rule to "
            f"{instead}, or grant the labels with knowledge.labels=true."
        )
    return message[name]
