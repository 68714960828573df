"""The clients of federated learning: the data each owns, the model it begins a round with, and what it sends."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mibench.access import LocalTraining, Message, Round
from mibench.data import Examples, InputSpec
from mibench.defenses.base import Client, Customer, Defense, DefenseContext, Update
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.nn.batch_norm import estimate_statistics, norms, use_batch_statistics
from mibench.planning.compatibility import arriving
from mibench.seeding import derive, generator, seeded
from mibench.settings.updates import client_update
from mibench.settings.victim import Blueprint, Victim, initial_model

#: What a personal parameter is named after among what is kept for a client.
PERSONAL = "personal."


#: In the place of a client's number: what the protocol keeps from round to round.
PROTOCOL = -1

#: What a reader of the numbers must know.
LOCAL_STATISTICS = (
    "Clients keep the running statistics of batch norm for themselves: target_accuracy is that of the clients' models, "
    "each with statistics of its own training data, and an attacker who holds the global model alone has those of the "
    "public data (of the batch that it asks about, where there are none)."
)

RESHUFFLED = (
    "Clients draw another order of their examples for every local epoch after the first (setting.reshuffle); an "
    "attacker who repeats their steps does not know it."
)

#: A client's state of its defense, and its personal parameters, by client.
States = dict[int, dict[str, Tensor]]


@dataclass(frozen=True)
class OwnModels(Sequence[Classifier]):
    """The models of all clients, in evaluation mode, each made when it is asked for: they may be many, and large.

    Attributes:
        clients: How many there are.
        make: Returns a client's model.
    """

    clients: int
    make: Callable[[int], Classifier]

    def __len__(self) -> int:
        return self.clients

    def __getitem__(self, client: int) -> Classifier:  # type: ignore[override]  # nobody asks for a slice
        if not 0 <= client < self.clients:
            raise IndexError(client)
        return self.make(client)


@dataclass
class PersonalVictim(Victim):
    """A global model that every client completes with parameters or batch-norm statistics of its own.

    Attributes:
        clients: The clients' models, in evaluation mode.
        local_statistics: Whether running statistics stay with the clients, so that those of the global model are those
            of an earlier one.
        public: Public inputs ``(N, ...)``, from which who holds the global model alone estimates statistics.
    """

    clients: Sequence[Classifier] = ()
    local_statistics: bool = False
    public: Tensor | None = field(default=None, repr=False)

    @cached_property
    def snapshot(self) -> Classifier | None:
        """The global model, where statistics are local with those of public data, or of its batch where there are none.

        So it holds no statistics of private data that no client has sent.
        """
        if not self.local_statistics:
            return self.model
        model = copy.deepcopy(self.module)
        if self.public is None:
            use_batch_statistics(model)
        else:
            estimate_statistics(model, self.public.to(model.device))
        return model

    def answer(self, x: Tensor, customer: Customer | None) -> Tensor:
        """Return what the clients' models answer, each to its share of the examples, shape ``(N, classes)``."""
        count = len(self.clients)
        parts = [self.clients[number].predict_proba(x[number::count]) for number in range(min(count, len(x)))]
        answers = parts[0].new_empty(len(x), parts[0].shape[1])
        for number, part in enumerate(parts):
            answers[number::count] = part
        return self.defense.answer(x, answers, customer)


