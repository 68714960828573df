"""Setting ``split``: a network cut in two, whose clients send features, seen by the server (or on the way to it).

The target is trained centrally under the defense, on all private data, and then served in two parts (split learning,
Gupta and Raskar, 2018, at the end of its training; collaborative inference, He et al., ACSAC 2019): a client runs the
stages up to ``cut`` on its inputs and sends their output after the defense's ``features`` hook, the server does the
rest. What is attacked is what clients send for private training examples; clients own disjoint shares of them.

Answers take the same way: the served accuracy is that of client part, ``features`` hook and server part. Random hooks
draw anew for every answer, for every query of the attacker and for every of the ``sends``.

What the attacker holds of the client's part is ``knowledge.encoder``. By default it is the ``weights``: here one party
trains the whole network, cuts it and hands the first part to every client, so the server that listens has it, and on
the clients' devices it is no secret either. Where clients train their part themselves and keep it, ``architecture`` is
the realistic choice; where they run a sealed program that anyone may use, ``query``. Whoever has one of these is taken
to have the weaker ones too, and the row's ``knowledge`` says what of it the attack used.

Where an attack plants a server, the target is trained across the cut: the clients' part learns from the gradients that
this server returns for its features (:mod:`mibench.settings.across`).
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mibench.access import FeaturesView, Ledger
from mibench.card import DefenseCard, SettingCard
from mibench.data import Population, Split
from mibench.errors import IncompatibleCellError, UserError
from mibench.options import Count, CountOrNone
from mibench.seeding import derive, generator, seeded
from mibench.settings.across import TrainingAcross
from mibench.settings.base import Observation, Scene, Setting
from mibench.settings.victim import SENT_AT_ONCE, Victim, initial_model


class SplitLearning(Setting):
    """A trained network whose first stages run at the clients."""

    card = SettingCard(
        name="split",
        title="Split learning, collaborative inference",
        modalities=("image",),
        access=("features",),
        clients=True,
    )

    cut: CountOrNone = 0
    """The last stage that clients run, counted from 0."""
    batch_size: Count = 1
    """Inputs of one client."""
    sends: Count = 1
    """Times that a client sends the features of the same inputs, which a random defense draws anew."""

    def inputs_behind(self, split: Split, defense: DefenseCard) -> int:
        """Return the inputs of one client."""
        return self.batch_size

    def described(self, defense: DefenseCard, batch_norm: bool) -> Sequence[str]:
        """Return a sentence on the cut and on what clients send."""
        times = f", {self.sends} times" if self.sends > 1 else ""
        inputs = f"{self.batch_size} inputs" if self.batch_size > 1 else "one input"
        return [f"A client sends what stage {self.cut} of the network makes of {inputs}{times}."]

    def train(self, scene: Scene, population: Population, label: str) -> Victim:
        """Return the victim, from the store where it is there; undefended it is that of the setting ``central``."""
        key: dict[str, Any] = {"role": "victim", "setting": "central", "defense": dict(scene.defense_key)}
        if scene.defense_key:  # a defense may act at the cut
            key |= {"setting": [self.card.name, self.card.revision], "cut": self.cut}
        if not scene.server_key:
            return scene.train(population, key, label, self.cut)
        key |= {"setting": [self.card.name, self.card.revision], "cut": self.cut, "server": dict(scene.server_key)}
        return scene.train(population, key, label, self.cut, partial(TrainingAcross, server=scene.server))

    def observe(
        self, scene: Scene, victim: Victim, population: Population, access: str, count: int, ledger: Ledger
    ) -> Observation:
        """Return what the first ``count`` clients send, and their inputs as the secret."""
        if access != "features":
            raise UserError(f"Setting 'split' does not offer access '{access}'.")
        train, wanted = population.train, count * self.batch_size
        if wanted > len(train):
            raise UserError(
                f"{count} clients with setting.batch_size={self.batch_size} need {wanted} private training examples, "
                f"but there are {len(train)}; lower setting.batch_size or budget.targets."
            )
        secret = train[torch.randperm(len(train), generator=generator(derive(scene.seed, "clients")))[:wanted]]
        queries = itertools.count()

        def send(x: Tensor, *names: object) -> Tensor:
            with seeded(derive(scene.seed, *names)):
                return victim.sent(x)

        def ask(x: Tensor) -> Tensor:
            return torch.cat([send(part, "query", next(queries)) for part in x.split(SENT_AT_ONCE)])

        clients = secret.x.split(self.batch_size)
        observed = [
            torch.cat([send(x, "client", number, repeated) for number, x in enumerate(clients)])
            for repeated in range(self.sends)
        ]
        view = FeaturesView.of(
            victim.module,
            torch.stack(observed),
            victim.spec,
            ledger,
            scene.workshop.device,
            ask=ask,
            untrained=lambda seed: self._untrained(scene, victim, population, seed),
        )
        return Observation(view, secret)

    def _untrained(self, scene: Scene, victim: Victim, population: Population, seed: int) -> nn.Module:
        """Return the client's part with weights drawn from ``seed``, which the victim never had.

        Raises:
            IncompatibleCellError: If the architecture comes with its weights.
        """
        if scene.blueprint.pretrained:
            raise IncompatibleCellError(
                "Incompatible: an attack that has the architecture only begins with weights of its own, but "
                "target.weights brings the model's; choose an attack that has the weights or queries."
            )
        context = scene.context(population.train)
        context = dataclasses.replace(context, seed=derive(seed, "untrained"), cut=self.cut)
        return initial_model(scene.blueprint, victim.spec, copy.deepcopy(scene.defense), context).client.eval()
