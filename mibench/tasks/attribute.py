"""Task ``attribute``: a sensitive column of records whose other columns and response the attacker knows.

Control: the best guess without the model: an imputation model fitted on the attacker's public records (the response is
one of its inputs). It is the null ``imputation`` as well; beside it stands the most frequent public value. Without
public records there are none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mibench.data import Examples, InputSpec, digests
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.seeding import derive, generator
from mibench.tasks.base import Assignment, Case, Reconstruction, Task, Truth


@dataclass(frozen=True)
class AttributeGoal:
    """Partial records to complete.

    Attributes:
        records: Records of shape ``(N, columns)``; unknown entries, the sensitive one among them, are NaN.
        responses: The true response (class id) of each record, shape ``(N,)``.
        column: Position of the sensitive column.
        choices: Number of its categories.
    """

    records: Tensor
    responses: Tensor
    column: int
    choices: int


@dataclass(frozen=True, kw_only=True)
class AttributeTruth(Truth):
    """The sensitive values.

    Attributes:
        values: Category codes of shape ``(N,)``.
        choices: Number of categories.
    """

    values: Tensor
    choices: int


def _chosen(assignment: Assignment) -> Examples:
    train = assignment.split.private.train
    order = torch.randperm(len(train), generator=generator(derive(assignment.seed, "records")))
    return train[order[: assignment.budget.records]]


class AttributeTask(Task[AttributeGoal, AttributeTruth]):
    """Attribute inference on training records."""

    name = "attribute"
    headline = ("attribute_accuracy", "", "")

    def goal(self, assignment: Assignment) -> AttributeGoal:
        """Return ``budget.records`` training records without what the attacker does not know."""
        split, known_columns = assignment.split, assignment.known_columns
        spec = split.spec
        names = [column.name for column in spec.columns]
        if split.sensitive not in names or not spec.columns[spec.column(split.sensitive)].categorical:
            raise UserError(
                f"dataset.sensitive='{split.sensitive}' is not a categorical column; choose one of "
                f"{', '.join(column.name for column in spec.columns if column.categorical)}."
            )
        sensitive = spec.column(split.sensitive)
        known = [name for name in names if name != split.sensitive] if known_columns is None else list(known_columns)
        if unknown_names := sorted(set(known) - set(names)):
            raise UserError(f"knowledge.known_columns names {', '.join(unknown_names)}, which the table does not have.")
        if split.sensitive in known:
            raise UserError(f"knowledge.known_columns may not name the sensitive column '{split.sensitive}'.")
        chosen = _chosen(assignment)
        hidden = [index for index, name in enumerate(names) if name not in known]
        records = chosen.x.clone()
        records[:, hidden] = float("nan")
        return AttributeGoal(records, chosen.y.clone(), sensitive, len(spec.columns[sensitive].values))

    def blank(self, goal: AttributeGoal, spec: InputSpec) -> Reconstruction:
        """Return category 0 everywhere, all missing."""
        n = len(goal.records)
        return Reconstruction(torch.zeros(n, dtype=torch.long), torch.arange(n), valid=torch.zeros(n, dtype=torch.bool))

    def check_values(self, values: Tensor, goal: AttributeGoal, spec: InputSpec) -> None:
        """Refuse values that are no categories."""
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < goal.choices:
            raise ValueError(f"Expected category codes from 0 to {goal.choices - 1}.")

    def units(self, case: Case, goal: AttributeGoal) -> Sequence[str]:
        """Return the content of every whole record."""
        return digests(_chosen(case).x)

    def truth(self, case: Case, goal: AttributeGoal) -> AttributeTruth:
        """Return the sensitive column of the chosen records."""
        chosen = _chosen(case)
        return AttributeTruth(values=chosen.x[:, goal.column].long(), choices=goal.choices, **case.utility)

    def control(
        self, case: Case, goal: AttributeGoal, knowledge: Knowledge, result: Reconstruction
    ) -> Reconstruction | None:
        """Return the imputation of the sensitive column from public records alone."""
        guess = _imputation(case, goal)
        return None if guess is None else Reconstruction(guess, result.target)

    def nulls(self, case: Case, goal: AttributeGoal, knowledge: Knowledge) -> Mapping[str, Reconstruction]:
        """Return the imputation that is the control, and the most frequent public value (``most_frequent``)."""
        guess, public = _imputation(case, goal), case.split.public
        if guess is None or public is None:
            return {}
        target = torch.arange(len(guess))
        frequent = public.x[:, goal.column].long().bincount(minlength=goal.choices).argmax()
        return {
            "imputation": Reconstruction(guess, target),
            "most_frequent": Reconstruction(frequent.expand(len(guess)).clone(), target),
        }


def _imputation(case: Case, goal: AttributeGoal) -> Tensor | None:
    """Return the sensitive values that public records alone suggest, shape ``(N,)``; None without any."""
    if case.split.public is None:
        return None
    seed = derive(case.seed, "imputation") % 2**32
    return _imputed(case.split.public, tuple(column.categorical for column in case.split.spec.columns), goal, seed)


@lru_cache(maxsize=1)  # for control and null; goal and public records are compared as objects
def _imputed(public: Examples, categorical: tuple[bool, ...], goal: AttributeGoal, seed: int) -> Tensor:
    from sklearn.ensemble import HistGradientBoostingClassifier

    known = [i for i in range(goal.records.shape[1]) if not bool(goal.records[:, i].isnan().all())]

    def table(records: Tensor, responses: Tensor) -> Tensor:
        return torch.cat([records[:, known], responses[:, None].to(records.dtype)], 1)

    model = HistGradientBoostingClassifier(
        categorical_features=[categorical[i] for i in known] + [True], max_iter=60, random_state=seed
    )
    model.fit(table(public.x, public.y).numpy(), public.x[:, goal.column].long().numpy())
    return torch.from_numpy(model.predict(table(goal.records, goal.responses).numpy())).long()
