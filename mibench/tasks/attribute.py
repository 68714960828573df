"""Task ``attribute``: a sensitive column of records whose other columns and response the attacker knows.

Control: the best guess without the model: an imputation model fitted on the attacker's public records (the response is
one of its inputs), or the most frequent value where there are no public records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        public = case.split.public
        if public is None:
            return None
        from sklearn.ensemble import HistGradientBoostingClassifier

        known = [i for i in range(goal.records.shape[1]) if not bool(goal.records[:, i].isnan().all())]
        categorical = [case.split.spec.columns[i].categorical for i in known] + [True]

        def table(records: Tensor, responses: Tensor) -> Tensor:
            return torch.cat([records[:, known], responses[:, None].to(records.dtype)], 1)

        model = HistGradientBoostingClassifier(
            categorical_features=categorical, max_iter=60, random_state=derive(case.seed, "imputation") % 2**32
        )
        model.fit(table(public.x, public.y).numpy(), public.x[:, goal.column].long().numpy())
        guess = torch.from_numpy(model.predict(table(goal.records, goal.responses).numpy())).long()
        return Reconstruction(guess, result.target)
