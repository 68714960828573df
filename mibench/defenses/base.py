"""The contract of a defense: eight hooks, each the identity unless overridden."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from mibench.access import Message, Round
from mibench.card import HOOKS, DefenseCard
from mibench.data import Column, Examples, Graph, InputSpec
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.options import Options
from mibench.seeding import derive, generator
from mibench.training import Batch, Training, cross_entropy

#: What a method file imports from here: the contract, and the types that it is written in.
__all__ = [
    "Batch",
    "Classifier",
    "Client",
    "Customer",
    "DefenderData",
    "Defense",
    "DefenseCard",
    "DefenseContext",
    "Examples",
    "Message",
    "Round",
    "Training",
    "Update",
    "cross_entropy",
    "sensitive_columns",
]

Update = Mapping[str, Tensor]


@dataclass(frozen=True)
class DefenderData:
    """The data a defender owns; never the test data.

    Attributes:
        train: What the target is trained on; all private training data where it came trained.
        reserve: Carved from the training data for what a defense trains of its own, and never seen by the target; empty
            unless the defense asks, and where the target came trained.
        public: Public data.
        graph: The graph whose nodes the examples are; None for other data.
    """

    train: Examples
    reserve: Examples
    public: Examples | None
    graph: Graph | None = None

    @property
    def spare(self) -> Examples:
        """The reserve, or the training data where there is none: all that the owner of a finished model has."""
        return self.reserve if len(self.reserve) else self.train


@dataclass(frozen=True)
class DefenseContext:
    """Where and how a hook runs.

    Attributes:
        spec: Facts of the input and of the classes.
        data: What the defender owns.
        seed: Seed of the hook's own randomness.
        device: Where to compute.
        cut: The last stage of the client's part, which the model's ``cut`` is set to; None where nothing is cut.
    """

    spec: InputSpec
    data: DefenderData
    seed: int
    device: torch.device
    cut: int | None = None


@dataclass
class Client:
    """One client at the moment it shares an update.

    Attributes:
        id: Number of the client.
        round: Number of the round, from 0.
        clients: Number of clients in the round.
        model: The global model it started from, with its own personal parameters.
        batch: The examples behind the update, after the defense's ``data`` hook.
        seed: Seed of this client in this round.
        deltas: Whether its update is a difference of parameters after several steps rather than a gradient.
        own_statistics: Whether its model's batch norm used the batch's own statistics.
        state: What the defense keeps for this client from round to round (error feedback); the setting stores it.
    """

    id: int
    round: int
    clients: int
    model: Classifier
    batch: Examples
    seed: int
    deltas: bool = False
    own_statistics: bool = False
    state: dict[str, Tensor] = field(default_factory=dict)

    def noise_draws(self, update: Update) -> torch.Generator:
        """Return the generator of this client's noise, on the device of ``update``."""
        return generator(derive(self.seed, "noise"), next(iter(update.values())).device)

    def check_per_example(self, defense: str) -> None:
        """Refuse a defense that takes the gradient of every example by itself where the update is not made of those.

        Raises:
            UserError: Naming ``defense`` and the setting's key.
        """
        if self.deltas:
            raise UserError(
                f"Defense '{defense}' clips the gradient of every example, but clients share the outcome of several "
                "steps; set setting.local_epochs=1 and setting.local_batch_size=null."
            )
        if self.own_statistics:
            raise UserError(
                f"Defense '{defense}' clips the gradient of every example, which none has by itself where batch norm "
                "uses the batch's statistics; set setting.batch_norm=eval or another target."
            )


@dataclass
class Customer:
    """One client of the served model, as the defense knows it.

    Attributes:
        memory: What the defense remembers of its queries; empty at the first one.
        facts: What the defense says of it (queries refused), for the rows.
    """

    memory: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)


def sensitive_columns(columns: Sequence[Column], sensitive: str | Sequence[str] | None) -> list[int]:
    """Return the positions of the columns that a defense's option ``sensitive`` names.

    Raises:
        UserError: If it names none, or one that the table does not have.
    """
    names = [column.name for column in columns]
    wanted = [sensitive] if isinstance(sensitive, str) else list(sensitive or ())
    for name in wanted or ["null"]:
        if name not in names:
            raise UserError(f"defense.sensitive={name} is no column of the table; choose of {', '.join(names)}.")
    return [names.index(name) for name in wanted]


def seed_of(secret: int, example: Tensor) -> int:
    """Return the seed of the noise on one input, which depends on its bits and on a secret number."""
    bits = example.detach().cpu().contiguous().numpy().tobytes()
    return derive(secret, hashlib.sha256(bits).hexdigest())


