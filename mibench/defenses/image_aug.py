r"""Image augmentation by class (Shin et al., Cluster Computing 2023).

Federated clients train on augmented images, every class with the operation and the magnitude that protect it best: of
14 operations at 9 magnitudes the pair :math:`T` that makes gradient inversion err most,

.. math:: T_c = \arg\max_T \, \mathrm{mean}_{x \in c} \, \| \hat x(T) - x \|^2 \quad \text{with} \quad
    \mathrm{acc}(T) \ge \mathrm{acc}(\mathrm{id}) - \tau,

:math:`\hat x(T)` what an inversion makes of the gradient of :math:`T(x)`. The table is fixed once it is chosen, so this
is the ``data`` hook: before a central training, and on a client's batch. It is chosen where the hook is first asked,
from the data owned there: all training data in a central or pooled training, else the first client's share; the other
clients use its table. A class that was not there has the pair that is best over all.

Inferred, since the paper's text was not at hand (its abstract has the grid's size and that the best pair is chosen by
class): the list of operations and their ranges are AutoAugment's; the inversion is the one that succeeds, which
returns :math:`T(x)` itself (a fully connected layer gives its input away), so the error counted is the least that any
attacker who does not undo :math:`T` makes; accuracy is that of a ridge classifier on pixels, trained on
:math:`T(x)` and tested on images left alone; signs are always positive.

What it does not protect from: the attacker who knows the table undoes what can be undone (a shift, a turn, an
inversion of tones), and a reconstruction of :math:`T(x)` often shows the person as well as one of :math:`x`: compare
with the original and look at the pictures. There is no official code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mibench.defenses.base import Defense, DefenseCard, DefenseContext, Examples
from mibench.errors import UnknownNameError, UserError
from mibench.nn.image_operations import OPERATIONS, operate
from mibench.options import Digit, NonNegative
from mibench.seeding import derive, generator

#: The names of the operations; a table holds their positions.
NAMES = list(OPERATIONS)

#: Most examples that the accuracy of a pair is measured with.
EXAMPLES = 600

#: Ridge of the classifier, relative to the mean of its kernel's diagonal.
RIDGE = 1e-2


class ImageAug(Defense):
    """Every class trained on one augmentation of its images, the one that a search finds best."""

    card = DefenseCard(
        name="image_aug",
        title="Image augmentation by class",
        modalities=("image",),
        year=2023,
        fidelity="reconstruction",
        hooks=("data",),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="tolerance",
        stronger="higher",
        levels=(0.01, 0.02, 0.05),
    )

    table: Sequence[str] | None = None
    """The pairs ``operation:level`` of classes 0, 1, 2 ..., in turn where there are fewer; None searches."""
    operations: Sequence[str] | None = None
    """The operations that the search tries; None for all fourteen."""
    levels: Sequence[Digit] = (1, 2, 3, 4, 5, 6, 7, 8, 9)
    """The magnitudes that the search tries, from 0 (none) to 9."""
    tolerance: NonNegative = 0.02
    """Accuracy that a pair may cost (tau)."""

    _table: Tensor | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        """Read the table, and refuse operations that there are not."""
        super().__post_init__()
        if self.table is not None and not self.table:
            raise UserError("Expected defense.table to name at least one operation, but it is empty; null searches.")
        for name in self.operations or ():
            position(name)
        if self.table is not None:
            self._table = torch.tensor([pair(text) for text in self.table])

    def data(self, train: Examples, context: DefenseContext) -> Examples:
        """Return the examples after the operation of their class, searched for where there is no table yet."""
        if self._table is None:
            owned = context.data.train
            self._table = self.search(owned, max(context.spec.classes, int(owned.y.max()) + 1), context.seed)
        rows = train.y.cpu() % len(self._table)
        x = train.x.clone()
        for row, (operation, level) in enumerate(self._table.tolist()):
            mine = rows == row
            if bool(mine.any()):
                x[mine] = operate(train.x[mine], NAMES[operation], level)
        return Examples(x, train.y)

    def search(self, data: Examples, classes: int, seed: int) -> Tensor:
        """Return the best pair (position of the operation, level) of every class, shape ``(classes, 2)``."""
        order = torch.randperm(len(data), generator=generator(derive(seed, "sweep")))[:EXAMPLES]
        some = data[order.to(data.x.device)]
        half = max(1, len(some) // 2)
        learn, test = some[torch.arange(half)], some[torch.arange(half, len(some))]
        expected = ridge_accuracy(learn, test, classes) - self.tolerance
        pairs, errors = [(0, 0)], [torch.zeros(classes)]  # a shear of level 0: nothing is done
        members = one_hot(some.y, classes).float().cpu()
        for name in self.operations or NAMES:
            for level in self.levels:
                if ridge_accuracy(Examples(operate(learn.x, name, level), learn.y), test, classes) < expected:
                    continue
                error = (operate(some.x, name, level) - some.x).square().flatten(1).mean(1).cpu()
                mean = members.T @ error / members.sum(0)  # NaN for a class that is not there
                pairs.append((position(name), level))
                errors.append(torch.where(members.sum(0) > 0, mean, error.mean()))
        return torch.tensor(pairs)[torch.stack(errors).argmax(0)]

    def state(self) -> dict[str, Tensor]:
        """Return the table, where it was chosen."""
        return {} if self._table is None else {"table": self._table}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the table back."""
        if "table" in state:
            self._table = state["table"].cpu()

    def facts(self) -> dict[str, float | str]:
        """Return the table as words, ``operation:level`` by class."""
        pairs = [] if self._table is None else self._table.tolist()
        return {"table": ", ".join(f"{NAMES[operation]}:{level}" for operation, level in pairs)}


def position(name: str) -> int:
    """Return the position of an operation.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in OPERATIONS:
        raise UnknownNameError("operation (defense.operations, defense.table)", name, NAMES)
    return NAMES.index(name)


def pair(text: str) -> tuple[int, int]:
    """Return the position of the operation, and the level, of a text as ``rotate:5``.

    Raises:
        UserError: If it does not read so.
    """
    name, _, level = text.partition(":")
    if level not in set("0123456789"):
        raise UserError(f"Expected defense.table to hold pairs as rotate:5, levels from 0 to 9, but got '{text}'.")
    return position(name), int(level)


def ridge_accuracy(learn: Examples, test: Examples, classes: int) -> float:
    """Return the share of ``test`` that a ridge classifier on the pixels of ``learn`` is right on."""
    centre = learn.x.flatten(1).mean(0)
    x, other = learn.x.flatten(1) - centre, test.x.flatten(1) - centre
    kernel = x @ x.T
    ridge = RIDGE * kernel.diagonal().mean() + 1e-9
    solved = torch.linalg.solve(kernel + ridge * torch.eye(len(x), device=x.device), one_hot(learn.y, classes).float())
    return float(((other @ (x.T @ solved)).argmax(1) == test.y).float().mean())
