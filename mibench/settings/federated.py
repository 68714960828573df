"""Setting ``federated``: clients' updates, seen by the server (or by an eavesdropper on the uploads).

In every round each client computes an update on its own data, the defense's ``update`` hook turns it into what is
shared, the ``protocol`` hook into what arrives, and the server takes a step along the mean (McMahan et al.,
Communication-Efficient Learning, AISTATS 2017). With one local step the update is the gradient of the mean
cross-entropy (FedSGD); with several it is the difference of the parameters before and after them (FedAvg).

The attacked round is the one after ``rounds``: the global model is then ``rounds`` rounds old, and update defenses are
in the state they have then. ``pooled_epochs`` puts a training on all clients' data together before the first round, the
cheap stand-in for the many rounds that would bring a model as far; update defenses have no part in it.

Where a defense leaves parameters to the clients (:meth:`personal <mibench.defenses.base.Defense.personal>`), every
client draws its own, takes at home the step that the server takes along the mean, and sends the others alone. The
global model that the attacker holds has in their place a draw that is nobody's. What such a system answers is what its
clients' models do, each asked its share of the examples.

The same holds where clients keep the running statistics that their batches leave, so that the global model's are older
than its weights: every client answers with statistics of its own data. ``white_box`` has those of public data.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch

from mibench.access import (
    GradientsView,
    Ledger,
    LocalTraining,
    Message,
    Sealed,
    Transcript,
    WhiteBoxView,
    mean_update,
    server_step,
)
from mibench.card import DefenseCard, SettingCard
from mibench.data import Examples, Population, Split
from mibench.defenses.base import Defense
from mibench.errors import IncompatibleCellError, UserError
from mibench.model import Classifier
from mibench.nn.batch_norm import use_batch_statistics
from mibench.options import Count, CountOrNone, Decay, Positive, Several, option
from mibench.planning.compatibility import arriving
from mibench.seeding import derive
from mibench.settings.base import Observation, Scene, Setting
from mibench.settings.clients import Clients, States, kept_by_clients, personal_names
from mibench.settings.updates import ClientLoss, is_buffer
from mibench.settings.victim import TRAINING_SECONDS, Victim, initial_model, restore_victim, victim_tensors
from mibench.storage.progress import progress
from mibench.storage.store import Payload
from mibench.storage.workshop import clock
from mibench.training import Training

#: Counts what changes a global model; the card's revision counts what changes a number.
MODELS = 2


class Federated(Setting):
    """FedSGD and FedAvg with equal clients."""

    card = SettingCard(
        name="federated",
        title="Federated learning (FedSGD, FedAvg)",
        modalities=("image", "text", "tabular"),
        access=("gradients", "white_box"),
        training_hooks=("update", "protocol"),
        revision=3,
        unrevised=(("rounds", 0), ("local_epochs", 1)),
        clients=True,
    )

    rounds: CountOrNone = 0
    """Rounds trained before the attacked one; 0 attacks the global model as it was broadcast first."""
    pooled_epochs: CountOrNone | None = 0
    """Epochs on all clients' data together before the first round; null for as many as the target's recipe has."""
    clients: Several = 8
    """Clients in every round; the first ones are attacked."""
    batch_size: Count = 1
    """Examples behind one client's update."""
    clients_per_message: Count = 1
    """Clients whose true mean is one message; 1 where the server sees every update."""
    lr: Positive = 0.1
    """The server's step size along a mean gradient; a mean difference of parameters is subtracted whole."""
    local_epochs: Count = 1
    """Passes of a client over its examples."""
    local_batch_size: Count | None = None
    """Examples of one local step; null for all of them."""
    local_lr: Positive = 0.01
    """The clients' step size, where they take several steps."""
    batch_norm: Literal["train", "eval"] = "train"
    """Whether clients normalise by their batch's own statistics (``train``) or by the global model's (``eval``)."""
    share_buffers: bool = False
    """Whether clients in mode ``train`` share the running statistics that their batches leave."""
    unique_labels: bool = False
    """Whether the classes of one batch all differ."""
    dropout: Decay = option(0.0, since=3)
    """Share of the clients that begin a round and whose update never arrives."""
    reshuffle: bool = option(True, since=3)
    """Whether a client draws another order of its examples for every local epoch after the first."""

    def __post_init__(self) -> None:
        """Refuse to share buffers that clients do not change."""
        super().__post_init__()
        if self.share_buffers and self.batch_norm == "eval":
            raise UserError(
                "setting.share_buffers=true needs setting.batch_norm=train: in mode eval a client changes no buffer."
            )

    @property
    def local(self) -> LocalTraining:
        """How a client makes its update."""
        examples = min(self.local_batch_size or self.batch_size, self.batch_size)
        return LocalTraining(self.local_epochs, examples, self.local_lr)

    @property
    def reshuffles(self) -> bool:
        """Whether the order of a client's examples changes and makes a difference."""
        return self.reshuffle and self.local.steps(self.batch_size) > self.local.epochs > 1

    @property
    def parts_of_message(self) -> int:
        """The mini-batches of one local epoch, of all clients behind a message; 1 where one gradient is sent."""
        return self.local.steps(self.batch_size) // self.local_epochs * self.clients_per_message if self.deltas else 1

    @property
    def deltas(self) -> bool:
        """Whether a message is a difference of parameters rather than a gradient."""
        return self.local.steps(self.batch_size) > 1

    def inputs_behind(self, split: Split, defense: DefenseCard) -> int:
        """Return the inputs behind one observed message."""
        return self.batch_size * (self.senders_of_cohort if defense.cohort else self.clients_per_message)

    @property
    def senders_of_cohort(self) -> int:
        """Clients whose update arrives in a round."""
        return arriving(self.clients, self.dropout)

    def described(self, defense: DefenseCard, batch_norm: bool) -> Sequence[str]:
        """Return sentences on the messages, the global model's age, and what stays with the clients."""
        steps = self.local.steps(self.batch_size)
        what = f"the difference that {steps} local steps make" if self.deltas else "one gradient"
        senders = self.senders_of_cohort if defense.cohort else self.clients_per_message
        shared = f", the mean of {senders} clients" if senders > 1 else ""
        by = "its batch's own statistics" if self.batch_norm == "train" else "the model's running statistics"
        norm = f", with batch norm by {by}{', shared' if self.share_buffers else ''}" if batch_norm else ""
        known = {0: [], None: ["trained on all clients' data"]}
        age = known.get(self.pooled_epochs, [f"trained for {self.pooled_epochs} epochs on all clients' data"])
        age = [*age, *([f"trained for {self.rounds} rounds"] if self.rounds else [])] or ["untrained"]
        size = self.batch_size * senders
        examples = f"{size} example" + "s" * (size > 1)
        said = [f"A message is {what} of {examples}{shared}{norm}; the global model is {' and '.join(age)}."]
        statistics = batch_norm and bool(self.rounds) and self.batch_norm == "train" and not self.share_buffers
        return said + kept_by_clients(statistics, self.reshuffles)

    def train(self, scene: Scene, population: Population, label: str) -> Victim:
        """Return the global model before the attacked round, with the clients' defense states.

        Rounds go on from the latest earlier ones of the same training that the store holds, unless the loss has a
        schedule over all rounds, or an attack's server remembers what it heard.
        """
        clients, store = self._clients(scene, population), scene.workshop.store

        def build() -> Payload:
            start = clock(scene.workshop.device)
            earlier, found = self._earlier(scene, population)
            if found is None:
                model, states, spent = self._broadcast(scene, clients, label), clients.fresh(), 0.0
            else:
                model, states = self._restored(scene, clients, found)
                spent = float(found.facts.get(TRAINING_SECONDS, 0.0))
            for number in progress(range(earlier, self.rounds), label):
                broadcast = scene.server.broadcast(number, model)
                messages = clients.updates(broadcast, number, states, self._progress(number))
                scene.server.receive(number, messages)
                server_step(model, [one.opened() for one in messages], clients.lr)
            tensors = victim_tensors(model, scene.defense)
            for client, state in states.items():
                tensors |= {f"client.{client}.{name}": value for name, value in state.items()}
            trained = self.rounds or self.pooled_epochs != 0
            cost = {TRAINING_SECONDS: spent + clock(scene.workshop.device) - start} if trained else {}
            return Payload(tensors, {"defense": scene.defense.facts(), **cost})

        key = self._key(scene, population, self.rounds)
        payload = store.get("victim", key, build)
        model, states = self._restored(scene, clients, payload)
        victim = Victim(model, scene.defense, clients.spec, key, dict(payload.facts), states)
        return clients.served(victim, bool(self.rounds), scene.split.public)

    def observe(
        self, scene: Scene, victim: Victim, population: Population, access: str, count: int, ledger: Ledger
    ) -> Observation:
        """Return the first ``count`` messages of the attacked round, and the batches behind them as the secret."""
        if access == "white_box":  # a snapshot of the global model
            model = victim.snapshot
            assert model is not None
            return Observation(WhiteBoxView.of(model, victim.spec, ledger, scene.workshop.device))
        cohort = scene.defense.cohort
        wanted = count * self.clients_per_message
        if cohort and self.clients_per_message > 1:
            raise UserError(
                f"Defense '{scene.defense.card.name}' already makes one message of all clients; set "
                "setting.clients_per_message=1."
            )
        if not cohort and wanted > self.senders_of_cohort:
            raise UserError(
                f"The budget attacks {wanted} clients, but setting.clients is {self.clients}; raise setting.clients or "
                "lower budget.targets."
            )
        device, clients = scene.workshop.device, self._clients(scene, population)
        model = scene.server.broadcast(self.rounds, copy.deepcopy(victim.module))
        progressed, senders = self._progress(self.rounds), self.clients_per_message
        sent: list[Message] = []
        batches: list[Examples] = []
        for number in range(self.rounds, self.rounds + (count if cohort else 1)):  # rounds at the very same model
            here = clients.updates(model, number, copy.deepcopy(victim.states), progressed)
            scene.server.receive(number, here)
            sent += here
            attacked = clients.present(number)[: None if cohort else wanted]
            batches += [clients.batch(number, client) for client in attacked]
        if type(scene.defense).data is not Defense.data:  # which may have chosen something on the clients' batches
            victim.facts["defense"] = {**victim.reported, **scene.defense.facts()}
        if cohort:
            senders, messages = sent[0].senders, [one.opened() for one in sent]
        else:
            groups = range(0, wanted, senders)
            messages = [mean_update([one.opened() for one in sent[first : first + senders]]) for first in groups]
        if self.batch_norm == "train":
            use_batch_statistics(model)
        view = GradientsView.of(
            model,
            [{name: value for name, value in one.items() if not is_buffer(name)} for one in messages],
            self.batch_size * senders,
            victim.spec,
            ledger,
            device,
            local=self.local,
            deltas=self.deltas,
            clients=senders,
            sealed=any(isinstance(one.tensors, Sealed) for one in sent),
            buffers=[{name: value.to(device) for name, value in one.items() if is_buffer(name)} for one in messages],
            transcript=lambda: self._transcript(scene, clients),
            client_loss=ClientLoss(scene.defense.as_known(), progressed),
        )
        secret = Examples(torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches]))
        return Observation(view, secret)

    def _key(self, scene: Scene, population: Population, rounds: int) -> dict[str, Any]:
        """Return what identifies the global model after a number of rounds."""
        return {
            "role": "victim",
            "setting": [self.card.name, MODELS, self.pooled_epochs, self._course(rounds)],
            "defense": dict(scene.defense_key),
            "target": scene.blueprint.key,
            "data": population.seen,
            "seed": scene.seed,
            **({"server": dict(scene.server_key)} if scene.server_key else {}),
            **scene.workshop.key,
        }

    def _earlier(self, scene: Scene, population: Population) -> tuple[int, Payload | None]:
        """Return the largest number of earlier rounds that the store holds, and what it holds; 0 and None of none."""
        if scene.server_key or type(scene.defense).loss is not Defense.loss:
            return 0, None
        key = self._key(scene, population, self.rounds)
        for rounds in range(self.rounds - 1, 0, -1):
            shorter = {**key, "setting": [*key["setting"][:-1], self._course(rounds)]}
            if (found := scene.workshop.store.find("victim", shorter)) is not None:
                return rounds, found
        return 0, None

    def _restored(self, scene: Scene, clients: Clients, payload: Payload) -> tuple[Classifier, States]:
        """Return a stored global model and the clients' states; the defense takes its own back."""
        model, states = initial_model(scene.blueprint, clients.spec, scene.defense, clients.context), clients.fresh()
        restore_victim(model, scene.defense, payload.tensors)
        for name, value in payload.tensors.items():
            if name.startswith("client."):
                _, client, rest = name.split(".", 2)
                states.setdefault(int(client), {})[rest] = value.to(scene.workshop.device)
        return model.eval(), states

    def _course(self, rounds: int) -> list[object]:
        """Return what identifies the rounds before the attacked one; nothing where there are none."""
        if not rounds:
            return []
        local = dataclasses.astuple(self.local) if self.deltas else ()
        local = (*local, "reshuffle") if self.reshuffles else local
        modes = (self.batch_norm, self.share_buffers, self.unique_labels, *([self.dropout] if self.dropout else []))
        return [rounds, self.clients, self.batch_size, self.lr, *local, *modes]

    def _clients(self, scene: Scene, population: Population) -> Clients:
        """Return the clients whose shares make up the training data of a population."""
        return Clients(
            count=self.clients,
            blueprint=scene.blueprint,
            spec=dataclasses.replace(scene.split.spec, classes=int(population.train.y.max()) + 1),
            defense=scene.defense,
            context=scene.context(population.train),
            train=population.train,
            seed=scene.seed,
            batch_size=self.batch_size,
            local=self.local,
            lr=1.0 if self.deltas else self.lr,
            own_statistics=self.batch_norm == "train",
            share_buffers=self.share_buffers,
            unique_labels=self.unique_labels,
            dropout=self.dropout,
            reshuffle=self.reshuffles,
        )

    def _broadcast(self, scene: Scene, clients: Clients, label: str) -> Classifier:
        """Return the global model before round 0."""
        context = clients.context
        model = initial_model(scene.blueprint, clients.spec, scene.defense, context).eval()
        if self.pooled_epochs == 0:
            return model
        if personal_names(model, scene.defense):
            raise IncompatibleCellError(
                f"Incompatible: with defense '{scene.defense.card.name}' every client trains a part of the model for "
                "itself, which a training on all clients' data cannot do; set setting.pooled_epochs=0."
            )
        recipe = scene.blueprint.recipe
        if self.pooled_epochs is not None:
            recipe = dataclasses.replace(recipe, epochs=self.pooled_epochs, min_steps=0)
        workshop, data = scene.workshop, scene.defense.data(context.data.train, context)
        pooled = Training(
            model, data, recipe, derive(scene.seed, "pooled"), workshop.device, workshop.precision, f"{label} (pooled)"
        )
        return pooled.run(scene.defense.loss)

    def _progress(self, number: int) -> float:
        """Return which share of the training lies behind round ``number``; all of it where it was pooled."""
        return number / (self.rounds + 1) if self.pooled_epochs == 0 else 1.0

    def _transcript(self, scene: Scene, clients: Clients) -> Transcript:
        """Return what an eavesdropper has gathered before the attacked round, by running the rounds again."""
        start = self._broadcast(scene, clients, "eavesdropping")
        model, rounds, states = copy.deepcopy(start), [], clients.fresh()
        for number in range(self.rounds):
            sent = clients.updates(model, number, states, self._progress(number))
            rounds.append([one.opened() for one in sent])
            server_step(model, rounds[-1], clients.lr)
        if self.batch_norm == "train":
            use_batch_statistics(start)
        return Transcript(start, rounds, clients.lr)