def named_below(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a part under their names in the whole: ``weight`` becomes ``part.weight``."""
    return {f"{name}.{key}": value for key, value in state.items()}


def part_named(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of one part of a whole under their own names, the reverse of :func:`named_below`."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


class Defense(Options):
    """A defense; this class itself, undisturbed, is the identity.

    A subclass has a literal ``card`` that names the hooks it overrides, and keyword-only hyper-parameters.

    Attributes:
        learns_from_public: Whether it learns from the public data, which then are part of what is made with them: of
            the victim where it takes part in training (its ``fit`` is given them), of what it learns itself.
        reserve_share: Share of the training data, of every class alike, that is kept back from the target for
            :meth:`learn`.
        remembers: Whether what it answers depends on what a client has asked before.
        found: What :meth:`facts` returns unless it is overridden.
    """

    card: ClassVar[DefenseCard]
    block: ClassVar[str] = "defense"
    learns_from_public: bool = field(init=False, default=False)
    reserve_share: float = field(init=False, default=0.0)
    remembers: bool = field(init=False, default=False)
    found: Mapping[str, float | str] = field(init=False, default_factory=dict)

    @classmethod
    def overridden(cls) -> tuple[str, ...]:
        """Return the hooks this class changes; a test holds them equal to those on the card."""
        methods = {
            "training": ("fit", "loss"),
            "output": ("output", "answer", "explain"),
            "protocol": ("protocol", "personal"),
        }
        return tuple(
            hook
            for hook in HOOKS
            if any(getattr(cls, name) is not getattr(Defense, name) for name in methods.get(hook, (hook,)))
        )

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that this defense changes."""
        return type(self).overridden()

    @property
    def cohort(self) -> bool:
        """Whether one message stands for all clients of a round."""
        return bool(getattr(self, "card", None) and self.card.cohort)  # the identity itself has no card

    @property
    def learns(self) -> bool:
        """Whether it learns of the finished model."""
        return type(self).learn is not Defense.learn

    def data(self, train: Examples, context: DefenseContext) -> Examples:
        """Return the training data that the target sees."""
        return train

    def input(self, x: Tensor) -> Tensor:
        """Return what enters the model for an input, in training and in serving."""
        return x

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module that is trained; one that comes trained is never given to it."""
        return model

    def loss(self, batch: Batch) -> Tensor:
        """Return the training loss of one batch."""
        return cross_entropy(batch)

    def fit(self, training: Training) -> Classifier | None:
        """Train the target; the default runs the common loop with :meth:`loss`.

        Returns:
            The trained module; None where the defense trained something else in its place (the card's ``replaces``),
            which answers by :meth:`predict_proba` and is stored by :meth:`state`.
        """
        return training.run(self.loss)

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return probabilities ``(N, classes)`` of what was trained in the place of a module."""
        raise NotImplementedError(f"{type(self).__name__}.fit returned no module, so it must have a predict_proba.")

    def learn(self, model: Classifier, context: DefenseContext) -> None:
        """Train the defense's own networks, or calibrate it, once ``model`` is finished and before it serves.

        For the hooks ``output`` and ``features``; ``model`` is frozen, random draws are seeded, and what is learned
        travels through :meth:`state`.
        """

    def attach(self, model: Classifier, context: DefenseContext) -> None:
        """Is shown the finished model before it serves, for a hook that computes with it or with a secret of its own.

        Called whether the model, and what :meth:`learn` learns, are made, come trained or come from the store.
        """

    def output(self, probabilities: Tensor) -> Tensor:
        """Return what the service answers for the model's probabilities ``(N, classes)``."""
        return probabilities

    def answer(self, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return what the service answers to inputs ``x``; the rest of the ``output`` hook, by default :meth:`output`.

        For a defense that looks at the inputs, or at who asks.

        Args:
            x: The inputs, shape ``(N, ...)``.
            probabilities: The model's, shape ``(N, classes)``.
            customer: Who asks; None where every example comes from a client of its own, as when utility is measured.

        Raises:
            QueryRefused: If the service answers this client no more; none of ``x`` is answered then.
        """
        return self.output(probabilities)

    def explain(self, saliency: Tensor, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return what the service explains of its answers to inputs ``x``, beside :meth:`answer`.

        A defense that changes what is answered says here what becomes of the explanation, which otherwise tells what
        the answer hides.

        Args:
            saliency: How much every entry of the inputs counts, shape ``(N, ...)`` as ``x``.
            x: The inputs.
            probabilities: What the service answers, after :meth:`answer`.
            customer: Who asks; None where every example comes from a client of its own.
        """
        return saliency

    def features(self, features: Tensor) -> Tensor:
        """Return what a split client sends for its features."""
        return features

    def update(self, gradient: Update, client: Client) -> Update:
        """Return what a client shares for its gradient (parameter name -> tensor)."""
        return gradient

    def protocol(self, updates: Sequence[Update], this: Round) -> Sequence[Message]:
        """Return the messages the server sees for the updates of the clients that are there in a round, in order.

        One message per client by default; a defense whose card says ``cohort`` makes one of all.
        """
        return [Message(update) for update in updates]

    def personal(self, name: str) -> bool:
        """Whether every client has the parameter of that name for itself; the rest of the ``protocol`` hook.

        Such a parameter is initialised and trained by the client, goes on from round to round, and is never sent.
        """
        return False

    def as_known(self) -> Defense:
        """Return the defense as an attacker who knows it has it: its options, and its state where its loss needs one.

        Nothing else that it was given or has remembered is there, so that it holds no private data.
        """
        known = dataclasses.replace(self)
        if type(self).loss is not Defense.loss and (state := self.state()):
            known.restore(state)
        return known

    def state(self) -> dict[str, Tensor]:
        """Return what the defense learned, while the target was trained or in :meth:`learn`, for the store."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave; the tensors lie where they are needed."""

    def facts(self) -> dict[str, float | str]:
        """Return what the defense says of itself after training (epsilon, delta, accountant), for the rows."""
        return dict(getattr(self, "found", {}))  # a class with a constructor of its own may have none
