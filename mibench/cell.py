"""The story of one cell, in the order in which data flow.

Dataset -> setting and target under the defense -> view at the attack's access -> reconstruction, stored -> metrics
beside a control -> rows.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mibench.access import Ledger, View, WhiteBoxView
from mibench.attacks.base import Attack, AttackResult
from mibench.card import Card, TargetCard, family_of
from mibench.catalogue import entry
from mibench.checkpoints import Checkpoints
from mibench.composition import (
    Plan,
    build,
    component_of,
    content_of,
    folder,
    metric_blocks,
    target_block,
    version_of,
)
from mibench.data import Examples, Population, Split, shared_rows
from mibench.datasets.base import COINCIDE
from mibench.errors import IncompatibleCellError, NotGrantedError, QueryRefused, UserError
from mibench.knowledge import Knowledge
from mibench.leaderboard.rows import CellFacts, make_row
from mibench.leaderboard.shards import write_shard
from mibench.options import check_types, check_value
from mibench.priors.base import Prior, PriorData, loaded_prior, prior_key, show_prior, train_prior, trained_prior
from mibench.scoring import NAN, Score, facts_as_scores, near_chance, score
from mibench.seeding import derive
from mibench.settings.base import Observation, Scene, Setting
from mibench.store import Payload, Store
from mibench.tasks import get_task
from mibench.tasks.base import Budget, Case, Evaluator, Reconstruction, Truth
from mibench.training import Recipe, is_correct
from mibench.version import __version__, git_commit
from mibench.victim import Blueprint, Victim, Workshop, train_evaluator

log = logging.getLogger("mibench")

NO_CONTROL = "There is no control (control=none): a value alone does not say how much of it is a leak."

#: What a user is told of a model that hardly knows the data.
MISFIT = (
    "The model is near chance on the private test data, as with a wrong target.mean, target.std or target.size, or "
    "with class folders in another order than its labels; a misread model looks safe, so set this right first."
)

WEAK_CONTROL = (
    "The control victim is near chance on its own test data: it has learned little under target.recipe, so the control "
    "says little; raise target.recipe.epochs."
)

#: An evaluation model whose accuracy is this much below the victim's is said to be weak.
WEAKER = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a finished cell leaves.

    Attributes:
        scores: All numbers.
        shard: Path of the rows.
        picture: Path of the picture sheet; None where there is nothing to draw.
        notes: Sentences a reader of the numbers must know.
        curve: The victim's training loss as pairs (step, loss); empty where none was recorded.
    """

    scores: Sequence[Score]
    shard: Path
    picture: Path | None
    notes: Sequence[str]
    curve: Sequence[tuple[int, float]] = ()


