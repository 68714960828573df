r"""Labels read off the classifier's gradient.

For one example with features :math:`h` and probabilities :math:`p` the cross-entropy's gradient in the last linear
layer is :math:`\partial L / \partial b_c = p_c - 1[c = y]` and :math:`\partial L / \partial W_c = (p_c - 1[c = y])
h^T`: the row of the true class alone has its sign turned (Zhao et al., iDLG, 2020). With a batch the gradient is the
mean of such terms, and what can be read is how often each class occurs, approximately. All rules need hard labels, and
return the class ids of a batch in no particular order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from mibench.errors import UserError

#: How class ids are read off a message.
LabelRule = Literal["bias_sign", "row_sum", "inner_product", "lowest_rows", "bias_corrected"]

#: A message: parameter name -> gradient.
Message = Mapping[str, Tensor]


def bias_sign(message: Message, batch_size: int) -> Tensor:
    """Return the class whose bias gradient is lowest, the only negative one; for one example, shape ``(1,)``."""
    _single("bias_sign", batch_size)
    return of_head(message, "head.bias", "row_sum or inner_product").argmin().reshape(1)


def row_sum(message: Message, batch_size: int) -> Tensor:
    """Return the class whose row of the weight gradient has the lowest sum; for one example, shape ``(1,)``.

    Right where features are never negative (after a sigmoid or a ReLU).
    """
    _single("row_sum", batch_size)
    return of_head(message, "head.weight", "bias_sign").sum(1).argmin().reshape(1)


def inner_product(message: Message, batch_size: int) -> Tensor:
    """Return the class whose row of the weight gradient opposes every other row; for one example, shape ``(1,)``.

    Right for features of any sign; two classes cannot be told apart, their rows are opposite to one another.
    """
    _single("inner_product", batch_size)
    weight = of_head(message, "head.weight", "bias_sign")
    products = (weight @ weight.T).fill_diagonal_(-torch.inf)
    return products.amax(1).argmin().reshape(1)


def lowest_rows(message: Message, batch_size: int) -> Tensor:
    """Return the classes whose rows of the weight gradient hold the lowest entries, none twice, shape ``(batch,)``.

    For batches without a repeated class and features that are never negative (Yin et al., GradInversion, CVPR 2021,
    equation 8).

    Raises:
        UserError: If there are fewer classes than examples.
    """
    lowest = of_head(message, "head.weight", "bias_corrected").amin(1)
    if batch_size > len(lowest):
        raise UserError(
            f"The label rule lowest_rows names no class twice, so it cannot label a batch of {batch_size} over "
            f"{len(lowest)} classes; set attack.label_rule=bias_corrected, or grant the labels with "
            "knowledge.labels=true."
        )
    return lowest.topk(batch_size, largest=False).indices.sort().values


def bias_corrected(message: Message, batch_size: int) -> Tensor:
    """Return every class with a negative bias gradient, then again and again the lowest, shape ``(batch,)``.

    What one example takes off its class is estimated as the sum of the negative entries over the batch size, and given
    back for each example named (after Wainakh et al., User-Level Label Leakage, PoPETs 2022).
    """
    bias = of_head(message, "head.bias", "lowest_rows").clone()
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


def steadiest_ranks(features: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Return the ranks at which images' sorted features vary least, in proportion to their mean, and those means.

    Args:
        features: Penultimate features of some images, never negative, shape ``(images, F)``.
        keep: Number of ranks; a rank at which all are zero counts last.

    Returns:
        Positions in an ascending order, shape ``(keep,)``, and the mean feature at each.
    """
    ranked = features.sort(1).values
    mean = ranked.mean(0)
    variation = torch.where(mean > 0, ranked.std(0) / mean, torch.inf)
    ranks = variation.topk(min(keep, len(mean)), largest=False).indices
    return ranks, mean[ranks]


