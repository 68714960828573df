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
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch

from mibench.access import GradientsView, Ledger, LocalTraining, Transcript, mean_update, server_step
from mibench.card import SettingCard
from mibench.data import Captured, Examples, Population
from mibench.errors import IncompatibleCellError, UserError
from mibench.model import Classifier
from mibench.nn.batch_norm import use_batch_statistics
from mibench.options import Count, CountOrNone, Positive, Several
from mibench.seeding import derive
from mibench.settings.base import Observation, Scene, Setting
from mibench.settings.clients import Clients, PersonalVictim, is_buffer, named_as_the_model, personal_names
from mibench.settings.victim import TRAINING_SECONDS, Victim, initial_model, restore_victim, victim_tensors
from mibench.storage.progress import progress
from mibench.storage.store import Payload
from mibench.storage.workshop import clock
from mibench.training import Batch, Training


class Federated(Setting):
    """FedSGD and FedAvg with equal clients."""

    card = SettingCard(
        name="federated",
        title="Federated learning (FedSGD, FedAvg)",
        modalities=("image", "tabular"),
        access=("gradients",),
        training_hooks=("update", "protocol"),
        revision=2,
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
    def deltas(self) -> bool:
        """Whether a message is a difference of parameters rather than a gradient."""
        return self.local.steps(self.batch_size) > 1

    @property
    def message_size(self) -> int:
        """Inputs behind one observed message."""
        return self.batch_size * self.clients_per_message

    def described(self) -> Sequence[str]:
        """Return a sentence on the messages and the global model's age."""
        steps = self.local.steps(self.batch_size)
        what = f"the difference that {steps} local steps make" if self.deltas else "one gradient"
        shared = f", the mean of {self.clients_per_message} clients" if self.clients_per_message > 1 else ""
        norm = "its batch's own statistics" if self.batch_norm == "train" else "the model's running statistics"
        buffers = ", shared" if self.share_buffers else ""
        known = {0: [], None: ["trained on all clients' data"]}
        age = known.get(self.pooled_epochs, [f"trained for {self.pooled_epochs} epochs on all clients' data"])
        age = [*age, *([f"trained for {self.rounds} rounds"] if self.rounds else [])] or ["untrained"]
        examples = f"{self.message_size} example" + "s" * (self.message_size > 1)
        return [
            f"A message is {what} of {examples}{shared}, with batch norm by {norm}{buffers}; the global model is "
            f"{' and '.join(age)}."
        ]

    def train(self, scene: Scene, population: Population, label: str) -> Victim:
        """Return the global model before the attacked round, with the clients' defense states."""
        if scene.split.captured is not None:
            return self._captured_model(scene)
        clients = self._clients(scene, population)
        key = {
            "role": "victim",
            "setting": [self.card.name, self.card.revision, self.pooled_epochs, self._course()],
            "defense": dict(scene.defense_key),
            "target": scene.blueprint.key,
            "data": population.seen,
            "seed": scene.seed,
            **scene.workshop.key,
        }

        def build() -> Payload:
            start = clock(scene.workshop.device)
            model, states = self._broadcast(scene, clients, label), clients.fresh()
            for number in progress(range(self.rounds), label):
                server_step(model, clients.updates(model, number, states, self._progress(number)), clients.lr)
            tensors = victim_tensors(model, scene.defense)
            for client, state in states.items():
                tensors |= {f"client.{client}.{name}": value for name, value in state.items()}
            trained = self.rounds or self.pooled_epochs != 0
            cost = {TRAINING_SECONDS: clock(scene.workshop.device) - start} if trained else {}
            return Payload(tensors, {"defense": scene.defense.facts(), **cost})

        payload = scene.workshop.store.get("victim", key, build)
        model, states = initial_model(scene.blueprint, clients.spec, scene.defense, clients.context), clients.fresh()
        restore_victim(model, scene.defense, payload.tensors)
        for name, value in payload.tensors.items():
            if name.startswith("client."):
                _, client, rest = name.split(".", 2)
                states[int(client)][rest] = value.to(scene.workshop.device)
        victim = Victim(model.eval(), scene.defense, clients.spec, key, dict(payload.facts), states)
        if not personal_names(model, scene.defense):
            return victim
        own = [clients.own_model(model, client, state) for client, state in states.items()]
        return PersonalVictim(**vars(victim), clients=own)

    def observe(
        self, scene: Scene, victim: Victim, population: Population, access: str, count: int, ledger: Ledger
    ) -> Observation:
        """Return the first ``count`` messages of the attacked round, and the batches behind them as the secret."""
        if scene.split.captured is not None:
            return self._captured_message(scene, victim, scene.split.captured, ledger)
        wanted = count * self.clients_per_message
        if wanted > self.clients:
            raise UserError(
                f"The budget attacks {wanted} clients, but setting.clients is {self.clients}; raise setting.clients or "
                "lower budget.targets."
            )
        device, clients, model = scene.workshop.device, self._clients(scene, population), copy.deepcopy(victim.module)
        progressed = self._progress(self.rounds)
        sent = clients.updates(model, self.rounds, copy.deepcopy(victim.states), progressed)
        groups = (
            range(first, first + self.clients_per_message) for first in range(0, wanted, self.clients_per_message)
        )
        messages = [mean_update([sent[client] for client in group]) for group in groups]
        if self.batch_norm == "train":
            use_batch_statistics(model)
        view = GradientsView.of(
            model,
            [{name: value for name, value in one.items() if not is_buffer(name)} for one in messages],
            self.message_size,
            victim.spec,
            ledger,
            device,
            local=self.local,
            deltas=self.deltas,
            clients=self.clients_per_message,
            buffers=[{name: value.to(device) for name, value in one.items() if is_buffer(name)} for one in messages],
            transcript=lambda: self._transcript(scene, clients),
            client_loss=lambda model, x, y: scene.defense.loss(Batch(model, x, y, progressed)),
        )
        batches = [clients.batch(self.rounds, client) for client in range(wanted)]
        secret = Examples(torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches]))
        return Observation(view, secret)

    def _captured_model(self, scene: Scene) -> Victim:
        """Return the user's model, which is not trained.

        Raises:
            UserError: If the target has no weights, or the defense would have had a part in the update.
        """
        if not scene.blueprint.pretrained:
            raise UserError(
                "dataset=captured_update needs the model that the client started from; set target=checkpoint, "
                "target.factory=PACKAGE.MODULE:FUNCTION and target.weights=FILE."
            )
        if scene.defense.card.name != "none":
            raise UserError(
                "A captured update is as its client sent it; set defense=none (what a defense buys is measured where "
                "mibench makes the update itself)."
            )
        context = scene.context(scene.split.private.train)
        model = initial_model(scene.blueprint, scene.split.spec, scene.defense, context).eval()
        key = {"role": "victim", "setting": [self.card.name, "captured"], "target": scene.blueprint.key}
        return Victim(model, scene.defense, scene.split.spec, key)

    def _captured_message(self, scene: Scene, victim: Victim, captured: Captured, ledger: Ledger) -> Observation:
        """Return the captured update as the one message."""
        model = copy.deepcopy(victim.module)
        message = named_as_the_model(captured.update, model)
        if self.batch_norm == "train":
            use_batch_statistics(model)
        local = LocalTraining() if captured.local is None else LocalTraining(captured.local[0], 0, captured.local[1])
        view = GradientsView.of(
            model,
            [message],
            captured.batch_size,
            victim.spec,
            ledger,
            scene.workshop.device,
            local=None if captured.delta and captured.local is None else local,
            deltas=captured.delta,
            buffers=[{}],
        )
        return Observation(view, captured.secret)

    def _course(self) -> list[object]:
        """Return what identifies the rounds before the attacked one; nothing where there are none."""
        if not self.rounds:
            return []
        local = dataclasses.astuple(self.local) if self.deltas else ()
        modes = (self.batch_norm, self.share_buffers, self.unique_labels)
        return [self.rounds, self.clients, self.batch_size, self.lr, *local, *modes]

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
            server_step(model, sent, clients.lr)
            rounds.append(sent)
        if self.batch_norm == "train":
            use_batch_statistics(start)
        return Transcript(start, rounds, clients.lr)
