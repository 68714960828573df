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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mibench.access import GradientsView, Ledger, LocalTraining, Transcript, mean_update, server_step
from mibench.card import SettingCard
from mibench.data import Captured, Examples, Population
from mibench.defenses.base import Client, Customer, Defense, DefenseContext, Update
from mibench.errors import IncompatibleCellError, UserError
from mibench.model import Classifier
from mibench.nn.batch_norm import norms, running_buffers, use_batch_statistics
from mibench.options import Count, CountOrNone, Positive
from mibench.progress import progress
from mibench.seeding import derive, generator, seeded
from mibench.settings.base import Observation, Scene, Setting
from mibench.store import Payload
from mibench.training import Batch, Training
from mibench.victim import TRAINING_SECONDS, Victim, clock, initial_model, restore_victim, victim_tensors

#: The names of running statistics among what a client sends.
BUFFERS = ("running_mean", "running_var")

#: What a personal parameter is named after among what is kept for a client.
PERSONAL = "personal."


@dataclass
class PersonalVictim(Victim):
    """A global model that every client completes with parameters of its own.

    Attributes:
        clients: The clients' models, in evaluation mode.
    """

    clients: Sequence[Classifier] = ()

    def answer(self, x: Tensor, customer: Customer | None) -> Tensor:
        """Return what the clients' models answer, each to its share of the examples, shape ``(N, classes)``."""
        count = len(self.clients)
        parts = [model.predict_proba(x[number::count]) for number, model in enumerate(self.clients[: len(x)])]
        answers = parts[0].new_empty(len(x), parts[0].shape[1])
        for number, part in enumerate(parts):
            answers[number::count] = part
        return self.defense.answer(x, answers, customer)


