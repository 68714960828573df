"""The story of one cell, in the order in which data flow.

Dataset -> setting and target under the defense (:mod:`mibench.running.stage`) -> view at the attack's access ->
reconstruction, stored -> metrics beside a control -> rows.
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
from torch import Tensor, nn

from mibench.access import FeaturesView, GradientsView, Ledger, ServiceView, View, WhiteBoxView
from mibench.attacks.base import Attack, AttackResult
from mibench.card import family_of
from mibench.data import Population, Split
from mibench.defenses.base import Defense
from mibench.errors import NotGrantedError, QueryRefused, UserError
from mibench.knowledge import Knowledge
from mibench.leaderboard.rows import CellFacts, make_row
from mibench.leaderboard.scoring import NAN, Score, facts_as_scores, near_chance, score
from mibench.leaderboard.shards import write_shard
from mibench.model import named
from mibench.options import check_value
from mibench.planning.catalogue import entry
from mibench.planning.composition import (
    Plan,
    build,
    folder,
    metric_blocks,
)
from mibench.priors.base import Prior, PriorData, loaded_prior, prior_key, show_prior, train_prior, trained_prior
from mibench.running.stage import (
    MISFIT,
    Stage,
    accuracy_of,
    blueprint,
    chance_of,
    evaluator_family,
    refuse_retraining,
)
from mibench.settings.base import Observation, Setting
from mibench.settings.victim import TRAINING_SECONDS, Victim
from mibench.storage.checkpoints import Checkpoints
from mibench.storage.store import Payload
from mibench.tasks import get_task
from mibench.tasks.base import Budget, Case, Reconstruction, Truth
from mibench.training import is_correct
from mibench.version import __version__, git_commit

log = logging.getLogger("mibench")

NO_CONTROL = "There is no control (control=none): a value alone does not say how much of it is a leak."

WEAK_CONTROL = (
    "The control victim is near chance on its own test data: it has learned little under target.recipe, so the control "
    "says little; raise target.recipe.epochs."
)

#: What is said of a defense that takes part in training and serves a model that came trained.
UNTRAINED = (
    "The model came trained, so defense '{name}' acts on its {serves} alone: it was not trained with the defense "
    "({hooks}), and may lose more utility, and hide less or more, than one that was."
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


class Cell(Stage):
    """One cell, each step done once and when it is needed.

    Args:
        plan: The planned cell, found compatible.
        rebuild: Whether the attack is run again although its reconstruction is stored.
        stored_only: Whether a reconstruction that is not stored is an error instead of a reason to attack.
    """

    def __init__(self, plan: Plan, rebuild: bool = False, stored_only: bool = False) -> None:
        super().__init__(plan)
        self.stored_only = stored_only
        self.rebuild = rebuild
        self.task = get_task(plan.cards.attack.task)
        self.remarks: list[str] = []
        self.budget = Budget(**{k: self.config["budget"][k] for k in ("name", "targets", "samples", "records")})
        self.check_options()

    def run(self) -> Outcome:
        """Run the cell to its rows, and write them and the picture sheet."""
        scores = self.scores(metric_blocks(self.plan))
        shard = write_shard(folder(self.plan, "results"), self.plan.cell_id, self.rows(scores))
        return Outcome(scores, shard, self.draw(), self.notes, self.victim.facts.get("curve", ()))

    def check_options(self) -> None:
        """Build every component once, so that a wrong option is said before anything is trained.

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
        _ = self.judges, self.repeats
        for block in metric_blocks(self.plan):
            build(block, **weights_folder(block, self.plan))
        refuse_retraining(self.plan)

    # 4. The view (1. dataset, 2.-3. setting, target and defense: see Stage)

    @cached_property
    def observation(self) -> Observation:
        """What the attacker sees of the victim, and what lies behind it."""
        return self.observe(self.victim, self.split.private)

    def observe(self, victim: Victim, population: Population) -> Observation:
        """Return a fresh view of a victim, with an account of its own."""
        ledger = Ledger(self.config["query_budget"])
        count = self.task.messages(self.goal)
        seen = self.setting.observe(self.scene_of(victim), victim, population, self.plan.access, count, ledger)
        if isinstance(seen.view, GradientsView):
            seen = dataclasses.replace(seen, view=self.granted(seen.view))
        if isinstance(seen.view, ServiceView):
            seen = dataclasses.replace(seen, view=dataclasses.replace(seen.view, repeats=self.repeats))
        if isinstance(seen.view, FeaturesView):  # no more than the attack needs, so that its row says what it had
            known, needed = self.config["knowledge"]["encoder"], self.plan.cards.attack.encoder or "none"
            seen = dataclasses.replace(seen, view=seen.view.narrow(known).narrow(needed))
        return seen

    @property
    def repeats(self) -> int:
        """How often the attacker asks about each input.

        Raises:
            UserError: If it is more than once, where nobody is asked.
        """
        repeats: int = self.config["knowledge"]["repeats"]
        if repeats > 1 and self.plan.access not in ("scores", "labels"):
            raise UserError(
                f"knowledge.repeats={repeats} has an attacker ask a service several times, but the cell grants access "
                f"'{self.plan.access}'; leave it out or take an attack with access scores or labels."
            )
        return repeats

    def granted(self, view: GradientsView) -> GradientsView:
        """Return the view without what the cell does not grant, or its attack does not use."""
        card, grants = self.plan.cards.attack, self.config["knowledge"]

        def may(fact: str) -> bool:
            return bool(grants[fact]) and fact in card.uses

        heard = view.transcript() if view.transcript is not None and "transcript" in card.needs else None
        return dataclasses.replace(
            view,
            local=view.local if may("local_training") else None,
            buffers=view.buffers if may("buffers") else (),
            client_loss=view.client_loss if may("defense_loss") else None,
            transcript=None if heard is None else lambda: heard,
        )

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
        view = self.observation.view if self.plan.access in ("gradients", "features") else None
        if isinstance(view, GradientsView):
            described.append(f"points:{view.batch_size}")
            described += ["local_training"] if view.deltas and view.local is not None else []
            described += ["buffers"] if any(view.buffers) else []
            described += ["defense_loss"] if view.client_loss is not None else []
            described += ["transcript"] if view.transcript is not None else []
        described += [f"repeats:{self.repeats}"] if self.repeats > 1 else []
        if isinstance(view, FeaturesView) and card.encoder:
            described.append(f"encoder:{view.known}")
        said = None if split.captured is None else split.captured.labels
        if "labels" in wanted and (grants["labels"] or said is not None):
            labels = said if said is not None else self.task.labels(self.case(self.observation.secret, utility={}))
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

    def ensemble(self, population: Population) -> Callable[[Ledger], tuple[WhiteBoxView, ...]]:
        """Return what gives an attacker views of the further models, on the account of its view of the victim."""
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
        """Return what the attacker brings against one victim, and the seconds that took.

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
        """Return what the attacker has trained beforehand, from the store where it is there, and what that cost.

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
        """Run the attack on one victim."""
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
                *([] if self.split.captured is None else [self.split.captured.digest()]),
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
            seen = observation or self.observe(victim, population)
            view = seen.view
            try:
                knowledge, preparing = self.knowledge_of(victim, population, view)
                networks: nn.ModuleDict | None = method.untrained(view, knowledge, self.seed).eval()
                if networks and victim.defense.remembers:
                    networks = None  # to be trained by the customer who then attacks
                elif networks:
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
                nothing |= {"customer": seen.customer.facts}
                return Payload(self.task.blank(goal, view.spec).tensors(), {**nothing, "stopped": str(refusal)})
            result = method(view, knowledge, goal, seed=self.seed, networks=networks, label=label)
            cost = {
                "ledger": result.ledger,
                "seconds": preparing + result.seconds,
                "peak_memory_mb": result.peak_memory_mb,
                "customer": seen.customer.facts,
            }
            return Payload(result.reconstruction.tensors(), {**cost, "stopped": result.stopped})

        payload = self.workshop.store.get("reconstruction", key, make, rebuild=self.rebuild)
        return AttackResult(Reconstruction(**payload.tensors), **payload.facts)

    # 6. Truth, control and metrics

    def case(self, secret: Any, utility: dict[str, Any]) -> Case:
        """Return what task, truth and control are made from."""
        return Case(
            split=self.split,
            budget=self.budget,
            seed=self.seed,
            batch_size=max(1, self.setting.message_size)
            if self.split.captured is None
            else self.split.captured.batch_size,
            messages=0 if self.split.captured is None else 1,
            known_columns=self.config["knowledge"]["known_columns"],
            masked_image=self.config["knowledge"]["masked_image"],
            secret=secret,
            utility=utility,
            evaluators=self.evaluators,
            attack_held_out=self.attack_held_out,
            victim=lambda: self.victim.module,
            trained=self.trained if self.plan.access == "gradients" and self.split.captured is None else None,
        )

    def trained(self, options: Mapping[str, Any], defended: bool) -> Tensor:
        """Return whether a global model is right on each private test example, trained as the setting would do it.

        Args:
            options: Options of the setting to be used instead of the cell's.
            defended: Whether the cell's defense takes part.
        """
        block = self.config["setting"]
        shared = block["batch_norm"] == "train"  # or the server could not test what it trains
        setting: Setting = build({**block, "pooled_epochs": 0, "share_buffers": shared, **options})
        scene = self.scene()
        if not defended:
            scene = dataclasses.replace(scene, defense=Defense(), defense_key={})
        victim = setting.train(scene, self.split.private, "federated training")
        return is_correct(victim.predict_proba, self.split.private.test.to(self.workshop.device))

    @cached_property
    def full_case(self) -> Case:
        """The case with the secret and the victim's utility."""
        test = self.split.private.test
        correct, chance = torch.zeros(0, dtype=torch.bool), NAN
        if len(test):
            correct = is_correct(self.victim.predict_proba, test.to(self.workshop.device))
            chance = chance_of(test)
        utility = {"correct": correct, "chance": chance, "facts": self.victim.reported}
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
        """Return the same attack's result on a victim trained, under the same defense, on held-out data."""
        victim = self.setting.train(self.scene(control=True), population, "control victim")
        if "weights" in self.config["target"] and near_chance(
            accuracy_of(victim, population.test), chance_of(population.test)
        ):
            self.remarks.append(WEAK_CONTROL)
        return self.attack(victim, population, "control attack").reconstruction

    def scores(self, metrics: Sequence[dict[str, Any]]) -> list[Score]:
        """Return the numbers of the stored reconstruction under the given metrics."""
        result = self.task.align(self.result.reconstruction, self.truth)
        control = None if self.control is None else self.task.align(self.control, self.truth)
        numbers = []
        for block in metrics:
            numbers += score(build(block, **weights_folder(block, self.plan)), result, control, self.truth, self.seed)
        met = [Score(metric=name, value=value, n=1) for name, value in sorted(self.result.customer.items())]
        return numbers + facts_as_scores(self.truth) + met

    # 7. Rows and pictures

    @cached_property
    def notes(self) -> Sequence[str]:
        """What a reader of the numbers must know of split and victim, and of evaluators weak or of its kind."""
        accuracy, chance = float(self.truth.correct.double().mean()), self.truth.chance
        retrained = self.task.name in ("class", "completion")
        said = list(self.split.notes) if retrained else []
        said += [NO_CONTROL] if self.config["control"] == "none" and retrained else []
        said += self.remarks
        said += [f"The attack ended early: {self.result.stopped}"] if self.result.stopped else []
        said += self.setting.described() if self.split.captured is None else []
        finished, defense = bool(self.config["target"].get("weights")), self.plan.cards.defense
        if finished and defense.trains:
            said.append(
                UNTRAINED.format(name=defense.name, hooks=", ".join(defense.trains), serves=", ".join(defense.finished))
            )
        if near_chance(accuracy, chance) and (finished or self.plan.access != "gradients"):  # which tell at any age
            said.append(
                MISFIT
                if finished
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
        """Return what all rows of the cell share."""
        cards, result = self.plan.cards, self.result
        return CellFacts(
            cell_id=self.plan.cell_id,
            group_id=self.plan.group_id,
            knowledge=",".join(self.knowledge.names()),
            queries=sum(result.ledger["queries"].values()),
            gradient_evals=sum(result.ledger["gradients"].values()),
            seconds=result.seconds,
            training_seconds=self.victim.facts.get(TRAINING_SECONDS, NAN),
            peak_memory_mb=result.peak_memory_mb,
            device=str(self.workshop.device),
            notes="\n".join(self.notes),
            **plan_facts(self.plan),
            modality=cards.dataset.modalities[0],
        )

    def rows(self, scores: Sequence[Score]) -> list[dict[str, Any]]:
        """Return one row per number."""
        facts = self.facts()
        return [make_row(facts, one) for one in scores]

    def draw(self) -> Path | None:
        """Draw the sheet nearest private image | reconstruction | control; None for data that are no images."""
        if self.split.spec.modality != "image":
            return None
        from mibench.running.sheet import draw_cell

        path = folder(self.plan, "results") / "pictures" / f"{self.plan.cell_id}.png"
        result = self.task.align(self.result.reconstruction, self.truth)
        control = None if self.control is None else self.task.align(self.control, self.truth)
        return draw_cell(path, self.plan, self.split, self.truth, result, control)


def marginals(split: Split) -> list[Tensor]:
    """Return, per column, the published values of the training population and how frequent each is.

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
    """Return the victim's published confusion matrix on test data, rows = true classes, each summing to 1.

    Examples for which the service abstains are left out.
    """
    test = split.private.test
    predicted = named(victim.predict_proba(test.x)).cpu()
    pairs = (test.y[predicted >= 0], predicted[predicted >= 0])
    counts = torch.zeros(split.spec.classes, split.spec.classes, dtype=torch.float64)
    counts.index_put_(pairs, torch.ones(len(pairs[0]), dtype=torch.float64), accumulate=True)
    return counts / counts.sum(1, keepdim=True).clamp_min(1)


def weights_folder(block: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the folder of pre-trained networks for metrics that say they use one."""
    return {"weights": folder(plan, "weights")} if block.get("weights", "") is None else {}


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return the facts of a cell that are known before it runs, without ids, knowledge, modality and cost."""
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
