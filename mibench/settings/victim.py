"""Victims: trained under a defense, cached by content, and exposed at an access level."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mibench.data import Examples, Graph, InputSpec, Population, Split
from mibench.defenses.base import Customer, DefenderData, Defense, DefenseContext
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.seeding import derive, generator, seeded
from mibench.storage.store import Payload
from mibench.storage.workshop import Workshop, clock
from mibench.targets.base import Target
from mibench.training import Recipe, Training, frozen

log = logging.getLogger("mibench")

#: Inputs that a split client sends together where the server answers many.
SENT_AT_ONCE = 512

#: The fact that says what training took, by :func:`clock`.
TRAINING_SECONDS = "training_seconds"

#: Builds the untrained architecture for given facts of the input.
Architecture = Callable[[InputSpec], Target]


@dataclass(frozen=True)
class Blueprint:
    """How a classifier is made: architecture, recipe, and the plain data that identify both.

    Attributes:
        name: Id of the architecture.
        build: Builds the untrained module.
        recipe: How it is trained.
        key: Resolved configuration and revision, part of every key in the store.
        pretrained: Whether the module comes with its weights, so that it is used as it is and never trained.
    """

    name: str
    build: Architecture
    recipe: Recipe
    key: Mapping[str, Any]
    pretrained: bool = False


@dataclass
class Victim:
    """A trained target behind its defense.

    Attributes:
        model: The module, in evaluation mode, with the defense's ``input`` hook in front; None where the target is
            no module.
        defense: The defense; its ``output`` and ``features`` hooks lie on the paths of the views.
        spec: Facts of input and output.
        key: What identifies it in the store.
        facts: What the defense reported, and what training, and what the defense then learned, took.
        states: Tensors that update defenses keep per client, by client id.
    """

    model: Classifier | None
    defense: Defense
    spec: InputSpec
    key: Mapping[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def predict_proba(self, x: Tensor) -> Tensor:
        """Return what the defended service answers: probabilities ``(N, classes)`` after the ``output`` hook.

        Every example is asked by a client of its own. Of a model that is cut in two, the server answers what the
        client sends.
        """
        return self.answer(x, None)

    def answer(self, x: Tensor, customer: Customer | None) -> Tensor:
        """Return what the defended service answers to one client, shape ``(N, classes)``.

        Raises:
            QueryRefused: If the defense answers this client no more.
        """
        return self.defense.answer(x, self._probabilities(x), customer)

    def _probabilities(self, x: Tensor) -> Tensor:
        """Return the model's probabilities before the ``output`` hook."""
        if self.model is None:
            return self.defense.predict_proba(x)
        if self.model.cut is None:
            return self.model.predict_proba(x)
        with torch.no_grad(), seeded(derive(self.key["seed"], "answers")):
            return torch.cat([self.model.server(self.sent(part)).softmax(1) for part in x.split(SENT_AT_ONCE)])

    @torch.no_grad()
    def sent(self, x: Tensor) -> Tensor:
        """Return what a split client sends for inputs: its features ``(N, ...)`` after the ``features`` hook.

        A hook that draws does so from torch's global generator, which the caller seeds.
        """
        return self.defense.features(self.module.client(x.to(self.module.device)))

    @property
    def module(self) -> Classifier:
        """The torch module.

        Raises:
            UserError: If the target is no torch module.
        """
        if self.model is None:
            raise UserError(
                "This target is no torch module, so it has no gradients; choose an attack with access scores or labels."
            )
        return self.model

    @property
    def snapshot(self) -> Classifier | None:
        """The module as whoever holds it alone can ask it; None where the target is no torch module."""
        return self.model

    @property
    def reported(self) -> dict[str, float | str]:
        """What the defense said of itself after training."""
        return dict(self.facts.get("defense", {}))


