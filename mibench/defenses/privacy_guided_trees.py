r"""Privacy-guided training of decision trees (Goldsteen et al., Reducing Risk of Model Inversion, 2020).

A tree that asks for a sensitive column tells an attacker what to try for it. So the column pays for being asked: with
:math:`w_j = 1` for sensitive columns, 0 for others, the question is asked that lowers the (Gini) impurity most after

.. math:: \mathrm{gain}'_j = \mathrm{gain}_j \, (1 - \gamma w_j),

so that a sensitive column is used only where no other comes near, and with :math:`\gamma = 1` never. The baseline
``gamma=0`` is plain CART, as the tree takes the place of the cell's target and ``defense=none`` attacks a network.

No official code exists and scikit-learn weighs no columns: the tree is grown here, and for :math:`\gamma = 0` is that
of scikit-learn up to ties. Inferred: the formula (the abstract gives the idea), Gini, several trees by bagging; to
choose among many trained trees is left out. What it does not protect: columns that stand for the sensitive one still
tell of it, and so does the response, from which an attacker infers without the model. Leaving the column out of the
table is the trivial baseline (:math:`\gamma = 1`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import torch
from torch import Tensor

from mibench.card import DefenseCard
from mibench.data import Column
from mibench.defenses.base import Defense, DefenseContext, named_below, part_named, sensitive_columns
from mibench.model import Classifier
from mibench.optim.trees import Question, Tree, best_questions, grow
from mibench.options import Count, Fraction
from mibench.seeding import derive, generator
from mibench.training import Training


class PrivacyGuidedTrees(Defense):
    """Decision trees in which sensitive columns pay for being asked."""

    card = DefenseCard(
        name="privacy_guided_trees",
        title="Privacy-guided trees",
        modalities=("tabular",),
        year=2020,
        fidelity="reconstruction",
        hooks=("architecture", "training"),
        affects=("scores", "labels"),
        strength="gamma",
        stronger="higher",
        levels=(0.5, 0.9, 0.99, 1.0),
        baselines=(("gamma", 0.0),),
        replaces="decision tree",
    )

    gamma: Fraction = 0.9
    """What share of its gain a sensitive column pays."""
    sensitive: str | Sequence[str] | None = None
    """The sensitive columns."""
    depth: Count = 8
    """Most questions on a path."""
    min_leaf: Count = 5
    """Fewest records of a leaf."""
    trees: Count = 1
    """Trees whose answers are averaged, each grown on a bootstrap sample; 1 grows one on all records."""
    grown: list[Tree] = field(init=False, default_factory=list)
    _columns: tuple[Column, ...] = field(init=False, default=())

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the target, in whose place trees will be grown on the table's columns.

        Raises:
            UserError: If the table has no column ``sensitive``.
        """
        sensitive_columns(context.spec.columns, self.sensitive)
        self._columns = context.spec.columns
        return model

    def fit(self, training: Training) -> None:
        """Grow the trees."""
        x, y = training.data.x.cpu(), training.data.y.cpu()
        classes = int(y.max()) + 1
        price = torch.ones(len(self._columns), dtype=torch.float64)
        price[sensitive_columns(self._columns, self.sensitive)] -= self.gamma
        draws = generator(derive(training.seed, "bootstrap"))
        every = torch.arange(len(y))

        def grown(sample: Tensor) -> Tree:
            records, labels = x[sample], y[sample]

            def ask(rows: Tensor, depth: int) -> Question | None:
                if depth == self.depth:
                    return None
                gains, questions = best_questions(records[rows], labels[rows], self._columns, classes, self.min_leaf)
                paid = torch.where(price > 0, gains * price, -torch.inf)
                best = int(paid.argmax())
                return questions[best] if paid[best] > 1e-9 else None

            return grow(records, labels, classes, ask)

        samples = [every] if self.trees == 1 else [
            torch.randint(len(y), (len(y),), generator=draws) for _ in range(self.trees)
        ]  # fmt: skip
        self.grown = [grown(sample) for sample in samples]

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return the mean answer of the trees, shape ``(N, classes)``."""
        return torch.stack([tree.predict_proba(x) for tree in self.grown]).mean(0)

    def state(self) -> dict[str, Tensor]:
        """Return the trees."""
        parts = [named_below(f"{number}", tree.tensors()) for number, tree in enumerate(self.grown)]
        return {name: value for part in parts for name, value in part.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back the trees."""
        numbers = sorted({int(name.partition(".")[0]) for name in state})
        self.grown = [Tree.of(part_named(f"{number}", state)) for number in numbers]

    def importance(self) -> Tensor:
        """Return the share of the decrease of impurity that is each column's, a mean over trees."""
        return torch.stack([tree.importance(len(self._columns)) for tree in self.grown]).mean(0)

    def facts(self) -> dict[str, float | str]:
        """Return the importance of the sensitive columns and the number of nodes, and what was trained."""
        sensitive = sensitive_columns(self._columns, self.sensitive)
        return {
            "sensitive_importance": float(self.importance()[sensitive].sum()),
            "nodes": sum(map(len, self.grown)),
            "model": self.card.replaces,
        }
