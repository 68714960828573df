r"""Purifier: confidences rewritten by a network, so that those of one class look alike.

Yang et al., Defending Model Inversion and Membership Inference Attacks via Prediction Purification, arXiv:2005.03915,
2020. The service answers :math:`G(p)` for the model's :math:`p`. On data that the model was not trained on, the
autoencoder :math:`G` minimises

.. math:: \|G(p) - p\|^2 + \lambda \, \mathrm{CE}(G(p), \arg\max p) - \mu \, \|x - I(G(p))\|^2,

in turns with an inversion network :math:`I`, which learns to bring :math:`x` back from what is answered. The last term
is the one against model inversion, and the baseline ``inversion_weight=0`` leaves it out; the distance is the mean over
the values of an input, each of deviation 1.

The data are the ``reserve``: a share of the training data that the target never sees, so the target has learned from
less. Where the target came trained (``target=checkpoint``) there is none, and :math:`G` learns on what the model was
trained on: all that its owner has, but the model is surer of it than of anything else, so that :math:`G` knows less of
what it will be shown. A reserve of fewer than two examples per class to train on is refused: of a class with none of
them :math:`G` would learn to name another.

It does not protect labels, which it seldom changes (``label_agreement`` in the rows, on data that :math:`G` has not
seen), nor from who holds the weights. The adaptive attacker trains an inversion network of his own on purified answers;
``score_inversion`` in the rows is the error of :math:`I` on unseen data relative to naming the mean input always.

There is no official code. Inferred: the widths (the paper gives some per data set; here both hidden layers have twice
as many units as there are classes, at least ``least_units``), both weights, the length of the training, and that
:math:`I` sees the log of an answer. The version of AAAI 2023, a variational autoencoder given the label that also swaps
labels of members, is another defense and not this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

import torch
from torch import Tensor, nn

from mibench.defenses.base import Classifier, Defense, DefenseCard, DefenseContext, Examples
from mibench.errors import UserError
from mibench.nn.adversarial import step_along
from mibench.nn.scores import ScoreInverse, Standard
from mibench.options import Count, NonNegative, Positive, Share

#: One part in so many of the spare data is held out, for what the defense says of itself.
HELD_OUT = 5

#: Examples per class, on average, that are the least to learn from.
LEAST = 2


class Purifier(Defense):
    """A learned rewriting of the answers."""

    card = DefenseCard(
        name="purifier",
        title="Prediction purification",
        modalities=("image", "tabular"),
        year=2020,
        fidelity="reconstruction",
        hooks=("output",),
        affects=("scores", "labels", "explanations"),
        strength="inversion_weight",
        stronger="higher",
        levels=(0.1, 1.0, 10.0),
        baselines=(("inversion_weight", 0.0),),
        adaptive=("attack=inversion_network",),
    )

    label_weight: NonNegative = 0.5
    """Weight of keeping the label (lambda)."""
    inversion_weight: NonNegative = 1.0
    """Weight of the inversion network's error (mu); 0 leaves it out, which is not the identity."""
    reserve: Share = 0.2
    """Share of the training data that the target never sees."""
    iterations: Count = 2000
    """Steps, each of both networks."""
    batch_size: Count = 64
    """Answers per step."""
    lr: Positive = 1e-3
    """Step size (Adam) of both."""
    least_units: Count = 32
    """Units of a hidden layer at the least."""
    network: nn.Sequential | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Derive what follows from the options."""
        super().__post_init__()
        self.reserve_share = self.reserve

    def learn(self, model: Classifier, context: DefenseContext) -> None:
        """Train the autoencoder in turns with an inversion network.

        Raises:
            UserError: If there are fewer than two examples per class to train on.
        """
        data = context.data.spare
        order = torch.randperm(len(data)).to(data.y.device)
        held_out, seen = data[order[: len(data) // HELD_OUT]], data[order[len(data) // HELD_OUT :]]
        if len(seen) < LEAST * context.spec.classes:
            raise UserError(
                f"defense=purifier learns from a reserve of the training data, and {len(seen)} examples are too few "
                f"for {context.spec.classes} classes; raise defense.reserve or give the dataset more per class."
            )
        scores, standard = model.predict_proba(seen.x), Standard.of(seen.x)
        wanted, labels = standard(seen.x), scores.argmax(1)
        network = autoencoder(scores.shape[1], max(2 * scores.shape[1], self.least_units)).to(context.device)
        inverse = ScoreInverse(scores.shape[1], wanted.shape[1]).to(context.device)
        steps = torch.optim.Adam(network.parameters(), self.lr), torch.optim.Adam(inverse.parameters(), self.lr)
        for _ in range(self.iterations):
            rows = torch.randint(len(seen), (self.batch_size,)).to(context.device)
            purified = network(scores[rows]).softmax(1)
            losses = self.losses(purified, scores[rows], labels[rows], inverse, wanted[rows])
            for step, part, loss in zip(steps, (network, inverse), losses, strict=True):
                step_along(step, loss, part)
        self.network = network.eval().requires_grad_(False)
        self.found = self.measured(model, inverse, standard, held_out)

    def losses(
        self, purified: Tensor, scores: Tensor, labels: Tensor, inverse: ScoreInverse, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the autoencoder's loss and the inversion network's, both scalars."""
        distance = (purified - scores).square().sum(1).mean()
        label = nn.functional.nll_loss(purified.clamp_min(1e-12).log(), labels)
        own = distance + self.label_weight * label - self.inversion_weight * inverse.errors(purified, wanted).mean()
        return own, inverse.errors(purified.detach(), wanted).mean()

    @torch.no_grad()
    def measured(
        self, model: Classifier, inverse: ScoreInverse, standard: Standard, data: Examples
    ) -> dict[str, float | str]:
        """Return, on data that nothing was trained on, how often the label stays and what the inversion's error is."""
        if not len(data):
            return {}
        scores, wanted = model.predict_proba(data.x), standard(data.x)
        purified = self.output(scores)
        return {
            "label_agreement": float((purified.argmax(1) == scores.argmax(1)).double().mean()),
            "score_inversion": float(inverse.errors(purified, wanted).mean() / wanted.square().mean()),
        }

    @torch.no_grad()
    def output(self, probabilities: Tensor) -> Tensor:
        """Return the purified probabilities ``(N, classes)``."""
        if self.network is None:
            return probabilities
        purified: Tensor = self.network(probabilities).softmax(1)
        return purified

    def state(self) -> dict[str, Tensor]:
        """Return the autoencoder's weights; nothing before it has learned."""
        return {} if self.network is None else dict(self.network.state_dict())

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the autoencoder back."""
        if state:
            first = state["0.weight"]
            network = autoencoder(first.shape[1], first.shape[0]).to(first.device)
            network.load_state_dict(dict(state))
            self.network = network.eval().requires_grad_(False)


def autoencoder(classes: int, units: int) -> nn.Sequential:
    """Return the untrained autoencoder of score vectors; it answers logits."""
    layers: list[nn.Module] = []
    for before, after in ((classes, units), (units, units)):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(units, classes))