def evolved_counts(
    message: Message,
    batch_size: int,
    ranks: Tensor,
    means: Tensor,
    draws: torch.Generator,
    population: int = 20,
    generations: int = 200,
) -> Tensor:
    r"""Return the classes that are there, each as often as an evolutionary search says, shape ``(batch,)``.

    A class is there where the mean of its row of the weight gradient is negative, which holds where there are many
    more classes than examples. Its row is about :math:`n_c / B` times the mean feature, so counts are searched for
    which the steadiest features, scaled by them, point where the sorted rows :math:`v_c` do (Ye et al., AAAI 2024):

    .. math:: \max_n \cos(n \otimes \bar h, v), \qquad n_c \geq 1, \quad \textstyle\sum_c n_c = B.

    Args:
        message: The gradient.
        batch_size: Examples behind it.
        ranks: Ranks of the sorted features that are compared (:func:`steadiest_ranks`).
        means: The mean feature at each.
        draws: Random generator on the CPU.
        population: Count vectors that are bred.
        generations: Times that each has a child, of its own counts and a partner's, which takes its place if fitter.
    """
    rows = of_head(message, "head.weight", "bias_corrected")
    sums = rows.mean(1)
    there = min(batch_size, max(1, int((sums < 0).sum())))
    present = sums.topk(there, largest=False).indices.sort().values
    # cos(n x h, v) is (n . a) / |n| but for a factor, with a_c the inner product of the mean feature and v_c
    pull = (rows[present].abs().sort(1).values[:, ranks] * means).sum(1).cpu().double()

    def fit(counts: Tensor) -> Tensor:
        fitness: Tensor = (counts @ pull) / counts.norm(dim=1)
        return fitness.where((counts >= 1).all(1), -torch.inf)

    def scaled(counts: Tensor) -> Tensor:
        first = (counts * batch_size / counts.sum(1, keepdim=True)).floor().clamp_min(1)[:, :-1]
        return torch.cat([first, batch_size - first.sum(1, keepdim=True)], 1)

    shape = (population, there)
    alive = scaled(torch.randint(1, batch_size - there + 2, shape, generator=draws).double())
    alive[0] = 1.0  # one that is surely allowed
    alive[0, 0] += batch_size - there
    for _ in range(generations):
        partners = alive[torch.randperm(population, generator=draws)]
        child = scaled(torch.where(torch.rand(shape, generator=draws) < 0.5, alive, partners))
        child = _mutated(child, draws)
        alive = torch.where((fit(child) > fit(alive))[:, None], child, alive)
    best = alive[fit(alive).argmax()].long().to(present.device)
    return present.repeat_interleave(best)


def _mutated(counts: Tensor, draws: torch.Generator) -> Tensor:
    """Return counts of which one random class above 1 has given one to another class."""
    if counts.shape[1] == 1:
        return counts
    chances, others = (torch.rand(counts.shape, generator=draws) for _ in range(2))
    giver = chances.where(counts > 1, -1.0).argmax(1, keepdim=True)
    taker = others.scatter(1, giver, -1.0).argmax(1, keepdim=True)
    given = (counts.gather(1, giver) > 1).double()
    return counts.scatter_add(1, giver, -given).scatter_add(1, taker, given)


#: The rules by their name in the configuration.
LABEL_RULES: dict[str, Callable[[Message, int], Tensor]] = {
    "bias_sign": bias_sign,
    "row_sum": row_sum,
    "inner_product": inner_product,
    "lowest_rows": lowest_rows,
    "bias_corrected": bias_corrected,
}


def _single(rule: str, batch_size: int) -> None:
    if batch_size > 1:
        raise UserError(
            f"The label rule {rule} reads the label of one example, but the batch has {batch_size}; set "
            "attack.label_rule to bias_corrected or lowest_rows, or grant the labels with knowledge.labels=true."
        )


def of_head(message: Message, name: str, instead: str) -> Tensor:
    """Return the gradient of the head's weight or bias; of a head of several layers, of its last one."""
    kind = name.rpartition(".")[2]
    layers = [one.rpartition(".")[0] for one in message if one.startswith("head.") and one.endswith(".weight")]
    if "head.weight" not in message and layers:
        name = f"{layers[-1]}.{kind}"
    if name not in message:
        raise UserError(
            f"The label rule reads the gradient of '{name}', which the message does not hold; set attack.label_rule to "
            f"{instead}, or grant the labels with knowledge.labels=true."
        )
    return message[name]