class Cell:
    """One cell, each step done once and when it is needed.

    Args:
        plan: The planned cell, found compatible.
        rebuild: Whether the attack is run again although its reconstruction is stored.
        stored_only: Whether a reconstruction that is not stored is an error instead of a reason to attack.
    """

    def __init__(self, plan: Plan, rebuild: bool = False, stored_only: bool = False) -> None:
        self.plan = plan
        self.stored_only = stored_only
        self.config = plan.config
        self.rebuild = rebuild
        self.task = get_task(plan.cards.attack.task)
        self.seed = int(self.config["seed"])
        self.remarks: list[str] = []
        self.budget = Budget(**{k: self.config["budget"][k] for k in ("name", "targets", "samples", "records")})
        self.workshop = Workshop(
            Store(folder(plan, "store")), choose_device(self.config["device"]), self.config["precision"]
        )
        self.check_options()

    def run(self) -> Outcome:
        """Runs the cell to its rows, and writes them and the picture sheet."""
        scores = self.scores(metric_blocks(self.plan))
        shard = write_shard(folder(self.plan, "results"), self.plan.cell_id, self.rows(scores))
        return Outcome(scores, shard, self.draw(), self.notes, self.victim.facts.get("curve", ()))

    def check_options(self) -> None:
        """Builds every component once, so that a wrong option is said before anything is trained.

        Raises:
            UserError: Naming the option.
        """
        for axis in ("dataset", "setting", "attack", "defense"):
            build(self.config[axis])
        build({k: v for k, v in self.config["prior"].items() if k != "seed"})
        check_value("prior.seed", int, self.config["prior"].get("seed", 0))
        blueprint(self.config["target"])
        for name in (*self.config["evaluation"]["models"], *self.config["knowledge"]["companions"]):
            entry("target", name)
        _ = self.judges
        for block in metric_blocks(self.plan):
            build(block, **weights_folder(block, self.plan))
        refuse_retraining(self.plan)

    # 1. Dataset

    @cached_property
    def split(self) -> Split:
        """The dataset, parted."""
        split: Split = build(self.config["dataset"]).load()
        if self.config["control"] == "none":
            split = without_control(split)
        refuse_private_images(split)
        name, count, classes = self.plan.cards.dataset.name, len(split.private.train), split.spec.classes
        log.info("dataset   %s: %d private training examples of %d classes", name, count, classes)
        return split

    # 2.-3. Setting, target and defense give a victim

    @cached_property
    def setting(self) -> Setting:
        """How the target is trained and observed."""
        setting: Setting = build(self.config["setting"])
        return setting

    def scene(self, control: bool = False) -> Scene:
        """The parts of one victim, with a defense of its own, whose state is not shared with another victim's.

        Args:
            control: Whether it is for the control victim, which takes no weights from a file.
        """
        block, target = self.config["defense"], self.config["target"]
        if control and "weights" in target:
            target = {**target, "weights": None}
        takes_part = {"data", "input", "architecture", "training", *self.setting.card.training_hooks}
        trains = bool(takes_part & set(self.plan.cards.defense.hooks))
        key = {"config": block, "revision": self.plan.version("defense")} if trains else {}
        return Scene(
            split=self.split,
            blueprint=blueprint(target),
            defense=build(block),
            defense_key=key,
            workshop=self.workshop,
            seed=self.seed,
        )

    @cached_property
    def victim(self) -> Victim:
        """The defended target, trained on private data; of a user's own model, its accuracy is said at once."""
        scene = self.scene()
        victim = self.setting.train(scene, self.split.private, "victim")
        if scene.blueprint.pretrained:
            test = self.split.private.test
            accuracy, chance = accuracy_of(victim, test), chance_of(test)
            log.info(
                "model     right on %.0f %% of the private test data (chance %.0f %%)", 100 * accuracy, 100 * chance
            )
            if near_chance(accuracy, chance):
                log.warning("%s", MISFIT)
        return victim

    # 4. The view

    @cached_property
    def observation(self) -> Observation:
        """What the attacker sees of the victim, and what lies behind it."""
        return self.observe(self.victim, self.split.private)

    def observe(self, victim: Victim, population: Population) -> Observation:
        """Returns a fresh view of a victim, with an account of its own."""
        ledger = Ledger(self.config["query_budget"])
        count = self.task.messages(self.goal)
        return self.setting.observe(self.scene_of(victim), victim, population, self.plan.access, count, ledger)

    def scene_of(self, victim: Victim) -> Scene:
        """Returns the scene that ``victim`` belongs to."""
        return dataclasses.replace(self.scene(), defense=victim.defense)

    # 5. The attack

    @cached_property
    def goal(self) -> Any:
        """What the attack is asked for."""
        return self.task.goal(self.case(secret=None, utility={}))

    @cached_property
    def knowledge(self) -> Knowledge:
        """What the attacker brings, and nothing the cell does not grant."""
        card, split, grants = self.plan.cards.attack, self.split, self.config["knowledge"]
        wanted = {*card.needs, *card.uses}
        described: list[str] = []
        facts: dict[str, Any] = {}
        if "public" in card.needs and split.public is None:
            raise NotGrantedError(
                f"Attack '{card.name}' needs public data, and dataset '{self.plan.cards.dataset.name}' has none; give "
                "it some (image_folder: dataset.public_root=FOLDER or dataset.public_classes=K)."
            )
        public = split.public if "public" in wanted else None
        described += ["public"] if public is not None else []
        prior = None
        if "prior" in wanted and self.plan.cards.prior is not None and split.public is not None:
            if not self.plan.cards.prior.asks:
                data = PriorData(split.public, split.spec)
                prior = trained_prior(*self.prior_options, data, self.workshop, self.config["prior"]["seed"])
            described.append(f"prior:{self.config['prior']['name']}")
        described += [f"companions:{'+'.join(self.companions)}"] if self.companions else []
        if "labels" in wanted and grants["labels"]:
            labels = self.task.labels(self.case(self.observation.secret, utility={}))
            facts |= {} if labels is None else {"labels": labels.clone()}
        if card.task == "completion":
            described.append(f"masked_image:{grants['masked_image']}")
        if "marginals" in wanted and grants["marginals"]:
            facts["marginals"] = marginals(split)
        if "confusion" in wanted and grants["confusion"]:
            facts["confusion"] = confusion(self.victim, split)
        return Knowledge(
            None if public is None else public.to(self.workshop.device), prior, facts, (*described, *sorted(facts))
        )

    @property
    def prior_options(self) -> tuple[Prior, dict[str, Any]]:
        """The cell's kind of prior, and what identifies its options."""
        options, identity = (
            {k: v for k, v in node["prior"].items() if k != "seed"} for node in (self.config, self.plan.identity)
        )
        return build(options), identity

    @property
    def companions(self) -> Sequence[str]:
        """The architectures of the further models that the attacker holds; none where its attack takes none."""
        named: Sequence[str] = self.config["knowledge"]["companions"]
        return named if "companions" in self.plan.cards.attack.uses else ()

    def trained_companions(self, population: Population) -> list[Victim]:
        """Returns the further models, trained on ``population`` as the victim is, each with a seed of its own."""
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

    def ensemble(self, population: Population) -> Callable[[Ledger], tuple[WhiteBoxView, ...]]:
        """Returns what gives an attacker views of the further models, on the account of its view of the victim."""
        trained = self.trained_companions(population)

        def views(ledger: Ledger) -> tuple[WhiteBoxView, ...]:
            found = []
            for one in trained:
                view = self.setting.observe(self.scene_of(one), one, population, "white_box", 0, ledger).view
                assert isinstance(view, WhiteBoxView)
                found.append(view)
            return tuple(found)

        return views

    def knowledge_of(self, victim: Victim, population: Population, view: View) -> tuple[Knowledge, float]:
        """Returns what the attacker brings against one victim, and the seconds that took.

        A prior that asks for the victim is trained here, or comes from the store; ``view`` is charged for it.
        Companions come trained, so that their training costs the attacker nothing.
        """
        card, public, known = self.plan.cards.prior, self.split.public, self.knowledge
        if population is not self.split.private:  # whose class ids mean nothing to a victim of other people
            known = dataclasses.replace(known, facts={k: v for k, v in known.facts.items() if k != "labels"})
        if self.companions:
            known = dataclasses.replace(known, ensemble=self.ensemble(population))
        if card is None or not card.asks or public is None or "prior" not in self.plan.cards.attack.needs:
            return known, 0.0
        (prior, identity), seed, device = self.prior_options, self.config["prior"]["seed"], self.workshop.device
        data = PriorData(public, view.spec)
        key = {**prior_key(prior, identity, data, seed), "victim": dict(victim.key), "known": population.train.digest()}

        def train(own: View, checkpoints: Checkpoints) -> dict[str, Tensor]:
            assert isinstance(own, WhiteBoxView)
            with own.phase("prepare"):
                return train_prior(prior, dataclasses.replace(data, view=own, checkpoints=checkpoints), device, seed)

        payload = self.prepared("prior", key, view, lambda: self.observe(victim, population).view, train)
        ready = loaded_prior(prior, view.spec, payload.tensors, device, seed)
        show_prior(prior, ready, self.workshop.store.path("prior", key), device)
        return dataclasses.replace(known, latent_prior=ready), float(payload.facts["seconds"])

    def prepared(
        self,
        kind: str,
        key: dict[str, Any],
        view: View,
        observe: Callable[[], View],
        train: Callable[[View, Checkpoints], Mapping[str, Tensor]],
    ) -> Payload:
        """Returns what the attacker has trained beforehand, from the store where it is there, and what that cost.

        Args:
            kind: What it is.
            key: What identifies it.
            view: The attack's view, whose ledger is charged, for a stored training as for a new one.
            observe: Returns a view for the training alone.
            train: Trains with that view and returns the weights; where it was interrupted, checkpoints say.
        """

        def make() -> Payload:
            own, start = observe(), time.perf_counter()
            checkpoints = Checkpoints(self.workshop.store.unfinished_path(kind, key), own.ledger)
            try:
                weights = train(own, checkpoints)
            except QueryRefused:
                checkpoints.remove()
                view.ledger.replay(own.ledger.state())
                raise
            seconds = checkpoints.earlier + time.perf_counter() - start
            return Payload(weights, {"ledger": own.ledger.state(), "seconds": seconds})

        payload = self.workshop.store.get(kind, key, make)
        if not view.ledger.affords(payload.facts["ledger"]):
            payload = make()  # stops where it would have stopped had nothing been stored
        view.ledger.replay(payload.facts["ledger"])
        return payload

    @cached_property
    def result(self) -> AttackResult:
        """The reconstruction and what it cost, from the store where it is there."""
        return self.attack(self.victim, self.split.private, "attack", self.observation)

    def attack(
        self, victim: Victim, population: Population, label: str, observation: Observation | None = None
    ) -> AttackResult:
        """Runs the attack on one victim."""
        block, version = self.config["attack"], self.plan.version("attack")
        method: Attack[Any, Any] = build(block)
        goal = self.goal
        sees_victim = self.plan.access != "none"
        key: dict[str, Any] = {
            "cell": {k: v for k, v in self.plan.identity.items() if k not in ("evaluation", "target", "dataset")},
            "victim": dict(victim.key) if sees_victim else {},
            "data": [
                population.train.digest() if sees_victim else "",
                "" if self.split.public is None else self.split.public.digest(),
                "" if self.split.held_out is None else self.split.held_out.digest(),  # its classes bound the targets
                self.split.sensitive,
                *self.task.held(goal),
            ],
            "knowledge": self.knowledge.names(),
        }
        if self.companions:
            key["companions"] = [dict(one.key) for one in self.trained_companions(population)]

        def make() -> Payload:
            if self.stored_only:
                raise UserError(
                    "The reconstruction of this cell is no longer in the store; run it again with overwrite=always."
                )
            view = (observation or self.observe(victim, population)).view
            try:
                knowledge, preparing = self.knowledge_of(victim, population, view)
                networks = method.untrained(view, knowledge, self.seed)
                if len(networks):
                    trained = self.prepared(
                        "attack_model",
                        {**key, "revision": version},
                        view,
                        lambda: self.observe(victim, population).view,
                        lambda own, _: method.trained(own, knowledge, self.seed).state_dict(),
                    )
                    networks.load_state_dict(dict(trained.tensors))
                    preparing += trained.facts["seconds"]
            except QueryRefused as refusal:
                nothing = {"ledger": view.ledger.state(), "seconds": NAN, "peak_memory_mb": NAN}
                return Payload(self.task.blank(goal, view.spec).tensors(), {**nothing, "stopped": str(refusal)})
            result = method(view, knowledge, goal, seed=self.seed, networks=networks.eval(), label=label)
            cost = {
                "ledger": result.ledger,
                "seconds": preparing + result.seconds,
                "peak_memory_mb": result.peak_memory_mb,
            }
            return Payload(result.reconstruction.tensors(), {**cost, "stopped": result.stopped})

        payload = self.workshop.store.get("reconstruction", key, make, rebuild=self.rebuild)
        return AttackResult(Reconstruction(**payload.tensors), **payload.facts)

    # 6. Truth, control and metrics

    def case(self, secret: Any, utility: dict[str, Any]) -> Case:
        """Returns what task, truth and control are made from."""
        return Case(
            split=self.split,
            budget=self.budget,
            seed=self.seed,
            batch_size=max(1, self.setting.batch_size),
            known_columns=self.config["knowledge"]["known_columns"],
            masked_image=self.config["knowledge"]["masked_image"],
            secret=secret,
            utility=utility,
            evaluators=self.evaluators,
            attack_held_out=self.attack_held_out,
            victim=lambda: self.victim.module,
        )

    @cached_property
    def full_case(self) -> Case:
        """The case with the secret and the victim's utility."""
        test = self.split.private.test
        correct = is_correct(self.victim.predict_proba, test.to(self.workshop.device))
        utility = {"correct": correct, "chance": chance_of(test), "facts": self.victim.reported}
        return self.case(self.observation.secret, utility)

    @cached_property
    def truth(self) -> Truth:
        """What the metrics compare with."""
        truth: Truth = self.task.truth(self.full_case, self.goal)
        return truth

    @cached_property
    def control(self) -> Reconstruction | None:
        """What comes out without the leak."""
        return self.task.control(self.full_case, self.goal, self.knowledge, self.result.reconstruction)

    def attack_held_out(self, population: Population) -> Reconstruction:
        """Returns the same attack's result on a victim trained, under the same defense, on held-out data."""
        victim = self.setting.train(self.scene(control=True), population, "control victim")
        if "weights" in self.config["target"] and near_chance(
            accuracy_of(victim, population.test), chance_of(population.test)
        ):
            self.remarks.append(WEAK_CONTROL)
        return self.attack(victim, population, "control attack").reconstruction

    @property
    def judges(self) -> list[Card]:
        """The architectures of the evaluation models: neither the victim's nor a companion's.

        Raises:
            UserError: If companions leave none.
        """
        options, modality = self.config["evaluation"], self.plan.cards.dataset.modalities[0]
        holds = {self.config["target"]["name"], *(architecture(name) for name in self.companions)}
        cards = [entry("target", name).card for name in options["models"] if not holds & {name, architecture(name)}]
        suited = [card for card in cards if modality in card.modalities]
        if options["count"] and self.companions and not suited:
            raise UserError(
                f"evaluation.models=[{', '.join(options['models'])}] names no architecture that the attacker does not "
                f"hold (the victim's, and knowledge.companions=[{', '.join(self.companions)}]); add another one to "
                "evaluation.models or leave one out of knowledge.companions."
            )
        return suited[: options["count"]]

    def evaluators(self) -> Sequence[Evaluator]:
        """Returns the evaluation models: other architectures and seeds than the victim's, on raw private data."""
        ready = []
        for card in self.judges:
            name, plans = card.name, blueprint(self.evaluator_block(card.name))
            model, accuracy = train_evaluator(plans, self.split, self.workshop, self.config["evaluation"]["seed"])
            ready.append(Evaluator(name, model, accuracy))
        return ready

    def evaluator_block(self, name: str) -> dict[str, Any]:
        """Returns the target block of an evaluation model, trained at least as long as the cell says."""
        block, least = target_block(self.plan, name), self.config["evaluation"]["min_steps"]
        if least is not None:
            block["recipe"] = {**block["recipe"], "min_steps": max(least, block["recipe"].get("min_steps", 0))}
        return block

    def scores(self, metrics: Sequence[dict[str, Any]]) -> list[Score]:
        """Returns the numbers of the stored reconstruction under the given metrics."""
        result = self.task.align(self.result.reconstruction, self.truth)
        control = None if self.control is None else self.task.align(self.control, self.truth)
        numbers = []
        for block in metrics:
            numbers += score(build(block, **weights_folder(block, self.plan)), result, control, self.truth, self.seed)
        return numbers + facts_as_scores(self.truth)

    # 7. Rows and pictures

    @cached_property
    def notes(self) -> Sequence[str]:
        """What a reader of the numbers must know of split and victim, and of evaluators weak or of its kind."""
        accuracy, chance = float(self.truth.correct.double().mean()), self.truth.chance
        retrained = self.task.name in ("class", "completion")
        said = list(self.split.notes) if retrained else []
        said += [NO_CONTROL] if self.config["control"] == "none" and retrained else []
        said += self.remarks
        if near_chance(accuracy, chance):
            said.append(
                MISFIT
                if self.config["target"].get("weights")
                else f"The defended victim is right on {accuracy:.0%} of its test data, near the {chance:.0%} of "
                "naming one class always: it has learned little, so a small leak would be no merit of a defense."
            )
        said += [
            f"Evaluation model '{one.name}' is right on {one.accuracy:.0%} of the test data, less than the victim's "
            f"{accuracy:.0%}: its verdicts are weak; train it longer (evaluation.min_steps=1000) or take another "
            "(evaluation.models)."
            for one in self.truth.evaluators
            if one.accuracy < accuracy - WEAKER
        ]
        family = family_of(self.plan.cards.target, self.config["target"])
        said += [
            f"Evaluation model '{one.name}' is of the victim's family ({family}): it accepts texture made against the "
            "victim more easily; choose others with evaluation.models."
            for one in self.truth.evaluators
            if family and family == evaluator_family(self.plan, one.name)
        ]
        return said

    def facts(self) -> CellFacts:
        """Returns what all rows of the cell share."""
        cards, result = self.plan.cards, self.result
        return CellFacts(
            cell_id=self.plan.cell_id,
            group_id=self.plan.group_id,
            knowledge=",".join(self.knowledge.names()),
            queries=sum(result.ledger["queries"].values()),
            gradient_evals=sum(result.ledger["gradients"].values()),
            seconds=result.seconds,
            peak_memory_mb=result.peak_memory_mb,
            device=str(self.workshop.device),
            notes="\n".join(self.notes),
            **plan_facts(self.plan),
            modality=cards.dataset.modalities[0],
        )

    def rows(self, scores: Sequence[Score]) -> list[dict[str, Any]]:
        """Returns one row per number."""
        facts = self.facts()
        return [make_row(facts, one) for one in scores]

    def draw(self) -> Path | None:
        """Draws the sheet nearest private image | reconstruction | control; None for data that are no images."""
        if self.split.spec.modality != "image":
            return None
        from mibench.sheet import draw_cell

        path = folder(self.plan, "results") / "pictures" / f"{self.plan.cell_id}.png"
        result = self.task.align(self.result.reconstruction, self.truth)
        control = None if self.control is None else self.task.align(self.control, self.truth)
        return draw_cell(path, self.plan, self.split, self.truth, result, control)


