"""Setting ``federated``: FedSGD, seen by the server (or by an eavesdropper on the clients' uploads).

In every round each client computes the gradient of the mean cross-entropy on one batch of its own data (McMahan et al.,
Communication-Efficient Learning, AISTATS 2017, FedSGD), the defense's ``update`` hook turns it into what is shared, the
``protocol`` hook into what arrives, and the server takes a step of size ``lr`` along the mean. The attacked round is
the one after ``rounds``: the global model is then ``rounds`` rounds old, and update defenses are in the state they have
then.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor

from mibench.access import GradientsView, Ledger
from mibench.card import SettingCard
from mibench.data import Examples, Population
from mibench.defenses.base import Client, Defense, DefenseContext, Update
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.options import Positive
from mibench.progress import progress
from mibench.seeding import derive, generator
from mibench.settings.base import Observation, Scene, Setting
from mibench.store import Payload
from mibench.training import Batch
from mibench.victim import Victim, defender_context, initial_model, restore_victim, victim_tensors


class Federated(Setting):
    """FedSGD with equal clients.

    Args:
        rounds: Rounds trained before the attacked one; 0 attacks the untrained global model.
        clients: Clients in every round; the first ones are attacked, one update each.
        batch_size: Examples behind one update.
        lr: The server's step size.
        unique_labels: Whether the classes of one batch all differ.
    """

    card = SettingCard(
        name="federated",
        title="Federated learning (FedSGD)",
        modalities=("image", "tabular"),
        access=("gradients",),
        training_hooks=("update", "protocol"),
    )

    def __init__(
        self,
        *,
        rounds: int = 0,
        clients: int = 8,
        batch_size: int = 1,
        lr: Positive = 0.1,
        unique_labels: bool = False,
    ) -> None:
        if rounds < 0 or clients < 2 or batch_size < 1:
            raise UserError(
                "Expected setting.rounds >= 0, setting.clients >= 2 and setting.batch_size >= 1, but got "
                f"rounds={rounds}, clients={clients}, batch_size={batch_size}."
            )
        self.rounds = rounds
        self.clients = clients
        self.batch_size = batch_size
        self.lr = lr
        self.unique_labels = unique_labels

    def train(self, scene: Scene, population: Population, label: str) -> Victim:
        """Returns the global model after ``rounds`` rounds, with the clients' defense states."""
        spec = dataclasses.replace(scene.split.spec, classes=int(population.train.y.max()) + 1)
        context = defender_context(scene.split, population.train, scene.workshop, scene.seed)
        key = {
            "role": "victim",
            "setting": [
                self.card.name,
                self.card.revision,
                self.rounds,
                self.clients,
                self.batch_size,
                self.lr,
                self.unique_labels,
            ],
            "defense": dict(scene.defense_key),
            "target": scene.blueprint.key,
            "data": population.train.digest(),
            "seed": scene.seed,
        }

        def build() -> Payload:
            model = initial_model(scene.blueprint, spec, scene.defense, context).eval()
            states: dict[int, dict[str, Tensor]] = {client: {} for client in range(self.clients)}
            for number in progress(range(self.rounds), label):
                sent = self._round(scene, context, model, population, number, states)
                with torch.no_grad():
                    for name, parameter in model.named_parameters():
                        parameter.sub_(self.lr * torch.stack([update[name] for update in sent]).mean(0))
            tensors = victim_tensors(model, scene.defense)
            for client, state in states.items():
                tensors |= {f"client.{client}.{name}": value for name, value in state.items()}
            return Payload(tensors, {"defense": scene.defense.facts()})

        payload = scene.workshop.store.get("victim", key, build)
        model = initial_model(scene.blueprint, spec, scene.defense, context)
        restore_victim(model, scene.defense, payload.tensors)
        states: dict[int, dict[str, Tensor]] = {client: {} for client in range(self.clients)}
        for name, value in payload.tensors.items():
            if name.startswith("client."):
                _, client, rest = name.split(".", 2)
                states[int(client)][rest] = value.to(scene.workshop.device)
        return Victim(model.eval(), scene.defense, spec, key, dict(payload.facts), states)

    def observe(
        self, scene: Scene, victim: Victim, population: Population, access: str, count: int, ledger: Ledger
    ) -> Observation:
        """Returns the updates of the first ``count`` clients in the attacked round, and their batches as the secret."""
        if count > self.clients:
            raise UserError(
                f"The budget attacks {count} clients, but setting.clients is {self.clients}; raise setting.clients or "
                "lower budget.targets."
            )
        states = copy.deepcopy(victim.states)
        device = scene.workshop.device
        context = defender_context(scene.split, population.train, scene.workshop, scene.seed)
        sent = self._round(scene, context, victim.module, population, self.rounds, states)[:count]
        view = GradientsView.of(victim.module, sent, self.batch_size, victim.spec, ledger, device)
        batches = [self._batch(scene, population, self.rounds, client) for client in range(count)]
        secret = Examples(torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches]))
        return Observation(view, secret)

    def _round(
        self,
        scene: Scene,
        context: DefenseContext,
        model: Classifier,
        population: Population,
        number: int,
        states: dict[int, dict[str, Tensor]],
    ) -> list[Update]:
        """Returns the messages that the server sees in round ``number``; changes ``states``."""
        shared: list[Update] = []
        for client in range(self.clients):
            own = self._batch(scene, population, number, client).to(scene.workshop.device)
            batch = scene.defense.data(own, context)
            gradient = client_gradient(model, batch, scene.defense)
            seed = derive(scene.seed, "client", number, client)
            who = Client(client, number, self.clients, model, batch, seed, states[client])
            shared.append(scene.defense.update(gradient, who))
        return list(scene.defense.protocol(shared))

    def _batch(self, scene: Scene, population: Population, number: int, client: int) -> Examples:
        """Returns the batch of one client in one round; clients own disjoint shares of the training data."""
        train = population.train
        share = torch.randperm(len(train), generator=generator(derive(scene.seed, "shares")))[client :: self.clients]
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


def client_gradient(model: Classifier, batch: Examples, defense: Defense) -> dict[str, Tensor]:
    """Returns the gradient of the defense's loss on ``batch`` by parameter name, in evaluation mode, detached."""
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    loss = defense.loss(Batch(model, batch.x, batch.y))
    values = torch.autograd.grad(loss, list(parameters.values()))
    return {name: value.detach() for name, value in zip(parameters, values, strict=True)}