@dataclass(frozen=True, kw_only=True)
class Clients:
    """The clients of one global model.

    Attributes:
        count: How many there are.
        blueprint: Architecture and recipe of the global model.
        spec: Facts of the input, with the classes of the training data.
        defense: The defense.
        context: What the defense's hooks are given for all training data.
        train: All training data; each client owns a share.
        seed: The cell's seed.
        batch_size: Examples behind one update.
        local: How a client trains.
        lr: The step along the mean update that the server takes, and a client with its personal parameters.
        own_statistics: Whether batch norm uses a batch's own statistics.
        share_buffers: Whether the running statistics that batches leave are sent too.
        unique_labels: Whether the classes of one batch all differ.
        dropout: Share of the clients whose update never arrives.
        reshuffle: Whether a client draws another order of its examples for every local epoch after the first.
    """

    count: int
    blueprint: Blueprint
    spec: InputSpec
    defense: Defense
    context: DefenseContext
    train: Examples
    seed: int
    batch_size: int
    local: LocalTraining
    lr: float
    own_statistics: bool
    share_buffers: bool
    unique_labels: bool
    dropout: float = 0.0
    reshuffle: bool = False

    def present(self, number: int) -> list[int]:
        """Return the clients whose update arrives in round ``number``, in order."""
        order = torch.randperm(self.count, generator=generator(derive(self.seed, "dropped", number)))
        return sorted(order[self.count - arriving(self.count, self.dropout) :].tolist())

    def fresh(self) -> States:
        """Return the states before round 0."""
        return {client: {} for client in range(self.count)}

    def updates(self, model: Classifier, number: int, states: States, progress: float) -> list[Message]:
        """Return the messages that the server sees in round ``number``; changes ``states``.

        Args:
            model: The global model.
            number: The round.
            states: The clients' states.
            progress: Share of the training that lies behind the round.
        """
        deltas, own = self.local.steps(self.batch_size) > 1, self.own_statistics and bool(norms(model))
        kept = personal_names(model, self.defense)
        shared: list[Update] = []
        present = self.present(number)
        for client in present:
            batch = self.batch(number, client).to(self.context.device)
            if type(self.defense).data is not Defense.data:
                batch = self.defense.data(batch, self.own_context(client))
            seed = derive(self.seed, "client", number, client)
            local = self.own_model(model, client, states[client])
            with seeded(seed):
                orders = self.orders(number, client)
                update, buffers = client_update(local, batch, self.defense, self.local, own, progress, orders)
            for name in kept:
                states[client][PERSONAL + name] = local.get_parameter(name).detach() - self.lr * update[name]
            update = {name: value for name, value in update.items() if name not in kept}
            who = Client(client, number, self.count, local, batch, seed, deltas, own, states[client])
            sent = dict(self.defense.update(update, who))
            shared.append(sent | buffers if self.share_buffers else sent)
        dropped, kept_state = frozenset(range(self.count)) - set(present), states.get(PROTOCOL, {})
        this = Round(number, self.count, derive(self.seed, "protocol", number), dropped, kept_state)
        messages = list(self.defense.protocol(shared, this))
        if this.state:
            states[PROTOCOL] = this.state
        return messages

    def own_model(self, model: Classifier, client: int, state: Mapping[str, Tensor]) -> Classifier:
        """Return the model that a client begins a round with: the global one, with its own personal parameters."""
        names = personal_names(model, self.defense)
        if not names:
            return model
        local = copy.deepcopy(model)
        own = {name: state[PERSONAL + name] for name in names if PERSONAL + name in state}
        if not own:
            drawn = dataclasses.replace(self.context, seed=derive(self.context.seed, "personal", client))
            own = dict(initial_model(self.blueprint, self.spec, self.defense, drawn).named_parameters())
        with torch.no_grad():
            for name in names:
                local.get_parameter(name).copy_(own[name])
        return local

    def finished_model(self, model: Classifier, client: int, state: Mapping[str, Tensor]) -> Classifier:
        """Return the model with which a client answers, in evaluation mode: :meth:`own_model`.

        Where clients do not share the running statistics of batch norm, each has those of its own training data, with
        the weights as they are now (Andreux et al., Siloed Federated Learning for Multi-Centric Histopathology
        Datasets, 2020).
        """
        local = self.own_model(model, client, state)
        if self.local_statistics:
            local, context = copy.deepcopy(local), self.own_context(client)
            with seeded(derive(self.seed, "statistics", client)):
                estimate_statistics(local, self.defense.data(context.data.train, context).x)
        return local.eval()

    def served(self, victim: Victim, trained: bool, public: Examples | None) -> Victim:
        """Return the victim as its clients serve it: itself, unless they complete its model with what is their own.

        Args:
            victim: The global model with the clients' states.
            trained: Whether rounds have changed its weights.
            public: Public data, for who holds the global model alone.
        """
        local = trained and self.local_statistics and bool(norms(victim.module))
        if not local and not personal_names(victim.module, self.defense):
            return victim
        make = self.finished_model if local else self.own_model
        own = OwnModels(self.count, lambda client: make(victim.module, client, victim.states[client]))
        return PersonalVictim(
            **vars(victim), clients=own, local_statistics=local, public=None if public is None else public.x
        )

    @property
    def local_statistics(self) -> bool:
        """Whether the running statistics that batches leave stay with the clients."""
        return self.own_statistics and not self.share_buffers

    def orders(self, number: int, client: int) -> Sequence[Tensor]:
        """Return in which order a client takes its examples in every local epoch, none where it is always the same.

        The order of the first epoch is that of its batch, which is random already.
        """
        if not self.reshuffle:
            return ()
        draws = generator(derive(self.seed, "epochs", number, client))
        later = [torch.randperm(self.batch_size, generator=draws) for _ in range(self.local.epochs - 1)]
        return [torch.arange(self.batch_size), *later]

    def own_context(self, client: int) -> DefenseContext:
        """Return the context of one client's hooks: it owns its share of the data, and draws for itself."""
        owned = dataclasses.replace(self.context.data, train=self.train[self.share(client)].to(self.context.device))
        return dataclasses.replace(self.context, data=owned, seed=derive(self.context.seed, "client", client))

    def share(self, client: int) -> Tensor:
        """Return the rows of the training data that a client owns; no two clients have one in common."""
        order = torch.randperm(len(self.train), generator=generator(derive(self.seed, "shares")))
        return order[client :: self.count]

    def batch(self, number: int, client: int) -> Examples:
        """Return the batch of one client in one round.

        Raises:
            UserError: If the client owns fewer examples.
        """
        share = self.share(client)
        order = share[torch.randperm(len(share), generator=generator(derive(self.seed, "batch", number, client)))]
        if self.unique_labels:
            first = {int(self.train.y[index]): index for index in order.flip(0)}
            order = torch.stack(list(first.values()))
        if len(order) < self.batch_size:
            what = "classes" if self.unique_labels else "examples"
            raise UserError(
                f"A client has {len(order)} {what}, fewer than setting.batch_size={self.batch_size}; lower it, or "
                "lower setting.clients."
            )
        return self.train[order[: self.batch_size]]


def kept_by_clients(statistics: bool, orders: bool) -> list[str]:
    """Return a sentence on batch-norm statistics that stay with the clients, and one on orders that only they know."""
    return [LOCAL_STATISTICS] * statistics + [RESHUFFLED] * orders


def personal_names(model: Classifier, defense: Defense) -> list[str]:
    """Return the names of the parameters that every client has for itself."""
    return [name for name, _ in model.named_parameters() if defense.personal(name)]
