"""Task ``sequence``: the very texts behind a client's update, matched one to one.

Control: the same attack on another client's update, scored on this client's texts. Nulls: what public texts say of any
text, the most frequent token of every position, and public texts themselves, drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.data import InputSpec, Tokenizer
from mibench.knowledge import Knowledge
from mibench.pictures import SheetRow
from mibench.seeding import derive, generator
from mibench.tasks.base import TARGETS, Case, Reconstruction, Sheet
from mibench.tasks.instance import InstanceGoal, InstanceTask, InstanceTruth


@dataclass(frozen=True, kw_only=True)
class SequenceTruth(InstanceTruth):
    """The texts behind the messages.

    Attributes:
        words: Where a word stands, neither a special token nor padding, shape ``(N, tokens)``.
        tokenizer: Turns ids into texts; None where nobody can.
    """

    words: Tensor
    tokenizer: Tokenizer | None = None


class SequenceTask(InstanceTask):
    """Reconstruction of texts."""

    name = "sequence"
    pictured = ("text",)
    headline = ("token_accuracy", "", "")

    def truth(self, case: Case, goal: InstanceGoal) -> SequenceTruth:
        """Return the clients' texts, and where in them words stand."""
        plain, spec = super().truth(case, goal), case.split.spec
        special = torch.tensor([spec.padding, *(() if spec.tokenizer is None else spec.tokenizer.special)])
        return SequenceTruth(**vars(plain), words=~torch.isin(plain.x, special), tokenizer=spec.tokenizer)

    def nulls(self, case: Case, goal: InstanceGoal, knowledge: Knowledge) -> Mapping[str, Reconstruction]:
        """Return what public texts say of any text; none without public texts.

        ``unigram`` is the most frequent token of every position, ``prior_text`` for every text a public one drawn at
        random.
        """
        public = case.split.public
        if public is None or not len(public):
            return {}
        frequent = public.x.mode(0).values
        draws = generator(derive(case.seed, "public texts"))
        drawn = public.x[torch.randint(len(public), (len(goal.target),), generator=draws)]
        return {
            "unigram": Reconstruction(frequent.expand(len(goal.target), -1).clone(), goal.target),
            "prior_text": Reconstruction(drawn, goal.target),
        }

    def cost(self, truth: InstanceTruth, made: Tensor, rows: Tensor) -> Tensor:
        """Return how many positions differ, of every true text and every answer, shape ``(n, n)``."""
        return (truth.x[rows][:, None] != made[None]).double().sum(2)

    def sheet(
        self,
        spec: InputSpec,
        units: Sequence[str],
        truth: InstanceTruth,
        result: Reconstruction,
        control: Reconstruction | None,
    ) -> Sheet:
        """Return of every text what was written, what was read, and what was read of the next client."""

        def text(ids: Tensor) -> str:
            return " ".join(map(str, ids.tolist())) if spec.tokenizer is None else spec.tokenizer.decode(ids.tolist())

        columns = {"private": truth.x, "recovered": result.values}
        columns |= {} if control is None else {"control": control.values}
        rows = [
            SheetRow(units[int(result.target[row])], [text(one[row]) for one in columns.values()])
            for row in range(min(TARGETS, len(result)))
        ]
        return Sheet(list(columns), rows)
