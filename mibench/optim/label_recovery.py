r"""Labels read off the classifier's gradient.

For one example with features :math:`h` and probabilities :math:`p` the cross-entropy's gradient in the last linear
layer is :math:`\partial L / \partial b_c = p_c - 1[c = y]` and :math:`\partial L / \partial W_c = (p_c - 1[c = y])
h^T`: the row of the true class alone has its sign turned (Zhao et al., iDLG, 2020). With a batch the gradient is the
mean of such terms, and what can be read is how often each class occurs, approximately. All rules need hard labels, and
return the class ids of a batch in no particular order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from mibench.errors import UserError

#: A message: parameter name -> gradient.
Message = Mapping[str, Tensor]


def bias_sign(message: Message, batch_size: int) -> Tensor:
    """Returns the class whose bias gradient is lowest, the only negative one; for one example, shape ``(1,)``."""
    _single("bias_sign", batch_size)
    return _of_head(message, "head.bias", "row_sum or inner_product").argmin().reshape(1)


def row_sum(message: Message, batch_size: int) -> Tensor:
    """Returns the class whose row of the weight gradient has the lowest sum; for one example, shape ``(1,)``.

    Right where features are never negative (after a sigmoid or a ReLU).
    """
    _single("row_sum", batch_size)
    return _of_head(message, "head.weight", "bias_sign").sum(1).argmin().reshape(1)


def inner_product(message: Message, batch_size: int) -> Tensor:
    """Returns the class whose row of the weight gradient opposes every other row; for one example, shape ``(1,)``.

    Right for features of any sign; two classes cannot be told apart, their rows are opposite to one another.
    """
    _single("inner_product", batch_size)
    weight = _of_head(message, "head.weight", "bias_sign")
    products = (weight @ weight.T).fill_diagonal_(-torch.inf)
    return products.amax(1).argmin().reshape(1)


def lowest_rows(message: Message, batch_size: int) -> Tensor:
    """Returns the classes whose rows of the weight gradient hold the lowest entries, none twice, shape ``(batch,)``.

    For batches without a repeated class and features that are never negative (Yin et al., GradInversion, CVPR 2021,
    equation 8).

    Raises:
        UserError: If there are fewer classes than examples.
    """
    lowest = _of_head(message, "head.weight", "bias_corrected").amin(1)
    if batch_size > len(lowest):
        raise UserError(
            f"The label rule lowest_rows names no class twice, so it cannot label a batch of {batch_size} over "
            f"{len(lowest)} classes; set attack.label_rule=bias_corrected, or grant the labels with "
            "knowledge.labels=true."
        )
    return lowest.topk(batch_size, largest=False).indices.sort().values


def bias_corrected(message: Message, batch_size: int) -> Tensor:
    """Returns every class with a negative bias gradient, then again and again the lowest, shape ``(batch,)``.

    What one example takes off its class is estimated as the sum of the negative entries over the batch size, and given
    back for each example named (after Wainakh et al., User-Level Label Leakage, PoPETs 2022).
    """
    bias = _of_head(message, "head.bias", "lowest_rows").clone()
    impact = bias.clamp_max(0).sum() / batch_size
    named = torch.nonzero(bias < 0).flatten()
    if len(named) >= batch_size:
        return bias.topk(batch_size, largest=False).indices.sort().values
    bias[named] -= impact
    found = list(named)
    while len(found) < batch_size:
        lowest = bias.argmin()
        found.append(lowest)
        bias[lowest] -= impact
    return torch.stack(found).sort().values


#: The rules by their name in the configuration.
LABEL_RULES: dict[str, Callable[[Message, int], Tensor]] = {
    "bias_sign": bias_sign,
    "row_sum": row_sum,
    "inner_product": inner_product,
    "lowest_rows": lowest_rows,
    "bias_corrected": bias_corrected,
}


def check_label_rule(rule: str) -> str:
    """Returns ``rule``.

    Raises:
        UserError: If there is none of that name.
    """
    if rule not in LABEL_RULES:
        raise UserError(f"Expected attack.label_rule to be one of {', '.join(LABEL_RULES)}, but got '{rule}'.")
    return rule


def _single(rule: str, batch_size: int) -> None:
    if batch_size > 1:
        raise UserError(
            f"The label rule {rule} reads the label of one example, but the batch has {batch_size}; set "
            "attack.label_rule to bias_corrected or lowest_rows, or grant the labels with knowledge.labels=true."
        )


def _of_head(message: Message, name: str, instead: str) -> Tensor:
    if name not in message:
        raise UserError(
            f"The label rule reads the gradient of '{name}', which the message does not hold; set attack.label_rule to "
            f"{instead}, or grant the labels with knowledge.labels=true."
        )
    return message[name]
