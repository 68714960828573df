"""Decision trees on records: tensors that answer, grown by any choice of the questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mibench.data import Column


@dataclass(frozen=True)
class Question:
    """What a node asks of a record; those of which it holds go left.

    Attributes:
        column: The column.
        value: The category, or the largest number that goes left.
        equal: Whether the column must hold exactly ``value`` (a category) rather than at most that.
    """

    column: int
    value: float
    equal: bool

    def holds(self, x: Tensor) -> Tensor:
        """Return of which records ``(N, columns)`` it holds, shape ``(N,)``."""
        entries = x[:, self.column]
        return entries == self.value if self.equal else entries <= self.value


@dataclass(frozen=True)
class Tree:
    """A binary tree; nodes are numbered so that a child comes after its parent.

    Attributes:
        column: Column that a node asks for, shape ``(nodes,)``; -1 at a leaf.
        value: As in :class:`Question`.
        equal: As in :class:`Question`.
        left: Child for records of which the question holds.
        right: The other child.
        counts: Records of every class at every node, shape ``(nodes, classes)``, float64; they may be noisy.
    """

    column: Tensor
    value: Tensor
    equal: Tensor
    left: Tensor
    right: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.column)

    def inner(self) -> list[int]:
        """Return the nodes that ask."""
        found: list[int] = torch.nonzero(self.column >= 0).flatten().tolist()
        return found

    def path(self, x: Tensor) -> Tensor:
        """Return which nodes records ``(N, columns)`` come through, shape ``(N, nodes)``."""
        here = torch.zeros(len(x), len(self), dtype=torch.bool, device=x.device)
        here[:, 0] = True
        nodes = zip(self.column.tolist(), self.value.tolist(), self.equal.tolist(), strict=True)
        children = zip(self.left.tolist(), self.right.tolist(), strict=True)
        for number, ((column, value, equal), (left, right)) in enumerate(zip(nodes, children, strict=True)):
            if column >= 0:
                yes = Question(column, value, equal).holds(x)
                here[:, left] = here[:, number] & yes
                here[:, right] = here[:, number] & ~yes
        return here

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return the shares of the classes at the leaf of every record, shape ``(N, classes)``, float32."""
        leaves = self.path(x).to(self.counts.dtype) * (self.column < 0).to(x.device)
        counts = self.counts.to(x.device).clamp_min(0) + 1e-9  # an empty leaf knows nothing
        return (leaves @ (counts / counts.sum(1, keepdim=True))).float()

    def importance(self, columns: int) -> Tensor:
        """Return the share of the decrease of impurity that is each column's, shape ``(columns,)``."""
        total = torch.zeros(columns, dtype=torch.float64)
        nodes = torch.tensor(self.inner(), dtype=torch.long)
        parts = [impurity(self.counts[which[nodes]]) for which in (torch.arange(len(self)), self.left, self.right)]
        total.index_add_(0, self.column[nodes], parts[0] - parts[1] - parts[2])
        return total / total.sum().clamp_min(1e-12)

    def merged(self, node: int) -> Tree:
        """Return the tree in which ``node`` is a leaf; what hung below it is gone."""
        column = self.column.clone()
        column[node] = -1
        kept, left, right = [0], self.left.tolist(), self.right.tolist()
        for number in kept:
            kept += [left[number], right[number]] if column[number] >= 0 else []
        kept.sort()
        place = torch.zeros(len(self), dtype=torch.long)
        place[kept] = torch.arange(len(kept))
        old = [tensor[kept] for tensor in (column, self.value, self.equal, self.left, self.right, self.counts)]
        return Tree(old[0], old[1], old[2], place[old[3]], place[old[4]], old[5])

    def tensors(self) -> dict[str, Tensor]:
        """Return the tree for the store."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Tree:
        """Return the tree that :meth:`tensors` gave."""
        return cls(**{one.name: tensors[one.name].cpu() for one in fields(cls)})


def grow(x: Tensor, y: Tensor, classes: int, ask: Callable[[Tensor, int], Question | None]) -> Tree:
    """Return a tree of records ``(N, columns)`` and class ids ``(N,)`` on the CPU.

    Args:
        x: The records.
        y: Their classes.
        classes: Number of classes.
        ask: Returns the question for a node's rows at its depth, None for a leaf.
    """
    nodes: list[tuple[Question, int, int, Tensor]] = []
    waiting = [(torch.arange(len(y)), 0)]
    leaf = Question(-1, 0.0, False)
    for rows, depth in waiting:  # breadth first, so that children come after parents
        question, counts = ask(rows, depth), y[rows].bincount(minlength=classes).double()
        if question is None:
            nodes.append((leaf, 0, 0, counts))
            continue
        nodes.append((question, len(waiting), len(waiting) + 1, counts))
        yes = question.holds(x[rows])
        waiting += [(rows[yes], depth + 1), (rows[~yes], depth + 1)]
    questions, left, right, counted = zip(*nodes, strict=True)
    return Tree(
        torch.tensor([one.column for one in questions]),
        torch.tensor([one.value for one in questions], dtype=torch.float32),
        torch.tensor([one.equal for one in questions]),
        torch.tensor(left),
        torch.tensor(right),
        torch.stack(counted),
    )


def impurity(counts: Tensor) -> Tensor:
    """Return Gini's impurity times the number of records, shape ``(...)``, for counts ``(..., classes)``."""
    number = counts.sum(-1)
    return number - counts.square().sum(-1) / number.clamp_min(1e-12)


def best_questions(
    x: Tensor, y: Tensor, columns: Sequence[Column], classes: int, least: int
) -> tuple[Tensor, list[Question]]:
    """Return, per column, the most that one question about it lowers the impurity, and that question.

    Args:
        x: Records of one node ``(n, columns)``.
        y: Their classes.
        columns: The schema.
        classes: Number of classes.
        least: Fewest records on either side; where no question leaves them, the decrease is minus infinity.
    """
    of_class = one_hot(y, classes).double()
    total = of_class.sum(0)
    decreases, questions = [], []
    for index, column in enumerate(columns):
        entries = x[:, index]
        if column.categorical:
            cuts = torch.arange(len(column.values)).float()
            left = torch.zeros(len(cuts), classes, dtype=torch.float64).index_add_(0, entries.long(), of_class)
            parts = torch.ones(len(cuts), dtype=torch.bool)
        else:
            entries, order = entries.sort()
            left = of_class[order].cumsum(0)[:-1]
            low, high = entries[:-1], entries[1:]
            parts, middle = high > low, (low + high) / 2
            cuts = torch.where(middle < high, middle, low)
        parts &= (left.sum(1) >= least) & ((total - left).sum(1) >= least)
        decrease = impurity(total) - impurity(left) - impurity(total - left)
        decrease = torch.cat([torch.where(parts, decrease, -torch.inf), torch.tensor([-torch.inf]).double()])
        best = int(decrease.argmax())
        decreases.append(decrease[best])
        questions.append(Question(index, float(cuts[best]) if best < len(cuts) else 0.0, column.categorical))
    return torch.stack(decreases), questions