def blueprint(block: dict[str, Any]) -> Blueprint:
    """Returns how the classifier of a resolved target block is made."""
    component_of(block)
    check_types("target.recipe", Recipe, block.get("recipe"))
    recipe = Recipe(**block["recipe"])
    key = {"config": content_of(block), "revision": version_of(block)}
    return Blueprint(block["name"], lambda spec: build(block, spec=spec), recipe, key, bool(block.get("weights")))


def architecture(name: str) -> str:
    """Returns the name of a target's architecture: its own, or that of the entry it is a variant of."""
    return entry("target", name).card.variant_of or name


def refuse_retraining(plan: Plan) -> None:
    """Refuses a defense that takes part in training for a model that comes with its weights.

    Raises:
        IncompatibleCellError: In one sentence.
    """
    hooks = [hook for hook in plan.cards.defense.hooks if hook in ("data", "input", "architecture", "training")]
    if plan.config["target"].get("weights") and hooks:
        raise IncompatibleCellError(
            f"Incompatible: defense '{plan.cards.defense.name}' acts on {', '.join(hooks)}, so it would need the "
            "model trained again, but target.weights is a finished one; leave target.weights out to train its "
            "architecture under the defense."
        )


def refuse_private_images(split: Split) -> None:
    """Refuses a split whose public images, of which priors are made, hold a private one.

    Raises:
        UserError: Saying how many there are.
    """
    if split.spec.modality != "image" or split.public is None:
        return
    if rows := shared_rows(split.public.x, split.private.train.x, split.private.test.x):
        raise UserError(
            f"{len(rows)} of the {len(split.public)} public images (the first is number {rows[0]}) are private ones "
            "too, so the attacker would own what is to be protected; take them out of the public data."
        )


