"""What the attacker of one cell holds, and the attack run on one victim."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mibench.access import Ledger, Server, View, WhiteBoxView
from mibench.attacks.base import Attack, AttackResult
from mibench.card import HOOKS_ON_PATH
from mibench.data import Population, Split
from mibench.entry import argmax_or_abstain
from mibench.errors import NotGrantedError, NotStoredError, QueryRefused, UserError
from mibench.knowledge import Knowledge
from mibench.leaderboard.scoring import near_chance
from mibench.leaderboard.statistics import NAN
from mibench.model import Classifier
from mibench.planning.plan import Plan
from mibench.priors.base import Prior, PriorData, loaded_prior, prior_key, show_prior, train_prior, trained_prior
from mibench.running.finished import accuracy_of, chance_of
from mibench.running.stage import Stage
from mibench.seeding import derive
from mibench.settings.base import Observation
from mibench.settings.victim import Victim
from mibench.storage.checkpoints import Checkpoints
from mibench.storage.store import Payload
from mibench.tasks import get_task
from mibench.tasks.base import Budget, Case, Reconstruction

WEAK_CONTROL = (
    "The control victim is near chance on its own test data: it has learned little under target.recipe, so the control "
    "says little; raise target.recipe.epochs."
)

#: Parts of a cell's identity that its reconstruction does not depend on, or that stand in its key otherwise.
BESIDE = ("evaluation", "target", "dataset", "seeds")


class Adversary(Stage):
    """The attacker of one cell.

    Args:
        plan: The planned cell, found compatible.
        rebuild: Whether the attack is run again although its reconstruction is stored.
        stored_only: Whether a reconstruction that is not stored is an error instead of a reason to attack.
    """

    def __init__(self, plan: Plan, rebuild: bool = False, stored_only: bool = False) -> None:
        super().__init__(plan)
        self.rebuild = rebuild
        self.stored_only = stored_only
        self.task = get_task(plan.cards.attack.task)
        self.remarks: list[str] = []
        self.budget = Budget(**{k: self.config["budget"][k] for k in ("name", "targets", "samples", "records")})
        self.method: Attack[Any, Any] = plan.part("attack").make()
        self.refuse_repeats()

    @cached_property
    def server(self) -> tuple[Server, dict[str, Any]]:
        """The server that the attack plants, and what identifies it; the honest one where its card plants none."""
        if not self.plan.cards.attack.plants or not self.setting.card.clients:
            return super().server
        public, spec = self.split.public, self.split.spec
        key = {"attack": self.plan.identity["attack"], "revision": self.plan.version("attack")}
        key |= {} if public is None else {"public": public.digest()}
        return self.method.server(public, spec, derive(self.seed, "server")), key

    # What the attacker sees

    @cached_property
    def observation(self) -> Observation:
        """What the attacker sees of the victim, and what lies behind it."""
        return self.observe(self.victim, self.split.private)

    def observe(self, victim: Victim, population: Population) -> Observation:
        """Return a fresh view of a victim, limited to what the cell grants, with an account of its own."""
        ledger = Ledger(self.config["query_budget"])
        count = self.task.messages(self.goal)
        seen = self.setting.observe(self.scene_of(victim), victim, population, self.plan.access, count, ledger)
        view = seen.view.limited(self.config["knowledge"], self.plan.cards.attack)
        return dataclasses.replace(seen, view=view)

    def refuse_repeats(self) -> None:
        """Refuse repeated queries where nobody is asked.

        Raises:
            UserError: Naming the key.
        """
        repeats = self.config["knowledge"]["repeats"]
        if repeats > 1 and "output" not in HOOKS_ON_PATH[self.plan.access]:
            raise UserError(
                f"knowledge.repeats={repeats} has an attacker ask a service several times, but the cell grants access "
                f"'{self.plan.access}'; leave it out or take an attack with access scores, labels or explanations."
            )

    # What the attacker brings

    @cached_property
    def goal(self) -> Any:
        """What the attack is asked for."""
        return self.task.goal(self.case(secret=None, utility={}))

    def case(self, secret: Any, utility: dict[str, Any], victim: Classifier | None = None) -> Case:
        """Return what task, truth and control are made from."""
        return Case(
            split=self.split,
            budget=self.budget,
            seed=self.seed,
            batch_size=max(1, self.setting.inputs_behind(self.split, self.plan.cards.defense)),
            messages=self.setting.messages(self.split),
            access=self.plan.access,
            known_columns=self.config["knowledge"]["known_columns"],
            masked_image=self.config["knowledge"]["masked_image"],
            secret=secret,
            utility=utility,
            victim=victim,
        )

    @cached_property
    def knowledge(self) -> Knowledge:
        """What the attacker brings, and nothing the cell does not grant."""
        card, split = self.plan.cards.attack, self.split
        wanted = {*card.needs, *card.uses}
        if "public" in card.needs and split.public is None:
            raise NotGrantedError(
                f"Attack '{card.name}' needs public data, and dataset '{self.plan.cards.dataset.name}' has none; give "
                "it some (image_folder: dataset.public_root=FOLDER or dataset.public_classes=K)."
            )
        public = split.public if "public" in wanted else None
        described = ["public"] if public is not None else []
        prior = None
        if "prior" in wanted and self.plan.cards.prior is not None and split.public is not None:
            if not self.plan.cards.prior.asks:
                data = PriorData(split.public, split.spec)
                prior = trained_prior(*self.prior_options, data, self.workshop, self.config["prior"]["seed"])
            described.append(f"prior:{self.config['prior']['name']}")
        described += [f"companions:{'+'.join(self.companions)}"] if self.companions else []
        if self.plan.access not in ("none", "white_box"):  # of which nothing more is known
            described += self.observation.view.known()
        described += self.task.known(self.case(secret=None, utility={}))
        facts = self.facts_granted(wanted)
        return Knowledge(
            None if public is None else public.to(self.workshop.device), prior, facts, (*described, *sorted(facts))
        )

    def facts_granted(self, wanted: set[str]) -> dict[str, Any]:
        """Return the side facts that the attack wants and the cell grants, by name."""
        split, grants = self.split, self.config["knowledge"]
        facts: dict[str, Any] = {}
        said = self.observation.labels if "labels" in wanted and self.plan.access == "gradients" else None
        if "labels" in wanted and (grants["labels"] or said is not None):
            labels = said if said is not None else self.task.labels(self.case(self.observation.secret, utility={}))
            facts |= {} if labels is None else {"labels": labels.clone()}
        if "lengths" in wanted and grants["lengths"] and self.observation.secret is not None:
            facts["lengths"] = (self.observation.secret.x != split.spec.padding).sum(1)
        if "marginals" in wanted and grants["marginals"]:
            facts["marginals"] = marginals(split)
        if "confusion" in wanted and grants["confusion"]:
            facts["confusion"] = confusion(self.victim, split)
        return facts

    @property
    def prior_options(self) -> tuple[Prior, dict[str, Any]]:
        """The cell's kind of prior, and what identifies its options."""
        return self.prior, {key: value for key, value in self.plan.identity["prior"].items() if key != "seed"}

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
        (prior, identity), seed, shop = self.prior_options, self.config["prior"]["seed"], self.workshop
        data = PriorData(public, view.spec)
        key = prior_key(prior, identity, data, seed, shop.precision)
        key |= {"victim": dict(victim.key), "known": population.seen}

        def train(own: View, checkpoints: Checkpoints) -> dict[str, Tensor]:
            assert isinstance(own, WhiteBoxView)
            with own.phase("prepare"):
                own_data = dataclasses.replace(data, view=own, checkpoints=checkpoints)
                return train_prior(prior, own_data, shop, seed)

        payload = self.prepared("prior", key, view, lambda: self.observe(victim, population).view, train)
        ready = loaded_prior(prior, view.spec, payload.tensors, shop.device, seed)
        show_prior(prior, ready, view.spec, shop.store.path("prior", key), shop.device)
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
        self, victim: Victim, population: Population, label: str, seen: Observation | None = None, other: Any = None
    ) -> AttackResult:
        """Run the attack on one victim, with the cell's goal or another one."""
        method, goal, precision = self.method, self.goal if other is None else other, self.workshop.precision
        sees_victim = self.plan.access != "none"
        key: dict[str, Any] = {
            "cell": {k: v for k, v in self.plan.identity.items() if k not in BESIDE},
            "victim": dict(victim.key) if sees_victim else {},
            "data": [
                population.seen if sees_victim else "",
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
                raise NotStoredError(
                    "The reconstruction of this cell is no longer in the store; run it again with overwrite=always."
                )
            met = seen or self.observe(victim, population)
            view = met.view
            try:
                knowledge, preparing = self.knowledge_of(victim, population, view)
                networks: nn.ModuleDict | None = method.untrained(view, knowledge, self.seed).eval()
                if networks and victim.defense.remembers:
                    networks = None  # to be trained by the customer who then attacks
                elif networks:
                    trained = self.prepared(
                        "attack_model",
                        {**key, "revision": self.plan.version("attack")},
                        view,
                        lambda: self.observe(victim, population).view,
                        lambda own, _: method.trained(own, knowledge, self.seed, precision).state_dict(),
                    )
                    networks.load_state_dict(dict(trained.tensors))
                    preparing += trained.facts["seconds"]
            except QueryRefused as refusal:
                nothing = {"ledger": view.ledger.state(), "seconds": NAN, "peak_memory_mb": NAN}
                nothing |= {"customer": met.customer.facts}
                return Payload(self.task.blank(goal, view.spec).tensors(), {**nothing, "stopped": str(refusal)})
            result = method(view, knowledge, goal, seed=self.seed, networks=networks, label=label, precision=precision)
            cost = {
                "ledger": result.ledger,
                "seconds": preparing + result.seconds,
                "peak_memory_mb": result.peak_memory_mb,
                "customer": met.customer.facts,
            }
            return Payload(result.reconstruction.tensors(), {**cost, "stopped": result.stopped})

        payload = self.workshop.store.get("reconstruction", key, make, rebuild=self.rebuild)
        return AttackResult(Reconstruction(**payload.tensors), **payload.facts)

    def attack_held_out(self, population: Population) -> Reconstruction:
        """Return the same attack's result on a victim trained, under the same defense, on held-out data."""
        victim = self.setting.train(self.scene(control=True), population, "control victim")
        if "weights" in self.config["target"] and near_chance(
            accuracy_of(victim, population.test), chance_of(population.test)
        ):
            self.remarks.append(WEAK_CONTROL)
        return self.attack(victim, population, "control attack").reconstruction


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
    predicted = argmax_or_abstain(victim.predict_proba(test.x)).cpu()
    pairs = (test.y[predicted >= 0], predicted[predicted >= 0])
    counts = torch.zeros(split.spec.classes, split.spec.classes, dtype=torch.float64)
    counts.index_put_(pairs, torch.ones(len(pairs[0]), dtype=torch.float64), accumulate=True)
    return counts / counts.sum(1, keepdim=True).clamp_min(1)
