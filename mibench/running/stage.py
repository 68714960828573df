"""What stands before an attacker comes: the dataset and every model that mibench trains on its own account.

These are the victim, further victims of the same people (companions) and the evaluation models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mibench.access import Server
from mibench.card import HOOKS_OF_TRAINING, Card, TargetCard
from mibench.data import Population, Split, shared_rows
from mibench.datasets.base import COINCIDE, Dataset
from mibench.defenses.base import Defense
from mibench.errors import IncompatibleCellError, UserError, WeightsMissingError
from mibench.options import check_types
from mibench.planning.cards import family_of
from mibench.planning.catalogue import entry
from mibench.planning.composition import build, part_of
from mibench.planning.identity import content_of, evaluation_key, version_of, without_later
from mibench.planning.plan import Plan, folder, target_block
from mibench.priors.base import Prior
from mibench.running.finished import accuracy_of, doubts_of
from mibench.seeding import derive
from mibench.settings.base import Scene, Setting
from mibench.settings.captured import CapturedSetting
from mibench.settings.evaluators import (
    embedding_evaluator,
    lengthened,
    refuse_unknown,
    train_evaluator,
    with_votes,
)
from mibench.settings.victim import Blueprint, Victim
from mibench.storage.store import Store
from mibench.storage.workshop import Workshop
from mibench.tasks.base import Evaluator
from mibench.training import Recipe, is_correct

log = logging.getLogger("mibench")


class Stage:
    """Dataset and models of one cell, each made once and when it is needed.

    Args:
        plan: The planned cell, found compatible.

    Attributes:
        doubts: What speaks against the way a finished model is read; known once the victim is.
    """

    doubts: tuple[str, ...] = ()

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.config = plan.config
        self.seed = int(self.config["seed"])
        self.workshop = Workshop(
            Store(folder(plan, "store")), choose_device(self.config["device"]), self.config["precision"]
        )
        self.dataset: Dataset = plan.part("dataset").make()
        self._setting: Setting = plan.part("setting").make()
        self.prior: Prior = plan.part("prior").make()
        self._defense: Defense | None = plan.part("defense").make()
        blueprint(self.config["target"])
        for name in (*self.config["evaluation"]["models"], *self.config["knowledge"]["companions"]):
            entry("target", name)
        refuse_unknown(self.config["evaluation"]["embeddings"])
        _ = self.judges

    @cached_property
    def split(self) -> Split:
        """The dataset, parted."""
        split = self.dataset.load()
        if self.config["control"] == "none":
            split = without_control(split)
        refuse_private_images(split)
        for card in (self.plan.cards.attack, self.plan.cards.target):  # a captured update says what it is of
            if split.spec.modality not in card.modalities:
                raise IncompatibleCellError(
                    f"Incompatible: '{card.name}' works on {', '.join(card.modalities)} data, but the dataset's "
                    f"file is of {split.spec.modality} data."
                )
        log.info("dataset   %s: %s", self.plan.cards.dataset.name, split.summary())
        return split

    @cached_property
    def setting(self) -> Setting:
        """The setting; for an update from elsewhere it is ``captured``, whatever setting the cell names."""
        if self.split.captured is None or isinstance(self._setting, CapturedSetting):
            return self._setting
        log.warning("dataset=captured_update runs in setting=captured; no client of setting=%s is there.",
                    self._setting.card.name)  # fmt: skip
        return CapturedSetting(batch_norm=self.config["setting"].get("batch_norm", "train"))

    @property
    def server(self) -> tuple[Server, dict[str, Any]]:
        """Who serves the clients, and what identifies it; the honest server has nothing to identify."""
        return Server(), {}

    def fresh_defense(self) -> Defense:
        """Return a defense whose state no other victim shares; the first one is that which was made to be checked."""
        made, self._defense = self._defense, None
        return made if made is not None else self.plan.part("defense").make()

    def scene(self, control: bool = False, defense: Defense | None = None) -> Scene:
        """Return the parts of one victim.

        Args:
            control: Whether it is for the control victim, which takes no weights from a file.
            defense: The victim's defense; None makes one, whose state is not shared with another victim's.
        """
        block, target = self.config["defense"], self.config["target"]
        if control and "weights" in target:
            target = {**target, "weights": None}
        target = self.setting.normalised(self.split, target)
        takes_part = {*HOOKS_OF_TRAINING, *self.setting.card.training_hooks}
        trains = bool(takes_part & set(self.plan.cards.defense.hooks))
        identity = {"config": without_later("defense", block), "revision": self.plan.version("defense")}
        return Scene(
            split=self.split,
            blueprint=blueprint(target),
            defense=self.fresh_defense() if defense is None else defense,
            defense_key=identity if trains else {},
            workshop=self.workshop,
            seed=self.seed,
            learner=identity,
            server=self.server[0],
            server_key=self.server[1],
        )

    def scene_of(self, victim: Victim) -> Scene:
        """Return the scene that ``victim`` belongs to."""
        return self.scene(defense=victim.defense)

    @cached_property
    def victim(self) -> Victim:
        """The defended target, trained on private data; of a user's own model, its accuracy is said at once."""
        scene = self.scene()
        victim = self.setting.train(scene, self.split.private, "victim")
        test = self.split.private.test
        if scene.blueprint.pretrained and len(test):
            self.doubts = tuple(doubts_of(victim, self.split, self.plan.cards.dataset))
            for sentence in self.doubts:
                log.warning("%s", sentence)
        return victim

    @property
    def companions(self) -> Sequence[str]:
        """The architectures of the further models that the attacker holds; none where its attack takes none."""
        named: Sequence[str] = self.config["knowledge"]["companions"]
        return named if "companions" in self.plan.cards.attack.uses else ()

    def trained_companions(self, population: Population) -> list[Victim]:
        """Return the further models, trained on ``population`` as the victim is, each with a seed of its own."""
        return [
            self.setting.train(
                dataclasses.replace(
                    self.scene(),
                    blueprint=blueprint(target_block(self.plan, name)),
                    seed=derive(self.seed, "companion", position),
                ),
                population,
                f"companion {name}",
            )
            for position, name in enumerate(self.companions)
        ]

    def federated_answers(self, options: Mapping[str, Any], defended: bool) -> Tensor:
        """Return whether a global model is right on each private test example, trained as the setting would do it.

        The server is honest, whatever the attack plants. Classes of a batch need not differ, and a batch is no larger
        than what a client owns.

        Args:
            options: Options of the setting to be used instead of the cell's.
            defended: Whether the cell's defense takes part.
        """
        block = self.config["setting"]
        shared = block["batch_norm"] == "train"  # or the server could not test what it trains
        owned = max(1, len(self.split.private.train) // block["clients"])
        options = {**options, "batch_size": min(options["batch_size"], owned), "unique_labels": False}
        setting: Setting = build({**block, "pooled_epochs": 0, "share_buffers": shared, **options})
        scene = dataclasses.replace(self.scene(), server=Server(), server_key={})
        if not defended:
            scene = dataclasses.replace(scene, defense=Defense(), defense_key={})
        victim = setting.train(scene, self.split.private, "federated training")
        return is_correct(victim.predict_proba, self.split.private.test.to(self.workshop.device))

    @property
    def judges(self) -> list[Card]:
        """The architectures that are trained as evaluation models: neither the victim's nor a companion's.

        Those of other families than the victim's come first.

        Raises:
            UserError: If companions leave none.
        """
        options, modality = self.config["evaluation"], self.plan.cards.modalities[0]
        holds = {self.config["target"]["name"], *(architecture(name) for name in self.companions)}
        names = (*self.plan.cards.dataset.judges, *options["models"])
        cards = [entry("target", name).card for name in names if not holds & {name, architecture(name)}]
        suited = [card for card in cards if modality in card.modalities]
        if options["count"] and self.companions and not suited:
            raise UserError(
                f"evaluation.models=[{', '.join(options['models'])}] names no architecture that the attacker does not "
                f"hold (the victim's, and knowledge.companions=[{', '.join(self.companions)}]); add another one to "
                "evaluation.models or leave one out of knowledge.companions."
            )
        family = family_of(self.plan.cards.target, self.config["target"])
        suited.sort(key=lambda card: bool(family) and evaluator_family(self.plan, card.name) == family)
        return suited[: options["count"]]

    @cached_property
    def undefended_accuracy(self) -> float:
        """The accuracy on private test data of the cell's target without its defense; NaN where there are none.

        An honest server serves it. A model that came finished is taken as it is.
        """
        test = self.split.private.test
        if not len(test):
            return float("nan")
        plain = dataclasses.replace(
            self.scene(defense=Defense()), defense_key={}, learner={}, server=Server(), server_key={}
        )
        victim = self.setting.train(plain, self.split.private, "undefended target")
        return accuracy_of(victim, test.to(self.workshop.device))

    @cached_property
    def evaluators(self) -> Sequence[Evaluator]:
        """The evaluation models, with their votes: classifiers trained on raw private data, and of faces embeddings."""
        options = self.config["evaluation"]
        if not options["count"]:
            return ()
        target = self.undefended_accuracy
        trained = [
            train_evaluator(
                (blueprint(self.evaluator_block(card.name, 2**doubled)) for doubled in range(options["rounds"])),
                self.split,
                self.workshop,
                options["seed"],
                evaluation_key(self.plan.cards.attack.task),
                target,
            )
            for card in self.judges
        ]
        return with_votes([*trained, *self.embeddings.values()], target)

    @cached_property
    def embeddings(self) -> dict[str, Evaluator]:
        """The face embeddings that judge, by name: none where images show no faces, and none whose file is missing."""
        options, found = self.config["evaluation"], {}
        if self.split.subject == "face" and options["count"]:
            for name in options["embeddings"]:
                with contextlib.suppress(WeightsMissingError):
                    found[name] = embedding_evaluator(name, folder(self.plan, "weights"), self.split, self.workshop)
        return found

    def evaluator_block(self, name: str, times: int = 1) -> dict[str, Any]:
        """Return the target block of an evaluation model.

        It is trained ``times`` as long as its recipe and ``evaluation.min_steps`` say, on mirrored images too where
        these show the same class.
        """
        block, least = target_block(self.plan, name), self.config["evaluation"]["min_steps"]
        recipe = block["recipe"]
        if least is not None:
            recipe = {**recipe, "min_steps": max(least, recipe.get("min_steps", 0))}
        if self.split.spec.mirrored:
            recipe = {**recipe, "flip": True}
        return {**block, "recipe": lengthened(recipe, times)}


def blueprint(block: dict[str, Any]) -> Blueprint:
    """Return how the classifier of a resolved target block is made."""
    part = part_of(block)
    check_types("target.recipe", Recipe, block.get("recipe"))
    recipe = Recipe(**block["recipe"])
    key = {"config": content_of(without_later("target", block)), "revision": version_of(block)}
    return Blueprint(block["name"], lambda spec: part.make(spec=spec), recipe, key, bool(block.get("weights")))


def architecture(name: str) -> str:
    """Return the name of a target's architecture: its own, or that of the entry it is a variant of."""
    return entry("target", name).card.variant_of or name


def evaluator_family(plan: Plan, name: str) -> str:
    """Return the family of an evaluation model's architecture."""
    card = entry("target", name).card
    assert isinstance(card, TargetCard)
    return family_of(card, target_block(plan, name))


def refuse_private_images(split: Split) -> None:
    """Refuse a split whose public images, of which priors are made, hold a private one.

    Raises:
        UserError: Saying how many there are.
    """
    if split.spec.columns or split.public is None:
        return
    if rows := shared_rows(split.public.x, split.private.train.x, split.private.test.x):
        raise UserError(
            f"{len(rows)} of the {len(split.public)} public inputs (the first is number {rows[0]}) are private ones "
            "too, so the attacker would own what is to be protected; take them out of the public data."
        )


def without_control(split: Split) -> Split:
    """Return the split without data for a control victim."""
    notes = tuple(note for note in split.notes if note != COINCIDE)
    return dataclasses.replace(split, held_out=None, held_out_is_public=False, notes=notes)


def choose_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: If CUDA is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda was asked for, but torch sees no CUDA device here; use device=auto or device=cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