def without_control(split: Split) -> Split:
    """Returns the split without data for a control victim."""
    notes = tuple(note for note in split.notes if note != COINCIDE)
    return dataclasses.replace(split, held_out=None, held_out_is_public=False, notes=notes)


def accuracy_of(victim: Victim, data: Examples) -> float:
    """Returns the share of examples that the defended victim is right on."""
    return float(is_correct(victim.predict_proba, data).double().mean())


def chance_of(data: Examples) -> float:
    """Returns the accuracy of always naming the most frequent class."""
    return float(data.y.bincount().max()) / len(data)


def choose_device(name: str) -> torch.device:
    """Returns the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: If CUDA is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda was asked for, but torch sees no CUDA device here; use device=auto or device=cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def marginals(split: Split) -> list[Tensor]:
    """Returns, per column, the published values of the training population and how frequent each is.

    Categorical columns give frequencies of shape ``(choices,)``; numeric ones the midpoints of four equally frequent
    bins.
    """
    published = []
    for index, column in enumerate(split.spec.columns):
        values = split.private.train.x[:, index]
        if column.categorical:
            published.append(values.long().bincount(minlength=len(column.values)).double() / len(values))
        else:
            published.append(torch.quantile(values.double(), torch.tensor([0.125, 0.375, 0.625, 0.875]).double()))
    return published


def confusion(victim: Victim, split: Split) -> Tensor:
    """Returns the victim's published confusion matrix on test data, rows = true classes, each summing to 1."""
    test = split.private.test
    predicted = victim.predict_proba(test.x).argmax(1).cpu()
    counts = torch.zeros(split.spec.classes, split.spec.classes, dtype=torch.float64)
    counts.index_put_((test.y, predicted), torch.ones(len(test), dtype=torch.float64), accumulate=True)
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


def evaluator_family(plan: Plan, name: str) -> str:
    """Returns the family of an evaluation model's architecture."""
    card = entry("target", name).card
    assert isinstance(card, TargetCard)
    return family_of(card, target_block(plan, name))


def weights_folder(block: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Returns the folder of pre-trained networks for metrics that say they use one."""
    return {"weights": folder(plan, "weights")} if block.get("weights", "") is None else {}


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Returns the facts of a cell that are known before it runs, without ids, knowledge, modality and cost."""
    cards, config = plan.cards, plan.config
    return {
        "dataset": cards.dataset.name,
        "setting": cards.setting.name,
        "target": cards.target.name,
        "attack": cards.attack.name,
        "attack_family": cards.attack.family,
        "task": cards.attack.task,
        "access": plan.access,
        "defense": cards.defense.name,
        "defense_hooks": ",".join(cards.defense.hooks),
        "seed": int(config["seed"]),
        "budget": config["budget"]["name"],
        "fidelity": cards.attack.fidelity,
        "mibench_version": __version__,
        "git_commit": git_commit(),
        "config": json.dumps(plan.description, sort_keys=True),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
