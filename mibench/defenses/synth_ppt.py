r"""Synthetic records with privacy-preserving techniques on top (Slokom et al., ISC 2023).

The target never sees a real record. A generator is fitted to the training table, as many synthetic rows are drawn from
it, and the sensitive column of those is perturbed:

1. CART synthesis: column :math:`j` of a row is a value drawn from the leaf, of a tree fitted to columns :math:`< j` of
   the real table, that the row's own synthetic columns :math:`< j` lead to; a number is drawn between two neighbouring
   values of the leaf, or rows of small leaves would be real ones. The response is the last column, the first is drawn
   from its frequencies.
2. A technique, on a share :math:`p` of the rows: ``swap`` permutes the column's values among them; ``conditional_swap``
   only among rows that agree in the response and in the ``keys``; ``pram`` replaces :math:`v` by :math:`u` with the
   Markov matrix :math:`P = (1 - p) I + p \, 1 \pi^T`, :math:`\pi` the frequencies, which keeps them in expectation.

No code was found; the paper's body was not read. Inferred: the order of the columns (the table's), leaves of at least 5
records, the draws between values, the share. Others' generators (CTGAN, TVAE) are not built in. The baseline
``share=0`` is the synthetic table alone. The response is never swapped. What this does not protect: what holds for the
population is learned from the synthetic rows as from real ones, so that an attack may be as good for persons who were
not in the table as for those who were (the paper asks both; here records of the training table are attacked); and there
is no :math:`\epsilon`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mibench.data import Column
from mibench.defenses.base import Defense, DefenseCard, DefenseContext, Examples, sensitive_columns
from mibench.options import Count, Fraction
from mibench.seeding import derive, generator


class SynthPpt(Defense):
    """Training on synthetic records whose sensitive column is perturbed."""

    card = DefenseCard(
        name="synth_ppt",
        title="Synthetic data + PPT",
        modalities=("tabular",),
        year=2023,
        fidelity="reconstruction",
        hooks=("data",),
        affects=("white_box", "scores", "labels", "explanations"),
        strength="share",
        stronger="higher",
        levels=(0.1, 0.5, 1.0),
        baselines=(("share", 0.0),),
    )

    technique: Literal["swap", "conditional_swap", "pram"] = "pram"
    """``swap``, ``conditional_swap`` or ``pram``."""
    share: Fraction = 0.5
    """Share of the rows that are swapped, or probability that PRAM draws a value anew (p)."""
    sensitive: str | Sequence[str] | None = None
    """The columns that are perturbed."""
    keys: Sequence[str] = ()
    """Columns that rows must agree in, beside the response, to be swapped conditionally."""
    synthesise: bool = True
    """Whether the rows are synthetic; otherwise the real table is perturbed."""
    min_leaf: Count = 5
    """Fewest records of a leaf of the generator."""

    def data(self, train: Examples, context: DefenseContext) -> Examples:
        """Return as many synthetic and perturbed records as there are real ones.

        Raises:
            UserError: If the table has no column ``sensitive``.
        """
        columns = context.spec.columns
        chosen = sensitive_columns(columns, self.sensitive)
        keys = sensitive_columns(columns, self.keys) if self.keys else []
        table = train.to("cpu")
        if self.synthesise:
            table = synthetic(table, columns, self.min_leaf, derive(context.seed, "synthesis"))
        draws = generator(derive(context.seed, "perturbation"))
        x = table.x.clone()
        for column in chosen if self.share else ():
            if self.technique == "pram":
                x[:, column] = pram(x[:, column], self.share, draws)
            else:
                groups = torch.zeros(len(x), 1)
                if self.technique == "conditional_swap":
                    groups = torch.cat([x[:, [key for key in keys if key != column]], table.y[:, None]], 1)
                x[:, column] = swapped(x[:, column], groups, self.share, draws)
        return Examples(x, table.y).to(train.x.device)


def synthetic(real: Examples, columns: Sequence[Column], min_leaf: int, seed: int) -> Examples:
    """Return as many rows as ``real`` has, drawn column by column from the leaves of trees fitted to it."""
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    draws = generator(seed)
    table = torch.cat([real.x, real.y[:, None].to(real.x.dtype)], 1)
    names = [*columns, Column("response", ("",))]
    made = torch.empty_like(table)
    made[:, 0] = table[torch.randint(len(table), (len(table),), generator=draws), 0]
    for index in range(1, table.shape[1]):
        kind = DecisionTreeClassifier if names[index].categorical else DecisionTreeRegressor
        tree = kind(min_samples_leaf=min_leaf, random_state=seed % 2**32)
        known, wanted = (encoded(part[:, :index], names).numpy() for part in (table, made))
        tree.fit(known, table[:, index].numpy())
        theirs, ours = (torch.from_numpy(tree.apply(part)) for part in (known, wanted))
        made[:, index] = drawn_within(theirs, table[:, index], ours, draws, between=not names[index].categorical)
        if not names[index].categorical and bool((table[:, index] % 1 == 0).all()):
            made[:, index] = made[:, index].round()
    return Examples(made[:, :-1], made[:, -1].long())


def drawn_within(groups: Tensor, values: Tensor, wanted: Tensor, draws: torch.Generator, between: bool) -> Tensor:
    """Return for every wanted group ``(M,)`` a random value of that group.

    Args:
        groups: The groups of the values, shape ``(N,)``.
        values: The values, shape ``(N,)``.
        wanted: Groups of which a value is drawn.
        draws: Random generator on the CPU.
        between: Whether numbers between two neighbouring values of the group are drawn, or the values themselves.
    """
    order = values.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    ids, sizes = groups.unique(return_counts=True)
    first = sizes.cumsum(0) - sizes
    which = torch.searchsorted(ids, wanted)
    last = sizes[which] - 1
    place = torch.rand(len(wanted), generator=draws) * (last if between else last + 1)
    offset = place.long().clamp_max(last)
    low, high = (values[order[first[which] + one]] for one in (offset, (offset + 1).clamp_max(last)))
    return torch.lerp(low, high, place - offset) if between else low


def encoded(records: Tensor, columns: Sequence[Column]) -> Tensor:
    """Return records with categories one-hot, for trees that know numbers alone."""
    parts = []
    for index in range(records.shape[1]):
        value, column = records[:, index], columns[index]
        choices = torch.arange(len(column.values))
        parts.append((value[:, None] == choices).to(value.dtype) if column.categorical else value[:, None])
    return torch.cat(parts, 1)


def swapped(values: Tensor, groups: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Return a column ``(N,)`` of which a share is permuted among rows of equal ``groups`` ``(N, keys)``."""
    result = values.clone()
    _, group = groups.unique(dim=0, return_inverse=True)
    chosen = torch.rand(len(values), generator=draws) < share
    rows = torch.nonzero(chosen).flatten()
    shuffled = rows[torch.randperm(len(rows), generator=draws)]
    result[rows[group[rows].argsort(stable=True)]] = values[shuffled[group[shuffled].argsort(stable=True)]]
    return result


def pram(values: Tensor, share: float, draws: torch.Generator) -> Tensor:
    """Return a column ``(N,)`` in which every value is, with probability ``share``, drawn anew by its frequency."""
    anew = torch.rand(len(values), generator=draws) < share
    others = values[torch.randint(len(values), (len(values),), generator=draws)]
    return torch.where(anew, others, values)
