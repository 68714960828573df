r"""A private and audited transparent model (Alufaisan et al., Robust Transparency Against Model Inversion, TDSC 2021).

Differential privacy with a useful :math:`\epsilon` does not stop attribute inference on a model whose rules are
disclosed, so the model is audited first. A tree of fixed depth :math:`D` is grown with :math:`\epsilon`-privacy:

1. Half of :math:`\epsilon`, shared by the levels, chooses questions by the exponential mechanism: question
   :math:`q` has probability :math:`\propto \exp(\epsilon_l u(q) / 2 \Delta)`, where :math:`u` is the (Gini) impurity of
   the two sides times their records, negated, and :math:`\Delta = 2`. Questions come from the schema and from
   quantiles of public records.
2. The other half counts: every class at every leaf is counted with Laplace noise of scale :math:`2 / \epsilon`.
3. Audit: Fredrikson's attack infers the sensitive column of public records from the tree, their marginals, the other
   columns and the response. Its *gain* is its accuracy less the best without the model: the most frequent value, or
   what a model fitted on other public records makes of the non-sensitive columns.
4. While the gain is above :math:`\tau`, the node is merged to a leaf that lowers it most per record it covers. Counts
   of merged leaves are summed, which costs no :math:`\epsilon`.

Nodes of a level and classes of a leaf are disjoint sets of records, so levels and counts add up to :math:`\epsilon` for
adding or removing one record, :math:`\delta = 0`; the audit reads public records and the private tree alone.

No official code exists and only the abstract was read, which says that privacy is complemented for transparent models:
the tree, both mechanisms, the audit's data and the merging are inferred. The tree takes the place of the cell's target.
What remains: the audit bounds one attack on public records; another column's inference, or an attacker with better
marginals, was not tried. Where nothing else explains the response, merging costs all of the accuracy that the sensitive
column gave. Baselines are the audited tree without noise (``epsilon=null``) and the private one without the audit
(``gain=null``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mibench.card import DefenseCard
from mibench.data import Column, Examples
from mibench.defenses.base import Defense, DefenseContext, sensitive_columns
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.optim.differential_privacy import pure_guarantee
from mibench.optim.trees import Question, Tree, grow, impurity
from mibench.options import Count, NonNegative, Positive
from mibench.seeding import derive, generator
from mibench.training import Training

#: The most that one record moves the impurity times the records.
SENSITIVITY = 2.0


class AugmentedDp(Defense):
    """A private decision tree, merged until an audit finds no gain."""

    card = DefenseCard(
        name="augmented_dp",
        title="Audited private tree",
        modalities=("tabular",),
        year=2021,
        fidelity="reconstruction",
        hooks=("architecture", "training"),
        affects=("scores", "labels"),
        strength="epsilon",
        stronger="lower",
        levels=(5.0, 2.0, 1.0, 0.5),
        baselines=(("epsilon", None), ("gain", None)),
        replaces="decision tree",
    )

    epsilon: Positive | None = 2.0
    """The epsilon of the tree; None grows it without noise."""
    gain: NonNegative | None = 0.01
    """The most accuracy that the tree may add to what is guessed without it (tau); None audits nothing."""
    sensitive: str | None = None
    """The categorical column that the audit is about."""
    depth: Count = 5
    """Questions on every path."""
    cuts: Count = 7
    """Thresholds that a numeric column may be asked for, as quantiles of public records."""

    tree: Tree | None = field(init=False, default=None, repr=False)
    _columns: tuple[Column, ...] = field(init=False, default=(), repr=False)
    _column: int = field(init=False, default=0, repr=False)
    _public: Examples | None = field(init=False, default=None, repr=False)
    _audited: dict[str, float | str] = field(init=False, default_factory=dict, repr=False)

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the target, in whose place a tree will be grown.

        Raises:
            UserError: If the table has no categorical column ``sensitive``, or there are no public records.
        """
        self._columns = context.spec.columns
        (self._column,) = sensitive_columns(self._columns, self.sensitive)
        if not self._columns[self._column].categorical:
            raise UserError(
                f"defense.sensitive={self.sensitive} is a numeric column; the audit needs a categorical one."
            )
        if context.data.public is None:
            raise UserError("defense=augmented_dp audits on public records, and the dataset has none; give it some.")
        self._public = context.data.public.to("cpu")
        return model

    def fit(self, training: Training) -> None:
        """Grow the tree, audit it and merge what gives the sensitive column away."""
        assert self._public is not None
        draws = generator(derive(training.seed, "noise"))
        tree = self.grow_tree(training.data.to("cpu"), questions(self._columns, self._public.x, self.cuts), draws)
        audit = Audit.of(self._public, self._columns, self._column, training.seed)
        merged = 0
        while self.gain is not None and (found := audit.gain(tree)) > self.gain and tree.inner():
            tree, merged = tree.merged(audit.worst(tree, found)), merged + 1
        self._audited = {"audited_gain": audit.gain(tree), "merged": merged}
        self.tree = replace(tree, counts=tree.counts * (tree.column < 0)[:, None])  # leaves' are disclosed

    def grow_tree(self, data: Examples, asked: Sequence[Question], draws: torch.Generator) -> Tree:
        """Return the private tree; the counts of inner nodes are sums of their leaves'.

        Args:
            data: The private records, on the CPU.
            asked: The questions to choose from.
            draws: Random generator of the mechanisms.
        """
        classes = int(data.y.max()) + 1
        holds = torch.stack([question.holds(data.x) for question in asked]).double()
        of_class = one_hot(data.y, classes).double()

        def ask(rows: Tensor, depth: int) -> Question | None:
            if depth == self.depth:
                return None
            left = holds[:, rows] @ of_class[rows]
            utility = -impurity(left) - impurity(of_class[rows].sum(0) - left)
            if self.epsilon is not None:
                level = self.epsilon / 2 / self.depth
                uniform = torch.rand(len(asked), generator=draws, dtype=torch.float64)
                utility = level * utility / (2 * SENSITIVITY) - torch.log(-torch.log(uniform))  # Gumbel: exponential
            return asked[int(utility.argmax())]

        tree = grow(data.x, data.y, classes, ask)
        scale = 0.0 if self.epsilon is None else 2 / self.epsilon
        counts = (tree.counts + scale * laplace(tree.counts.shape, draws)) * (tree.column < 0)[:, None]
        for node in reversed(tree.inner()):
            counts[node] = counts[tree.left[node]] + counts[tree.right[node]]
        return replace(tree, counts=counts)

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return the noisy shares of the classes at the leaf of every record, shape ``(N, classes)``."""
        assert self.tree is not None
        return self.tree.predict_proba(x)

    def state(self) -> dict[str, Tensor]:
        """Return the tree."""
        return {} if self.tree is None else self.tree.tensors()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back the tree."""
        self.tree = Tree.of(state)

    def facts(self) -> dict[str, float | str]:
        """Return the guarantee, the gain that the audit still finds, and how many nodes it merged."""
        return {**pure_guarantee(self.epsilon, "record", "add or remove"), "model": self.card.replaces, **self._audited}