class _Guarded(nn.Module):
    """A model's first module behind the defense's ``input`` hook."""

    def __init__(self, hook: Callable[[Tensor], Tensor], inner: nn.Module) -> None:
        super().__init__()
        self.hook = hook
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(self.hook(x))
        return result


def defender_context(
    split: Split,
    train: Examples,
    workshop: Workshop,
    seed: int,
    reserve_share: float = 0.0,
    cut: int | None = None,
    graph: Graph | None = None,
) -> DefenseContext:
    """Return what a defense's hooks are given for a victim trained on ``train`` less its reserve, cut or whole."""
    public = None if split.public is None else split.public.to(workshop.device)
    train, reserve = parted(train, reserve_share, derive(seed, "reserve"))
    graph = None if graph is None else graph.to(workshop.device)
    data = DefenderData(train.to(workshop.device), reserve.to(workshop.device), public, graph)
    return DefenseContext(split.spec, data, derive(seed, "defense"), workshop.device, cut)


def parted(train: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Return what is left of ``train``, and a share of every class drawn from it, both in their old order."""
    if not share:
        return train, train[torch.arange(0)]
    kept = torch.zeros(len(train), dtype=torch.bool)
    order = torch.randperm(len(train), generator=generator(seed))
    for label in train.y.unique():
        rows = order[train.y[order] == label]
        kept[rows[: int(share * len(rows))]] = True
    return train[~kept], train[kept]


def initial_model(blueprint: Blueprint, spec: InputSpec, defense: Defense, context: DefenseContext) -> Classifier:
    """Return the defended architecture before training, with weights that depend on the seed alone.

    One that comes trained is that of the blueprint, with the defense's ``input`` hook alone.
    """
    with seeded(derive(context.seed, "initial weights")):
        target = blueprint.build(spec)
        target.adapt(context.data.train.x.cpu())
        if context.data.graph is not None:
            target.hold(context.data.graph)
        refuse_cut(target, context.cut)
        target.cut = context.cut
        model = target if blueprint.pretrained else defense.architecture(target, context)
        model.cut = context.cut
    if model.cut is not None and not model.divides(torch.rand(2, *spec.shape, generator=generator(0))):
        raise UserError(
            f"This target cannot be cut after stage {model.cut}: its parts one after the other do not give its "
            "answers, under this defense; choose another target (of target=checkpoint, leave out target.features)."
        )
    if "input" in defense.hooks:
        model.normalise = _Guarded(defense.input, model.normalise)
    return model.to(context.device)


def refuse_cut(target: Classifier, cut: int | None) -> None:
    """Refuse a cut after a stage that a target does not have.

    Raises:
        UserError: Saying which ones there are.
    """
    last = len(target.stages) - 1
    if cut is not None and cut > last:
        has = f"stages 0 to {last}" if last else "stage 0 only"
        raise UserError(f"This target cannot be cut after stage {cut}, it has {has}; set setting.cut to one of them.")


def train_central(
    blueprint: Blueprint,
    population: Population,
    split: Split,
    defense: Defense,
    workshop: Workshop,
    key: Mapping[str, Any],
    seed: int,
    label: str,
    learner: Mapping[str, Any] | None = None,
    cut: int | None = None,
    training_kind: Callable[..., Training] = Training,
) -> Victim:
    """Return the target trained on ``population.train`` under ``defense``, from the store where it is there.

    A pre-trained one is returned as it is, behind what of the defense is there without training. What the defense then
    learns is stored by itself.

    Args:
        blueprint: Architecture and recipe.
        population: The victim's own data (private, or held-out for the control victim).
        split: The dataset, for facts and public data.
        defense: The defense.
        workshop: Store and device.
        key: What identifies data and defense; architecture, recipe and seed are added here.
        seed: Drives weights, order and the defense's randomness.
        label: Name of the progress bar.
        learner: What identifies the defense where it takes no part in training, but learns.
        cut: The last stage of the client's part where the model is served cut in two.
        training_kind: Makes the training: of one owner, or across a cut.
    """
    classes = int(population.train.y.max()) + 1
    spec = dataclasses.replace(split.spec, classes=classes)
    share = 0.0 if blueprint.pretrained else defense.reserve_share
    context = defender_context(split, population.train, workshop, seed, share, cut, population.graph)
    full_key = {**key, "target": blueprint.key, "data": population.seen, "seed": seed, **workshop.key}
    public = context.data.public if defense.learns_from_public and "training" in defense.hooks else None
    if public is not None:
        full_key["public"] = public.digest()
    full_key |= {"reserve": share} if share else {}
    if blueprint.pretrained:
        model = initial_model(blueprint, spec, defense, context).eval()
        return taught(Victim(model, defense, spec, full_key), context, workshop, learner)

    def build() -> Payload:
        start = clock(workshop.device)
        data = defense.data(context.data.train, context)
        model = initial_model(blueprint, spec, defense, context)
        training = training_kind(
            model, data, blueprint.recipe, derive(seed, "victim"), workshop.device, workshop.precision, label, public
        )
        trained = defense.fit(training)
        spent = clock(workshop.device) - start
        facts = {"defense": defense.facts(), TRAINING_SECONDS: spent, "curve": training.curve}
        facts |= {} if population.graph is None else {"secret": population.graph.digest()}
        return Payload(victim_tensors(trained, defense), facts)

    payload = workshop.store.get("victim", full_key, build)
    finished = restore_victim(initial_model(blueprint, spec, defense, context), defense, payload.tensors)
    victim = Victim(finished, defense, spec, full_key, dict(payload.facts))
    return taught(victim, context, workshop, learner)


def taught(victim: Victim, context: DefenseContext, workshop: Workshop, learner: Mapping[str, Any] | None) -> Victim:
    """Return the victim behind a defense that knows the finished model and has learned of it what it learns.

    What is learned comes from the store where it is there.
    """
    defense = victim.defense
    if victim.model is not None:
        defense.attach(victim.model, context)
    if not defense.learns:
        return victim

    def build() -> Payload:
        start = clock(workshop.device)
        with seeded(derive(context.seed, "learn")), frozen(victim.module) as model:
            defense.learn(model, context)
        spent = clock(workshop.device) - start
        return Payload(defense.state(), {"defense": defense.facts(), TRAINING_SECONDS: spent})

    key = {**victim.key, "learner": dict(learner or {})}
    if context.cut is not None:
        key["cut"] = context.cut
    if defense.learns_from_public and context.data.public is not None:
        key["public"] = context.data.public.digest()
    payload = workshop.store.get("defense", key, build)
    defense.restore({name: value.to(workshop.device) for name, value in payload.tensors.items()})
    spent = [facts[TRAINING_SECONDS] for facts in (victim.facts, payload.facts) if TRAINING_SECONDS in facts]
    said = {**victim.reported, **payload.facts["defense"]}
    known = {TRAINING_SECONDS: sum(spent)} if spent else {}
    return dataclasses.replace(victim, facts={**victim.facts, "defense": said, **known})


def victim_tensors(model: Classifier | None, defense: Defense) -> dict[str, Tensor]:
    """Return the tensors of a trained model but its secrets, where there is one, and of its defense, for the store."""
    weights = {} if model is None else {k: v for k, v in model.state_dict().items() if k not in model.secret}
    return {f"model.{name}": value for name, value in weights.items()} | {
        f"defense.{name}": value for name, value in defense.state().items()
    }


def restore_victim(model: Classifier, defense: Defense, tensors: Mapping[str, Tensor]) -> Classifier | None:
    """Put back what :func:`victim_tensors` gave; return the model, or None where the target is no torch module."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    defense.restore(part("defense."))
    if not (weights := part("model.")):
        return None
    secrets = {name: model.get_buffer(name) for name in model.secret}
    model.load_state_dict({**weights, **secrets})
    return model.eval()