@dataclass(kw_only=True, eq=False)
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
    """Epochs of training on all clients' data together before the first round; null for as many as the target's recipe has."""  # LONG
    clients: int = 8
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
    """Whether clients normalise by their batch's own statistics (``train``) or by the global model's running ones (``eval``)."""  # LONG
    share_buffers: bool = False
    """Whether clients in mode ``train`` share the running statistics that their batches leave."""
    unique_labels: bool = False
    """Whether the classes of one batch all differ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if clients < 2:
            raise UserError(f"Expected setting.clients >= 2, but got clients={clients}.")
        if share_buffers and batch_norm == "eval":
            raise UserError(
                "setting.share_buffers=true needs setting.batch_norm=train: in mode eval a client changes no buffer."
            )
        self.local = LocalTraining(local_epochs, min(local_batch_size or batch_size, batch_size), local_lr)
        self.deltas = self.local.steps(batch_size) > 1

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

    @property
    def _server_lr(self) -> float:
        return 1.0 if self.deltas else self.lr

    def train(self, scene: Scene, population: Population, label: str) -> Victim:
        """Return the global model before the attacked round, with the clients' defense states."""
        if scene.split.captured is not None:
            return self._captured_model(scene)
        spec = dataclasses.replace(scene.split.spec, classes=int(population.train.y.max()) + 1)
        context = scene.context(population.train)
        key = {
            "role": "victim",
            "setting": [self.card.name, self.card.revision, self.pooled_epochs, self._course()],
            "defense": dict(scene.defense_key),
            "target": scene.blueprint.key,
            "data": population.train.digest(),
            "seed": scene.seed,
        }

        def build() -> Payload:
            start = clock(scene.workshop.device)
            model = self._broadcast(scene, population, label)
            states: dict[int, dict[str, Tensor]] = {client: {} for client in range(self.clients)}
            for number in progress(range(self.rounds), label):
                server_step(model, self._round(scene, context, model, population, number, states), self._server_lr)
            tensors = victim_tensors(model, scene.defense)
            for client, state in states.items():
                tensors |= {f"client.{client}.{name}": value for name, value in state.items()}
            trained = self.rounds or self.pooled_epochs != 0
            cost = {TRAINING_SECONDS: clock(scene.workshop.device) - start} if trained else {}
            return Payload(tensors, {"defense": scene.defense.facts(), **cost})

        payload = scene.workshop.store.get("victim", key, build)
        model = initial_model(scene.blueprint, spec, scene.defense, context)
        restore_victim(model, scene.defense, payload.tensors)
        states: dict[int, dict[str, Tensor]] = {client: {} for client in range(self.clients)}
        for name, value in payload.tensors.items():
            if name.startswith("client."):
                _, client, rest = name.split(".", 2)
                states[int(client)][rest] = value.to(scene.workshop.device)
        victim = Victim(model.eval(), scene.defense, spec, key, dict(payload.facts), states)
        if not personal_names(model, scene.defense):
            return victim
        own = [self._local_model(scene, context, model, client, states[client]) for client in range(self.clients)]
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
        device = scene.workshop.device
        context = scene.context(population.train)
        model = copy.deepcopy(victim.module)
        sent = self._round(scene, context, model, population, self.rounds, copy.deepcopy(victim.states))
        groups = [
            sent[first : first + self.clients_per_message] for first in range(0, wanted, self.clients_per_message)
        ]
        messages = [mean_update(group) for group in groups]
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
            transcript=lambda: self._transcript(scene, population),
            client_loss=lambda model, x, y: scene.defense.loss(Batch(model, x, y, self._progress(self.rounds))),
        )
        batches = [self._batch(scene, population, self.rounds, client) for client in range(wanted)]
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

    def _broadcast(self, scene: Scene, population: Population, label: str) -> Classifier:
        """Return the global model before round 0."""
        spec = dataclasses.replace(scene.split.spec, classes=int(population.train.y.max()) + 1)
        context = scene.context(population.train)
        model = initial_model(scene.blueprint, spec, scene.defense, context).eval()
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

    def _round(
        self,
        scene: Scene,
        context: DefenseContext,
        model: Classifier,
        population: Population,
        number: int,
        states: dict[int, dict[str, Tensor]],
    ) -> list[Update]:
        """Return the messages that the server sees in round ``number``; changes ``states``."""
        shared: list[Update] = []
        for client in range(self.clients):
            drawn = self._batch(scene, population, number, client).to(scene.workshop.device)
            batch = drawn
            if type(scene.defense).data is not Defense.data:
                batch = scene.defense.data(drawn, self._own(scene, context, population, client))
            seed = derive(scene.seed, "client", number, client)
            own = self.batch_norm == "train" and bool(norms(model))
            local = self._local_model(scene, context, model, client, states[client])
            with seeded(seed):
                update, buffers = client_update(local, batch, scene.defense, self.local, own, self._progress(number))
            kept = personal_names(model, scene.defense)
            for name in kept:
                states[client][PERSONAL + name] = local.get_parameter(name).detach() - self._server_lr * update[name]
            update = {name: value for name, value in update.items() if name not in kept}
            who = Client(client, number, self.clients, local, batch, seed, self.deltas, own, states[client])
            sent = dict(scene.defense.update(update, who))
            shared.append(sent | buffers if self.share_buffers else sent)
        return list(scene.defense.protocol(shared))

    def _local_model(
        self, scene: Scene, context: DefenseContext, model: Classifier, client: int, state: Mapping[str, Tensor]
    ) -> Classifier:
        """Return the model that a client begins a round with: the global one, with its own personal parameters."""
        names = personal_names(model, scene.defense)
        if not names:
            return model
        local = copy.deepcopy(model)
        own = {name: state[PERSONAL + name] for name in names if PERSONAL + name in state}
        if not own:
            drawn = dataclasses.replace(context, seed=derive(context.seed, "personal", client))
            spec = dataclasses.replace(scene.split.spec, classes=int(context.data.train.y.max()) + 1)
            own = dict(initial_model(scene.blueprint, spec, scene.defense, drawn).named_parameters())
        with torch.no_grad():
            for name in names:
                local.get_parameter(name).copy_(own[name])
        return local

    def _progress(self, number: int) -> float:
        """Return which share of the training lies behind round ``number``; all of it where it was pooled."""
        return number / (self.rounds + 1) if self.pooled_epochs == 0 else 1.0

    def _transcript(self, scene: Scene, population: Population) -> Transcript:
        """Return what an eavesdropper has gathered before the attacked round, by running the rounds again."""
        start = self._broadcast(scene, population, "eavesdropping")
        context = scene.context(population.train)
        model, rounds = copy.deepcopy(start), []
        states: dict[int, dict[str, Tensor]] = {client: {} for client in range(self.clients)}
        for number in range(self.rounds):
            sent = self._round(scene, context, model, population, number, states)
            server_step(model, sent, self._server_lr)
            rounds.append(sent)
        if self.batch_norm == "train":
            use_batch_statistics(start)
        return Transcript(start, rounds, self._server_lr)

    def _share(self, scene: Scene, population: Population, client: int) -> Tensor:
        """Return the rows of the training data that a client owns; no two clients have one in common."""
        order = torch.randperm(len(population.train), generator=generator(derive(scene.seed, "shares")))
        return order[client :: self.clients]

    def _own(self, scene: Scene, context: DefenseContext, population: Population, client: int) -> DefenseContext:
        """Return the context of one client's hooks: it owns its share of the data, and draw for itself."""
        share = population.train[self._share(scene, population, client)].to(context.device)
        owned = dataclasses.replace(context.data, train=share)
        return dataclasses.replace(context, data=owned, seed=derive(context.seed, "client", client))

    def _batch(self, scene: Scene, population: Population, number: int, client: int) -> Examples:
        """Return the batch of one client in one round; clients own disjoint shares of the training data."""
        train = population.train
        share = self._share(scene, population, client)
        order = share[torch.randperm(len(share), generator=generator(derive(scene.seed, "batch", number, client)))]
        if self.unique_labels:
            first = {int(train.y[index]): index for index in order.flip(0)}
            order = torch.stack(list(first.values()))
        if len(order) < self.batch_size:
            what = "classes" if self.unique_labels else "examples"
            raise UserError(
                f"A client has {len(order)} {what}, fewer than setting.batch_size={self.batch_size}; lower it, or "
                "lower setting.clients."
            )
        return train[order[: self.batch_size]]


