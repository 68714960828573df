"""Several defenses at once, each at its own hooks.

The hooks are applied in their order (data, input, architecture, training, output, features, update, protocol), and at
one hook the parts in the order in which they are listed: ``defense.parts=[bido,rounding]`` trains under BiDO and rounds
what that model answers. Each part has its options below its name, ``defense.options.bido.a1=0.1``, and otherwise those
of its own yaml.

Losses add up: every part's loss beyond the cross-entropy is added to it once, so that regularisers of several parts
act together; each takes its own pass through the model. One part at most may replace the training itself, and then no
other may have a loss of its own, which that training would not descend.

This is no method of its own; every part cites its source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from mibench.access import Message, Round
from mibench.card import HOOKS, DefenseCard
from mibench.data import Examples
from mibench.defenses.base import Client, Customer, Defense, DefenseContext, Update, named_below, part_named
from mibench.errors import IncompatibleCellError
from mibench.model import Classifier
from mibench.training import Batch, Training, cross_entropy


class Stack(Defense):
    """Several defenses, applied in the order of the hooks.

    Raises:
        IncompatibleCellError: If two parts cannot both take part in training.
    """

    card = DefenseCard(
        name="stack",
        title="Several defenses",
        modalities=("image", "text", "tabular", "audio", "graph"),
        hooks=(),
        affects=(),
    )

    parts: Sequence[Defense]
    """The defenses."""

    def __post_init__(self) -> None:
        """Check the options together."""
        super().__post_init__()
        self.reserve_share = max((part.reserve_share for part in self.parts), default=0.0)
        self.remembers = any(part.remembers for part in self.parts)
        self.learns_from_public = any(part.learns_from_public for part in self.parts)
        self._losses = [part for part in self.parts if type(part).loss is not Defense.loss]
        self._fits = [part for part in self.parts if type(part).fit is not Defense.fit]
        training = list(dict.fromkeys([*self._fits, *self._losses]))
        if self._fits and len(training) > 1:
            first, second = (part.card.name for part in training[:2])
            raise IncompatibleCellError(
                f"Incompatible: defense '{first}' replaces the training, so that '{second}' cannot take part in it; "
                "leave one of them out of defense.parts."
            )

        if len(making := [part.card.name for part in self.parts if _makes_messages(part)]) > 1:
            raise IncompatibleCellError(
                f"Incompatible: the defenses {' and '.join(making)} both make the messages of a round; leave one of "
                "them out of defense.parts."
            )

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that some part changes."""
        return tuple(hook for hook in HOOKS if any(hook in part.hooks for part in self.parts))

    @property
    def learns(self) -> bool:
        """Whether a part learns of the finished model."""
        return any(part.learns for part in self.parts)

    def data(self, train: Examples, context: DefenseContext) -> Examples:
        """Return the training data after all parts."""
        for part in self.parts:
            train = part.data(train, context)
        return train

    def input(self, x: Tensor) -> Tensor:
        """Return an input after all parts."""
        for part in self.parts:
            x = part.input(x)
        return x

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module after all parts."""
        for part in self.parts:
            model = part.architecture(model, context)
        return model

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy plus what every part's loss adds to it."""
        if not self._losses:
            return cross_entropy(batch)
        first, *others = (part.loss(batch) for part in self._losses)
        return first + sum(others) - len(others) * cross_entropy(batch) if others else first

    def fit(self, training: Training) -> Classifier | None:
        """Train as the one part that replaces the training does, or by the common loop with :meth:`loss`."""
        for part in self._fits:
            return part.fit(training)
        return super().fit(training)

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return the probabilities of what the part that replaces the training has put in a module's place."""
        return self._fits[0].predict_proba(x)

    def learn(self, model: Classifier, context: DefenseContext) -> None:
        """Let every part learn of the finished model, on the same reserve."""
        for part in self.parts:
            part.learn(model, context)

    def attach(self, model: Classifier, context: DefenseContext) -> None:
        """Show the finished model to every part."""
        for part in self.parts:
            part.attach(model, context)

    def output(self, probabilities: Tensor) -> Tensor:
        """Return the service's answer after all parts."""
        for part in self.parts:
            probabilities = part.output(probabilities)
        return probabilities

    def answer(self, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return the service's answer to one client after all parts, each of which knows the client by itself."""
        for number, part in enumerate(self.parts):
            own = None if customer is None else self._known(customer, number)
            try:
                probabilities = part.answer(x, probabilities, own)
            finally:
                if customer is not None and own is not None:
                    customer.memory.update(named_below(f"{number}", own.memory))
                    customer.facts.update(own.facts)
        return probabilities

    @staticmethod
    def _known(customer: Customer, number: int) -> Customer:
        return Customer(part_named(f"{number}", customer.memory), dict(customer.facts))

    def features(self, features: Tensor) -> Tensor:
        """Return what a split client sends after all parts."""
        for part in self.parts:
            features = part.features(features)
        return features

    def update(self, gradient: Update, client: Client) -> Update:
        """Return what a client shares after all parts; each keeps its own state of the client."""
        for number, part in enumerate(self.parts):
            own = dataclasses.replace(client, state=part_named(f"{number}", client.state))
            gradient = part.update(gradient, own)
            client.state.update(named_below(f"{number}", own.state))
        return gradient

    def protocol(self, updates: Sequence[Update], this: Round) -> Sequence[Message]:
        """Return the messages that the server sees: those of the one part that makes them."""
        return next((part for part in self.parts if _makes_messages(part)), Defense()).protocol(updates, this)

    @property
    def cohort(self) -> bool:
        """Whether a part makes one message of all clients."""
        return any(part.cohort for part in self.parts)

    def explain(self, saliency: Tensor, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return the saliency map after all parts."""
        for part in self.parts:
            saliency = part.explain(saliency, x, probabilities, customer)
        return saliency

    def personal(self, name: str) -> bool:
        """Whether a part leaves the parameter of that name to every client."""
        return any(part.personal(name) for part in self.parts)

    def as_known(self) -> Defense:
        """Return a stack of the parts as an attacker knows them."""
        return Stack(parts=[part.as_known() for part in self.parts])

    def state(self) -> dict[str, Tensor]:
        """Return what the parts learned."""
        return {
            key: value
            for number, part in enumerate(self.parts)
            for key, value in named_below(f"{number}", part.state()).items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Give every part back what it learned."""
        for number, part in enumerate(self.parts):
            part.restore(part_named(f"{number}", state))

    def facts(self) -> dict[str, float | str]:
        """Return what the parts say of themselves; of two that say the same, the later one bears its part's name."""
        said: dict[str, float | str] = {}
        for part in self.parts:
            said |= {f"{part.card.name}.{key}" if key in said else key: value for key, value in part.facts().items()}
        return said


def _makes_messages(part: Defense) -> bool:
    return type(part).protocol is not Defense.protocol