@dataclass(frozen=True)
class Audit:
    """What an attacker could infer of public records.

    Attributes:
        records: The records ``(N, columns)``.
        responses: Their classes.
        column: The sensitive column.
        prior: How frequent each of its values is.
        baseline: The best accuracy without the model.
    """

    records: Tensor
    responses: Tensor
    column: int
    prior: Tensor
    baseline: float

    @classmethod
    def of(cls, public: Examples, columns: Sequence[Column], column: int, seed: int) -> Audit:
        """Return the audit on one half of the public records; the other half gives the attacker's knowledge."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        order = torch.randperm(len(public), generator=generator(derive(seed, "audit")))
        known, tried = (public[rows] for rows in order.chunk(2))
        others = [index for index in range(len(columns)) if index != column]
        prior = known.x[:, column].long().bincount(minlength=len(columns[column].values)).double() / len(known)
        model = HistGradientBoostingClassifier(
            categorical_features=[columns[index].categorical for index in others],
            max_iter=60,
            random_state=derive(seed, "imputation") % 2**32,
        )
        model.fit(known.x[:, others].numpy(), known.x[:, column].long().numpy())
        values = tried.x[:, column]
        imputed = torch.from_numpy(model.predict(tried.x[:, others].numpy()))
        best = max(float((guess == values).double().mean()) for guess in (imputed, prior.argmax()))
        return cls(tried.x, tried.y, column, prior, best)

    def gain(self, tree: Tree) -> float:
        """Return the accuracy of Fredrikson's attack less that without the tree."""
        scores = []
        for value, frequency in enumerate(self.prior):
            records = self.records.clone()
            records[:, self.column] = value
            likely = tree.predict_proba(records).gather(1, self.responses[:, None])[:, 0]
            scores.append(frequency * likely.double())
        guess = torch.stack(scores, 1).argmax(1)
        return float((guess == self.records[:, self.column]).double().mean()) - self.baseline

    def worst(self, tree: Tree, gain: float) -> int:
        """Return the node whose merging lowers the gain most per record it covers.

        Where none lowers it, the last one that asks for the sensitive column goes, or the last one of all.
        """
        nodes = tree.inner()
        covered = tree.path(self.records).double().mean(0).clamp_min(1 / len(self.records))
        lowered = torch.tensor([gain - self.gain(tree.merged(node)) for node in nodes]) / covered[nodes]
        if lowered.max() > 0:
            return nodes[int(lowered.argmax())]
        return ([node for node in nodes if tree.column[node] == self.column] or nodes)[-1]


def questions(columns: Sequence[Column], public: Tensor, cuts: int) -> list[Question]:
    """Return what may be asked of a record, which no private record has a part in."""
    levels = torch.linspace(0, 1, cuts + 2)[1:-1].double()
    asked = []
    for index, column in enumerate(columns):
        numbers = (
            range(len(column.values)) if column.categorical else public[:, index].double().quantile(levels).tolist()
        )
        asked += [Question(index, float(number), column.categorical) for number in dict.fromkeys(numbers)]
    return asked


def laplace(shape: Sequence[int], draws: torch.Generator) -> Tensor:
    """Return Laplace noise of scale 1, float64."""
    uniform = torch.rand(tuple(shape), generator=draws, dtype=torch.float64) - 0.5
    return -uniform.sign() * torch.log1p(-2 * uniform.abs())