def client_update(
    model: Classifier,
    batch: Examples,
    defense: Defense,
    local: LocalTraining,
    own_statistics: bool,
    progress: float = 0.0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what one client has learned, and the running statistics that its batches leave.

    Args:
        model: The global model, which stays as it is.
        batch: The client's examples.
        defense: Its loss is the client's.
        local: How the client trains.
        own_statistics: Whether batch norm uses the batch's own statistics, and remembers them.
        progress: Share of the training that lies behind this round, for losses with a schedule.

    Returns:
        The gradient by parameter name, or after several steps the parameters before minus those after; and buffers by
        name, none where ``own_statistics`` is off.
    """
    model = copy.deepcopy(model)
    for layer in norms(model).values():
        layer.train(own_statistics)
    steps = local.batches(len(batch))
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    moving = {name: value for name, value in model.named_parameters() if value.requires_grad}
    update: dict[str, Tensor] = {}
    for rows in steps:
        loss = defense.loss(Batch(model, batch.x[rows], batch.y[rows], progress))
        gradient = torch.autograd.grad(loss, list(moving.values()))
        update = dict(zip(moving, gradient, strict=True))
        with torch.no_grad():
            for name, value in update.items():
                moving[name].sub_(local.lr * value)
    if len(steps) > 1:
        update = {name: value - moving[name].detach() for name, value in before.items()}
    return update, running_buffers(model) if own_statistics else {}


def personal_names(model: Classifier, defense: Defense) -> list[str]:
    """Return the names of the parameters that every client has for itself."""
    return [name for name, _ in model.named_parameters() if defense.personal(name)]


def named_as_the_model(update: Mapping[str, Tensor], model: Classifier) -> dict[str, Tensor]:
    """Return a captured update by the names that ``model`` has for its parameters, in its order.

    Raises:
        UserError: If a tensor is missing, unknown or of another shape.
    """
    own = {id(value): name for name, value in model.named_parameters() if value.requires_grad}
    foreign = getattr(model, "foreign", model)
    called = {name: (own[id(value)], value) for name, value in foreign.named_parameters() if id(value) in own}
    given = {name: value for name, value in update.items() if name in called}
    if missing := [name for name in called if name not in update]:
        shown = ", ".join(sorted(update)[:4])
        raise UserError(
            f"The captured update has no tensor '{missing[0]}' for the parameter of that name ({len(missing)} of "
            f"{len(called)} are missing; it holds {shown} ...); name its tensors as model.named_parameters() does."
        )
    for name, value in given.items():
        if value.shape != called[name][1].shape:
            raise UserError(
                f"Expected the captured update's '{name}' to have the parameter's shape "
                f"{tuple(called[name][1].shape)}, but got {tuple(value.shape)}; it is of another model."
            )
    return {called[name][0]: given[name] for name in called}


def is_buffer(name: str) -> bool:
    """Whether a tensor of a message is a batch-norm buffer rather than a parameter."""
    return name.endswith(BUFFERS)
