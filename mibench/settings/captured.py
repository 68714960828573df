"""Setting ``captured``: one update that a client of somebody's own system sent, and the model that it started from.

Nothing is trained and no client exists here: the dataset (:mod:`mibench.datasets.captured_update`) brings the message,
with the inputs behind it where they are known, and the target comes with its weights.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

from mibench.access import GradientsView, Ledger, LocalTraining
from mibench.card import DefenseCard, SettingCard
from mibench.data import Captured, Population, Split
from mibench.errors import UserError
from mibench.nn.batch_norm import use_batch_statistics
from mibench.settings.base import Observation, Scene, Setting
from mibench.settings.updates import named_as_the_model
from mibench.settings.victim import Victim, initial_model


class CapturedSetting(Setting):
    """A message from elsewhere."""

    card = SettingCard(
        name="captured",
        title="A captured update",
        modalities=("image", "text", "tabular", "audio", "graph"),
        access=("gradients",),
    )

    batch_norm: Literal["train", "eval"] = "train"
    """Whether the client normalised by its batch's own statistics (``train``) or by the model's (``eval``)."""

    def messages(self, split: Split) -> int:
        """Return 1."""
        return 1

    def inputs_behind(self, split: Split, defense: DefenseCard) -> int:
        """Return the inputs behind the update."""
        return captured_of(split).batch_size

    def normalised(self, split: Split, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return a target's options with the mean and standard deviation that the update came with.

        Raises:
            UserError: If the target takes none.
        """
        captured = captured_of(split)
        said = {"mean": captured.mean, "std": captured.std}
        given = {key: list(value) for key, value in said.items() if value is not None}
        if given and "mean" not in target:
            raise UserError(
                "The mean and std that come with an update are those of a model of your own; set target=checkpoint "
                f"with target.factory and target.weights (target={target['name']} normalises by itself)."
            )
        return {**target, **given}

    def train(self, scene: Scene, population: Population, label: str) -> Victim:
        """Return the user's model, which is not trained.

        Raises:
            UserError: If the target has no weights, or the defense would have had a part in the update.
        """
        captured = captured_of(scene.split)
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
        model = initial_model(scene.blueprint, scene.split.spec, scene.defense, scene.context(population.train)).eval()
        key = {"role": "victim", "setting": self.card.name, "target": scene.blueprint.key, "update": captured.digest()}
        return Victim(model, scene.defense, scene.split.spec, key)

    def observe(
        self, scene: Scene, victim: Victim, population: Population, access: str, count: int, ledger: Ledger
    ) -> Observation:
        """Return the captured update as the one message."""
        captured, model = captured_of(scene.split), copy.deepcopy(victim.module)
        message = named_as_the_model(captured.update, model)
        if not any(bool(value.any()) for value in message.values()):
            raise UserError(
                "The captured update is zero in every entry, so it says nothing of the inputs; save the parameters as "
                "they were before the training (cloned, as training changes them in place) minus those after it."
            )
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
        return Observation(view, captured.secret, labels=captured.labels)


def captured_of(split: Split) -> Captured:
    """Return the update of a split.

    Raises:
        UserError: If it has none.
    """
    if split.captured is None:
        raise UserError("setting=captured attacks an update from elsewhere; set dataset=captured_update.")
    return split.captured
