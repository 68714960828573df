"""Evaluation models: classifiers trained until they are as accurate as the target they judge, and face embeddings.

A judge that is worse than the victim rejects what the victim learned. So each classifier is trained in rounds, every
one from its beginning and twice as long as the one before, until it is at least as accurate on the private test data as
the undefended target. A round anneals its learning rate to the end: a longer training that went on from a finished one
would need another schedule, and a round that is an artifact of its own serves every cell, whichever round it stops at.

Faces are judged by public embeddings too, which took no part in any cell: the nearest mean of a person's private
training pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from mibench.card import AS_ACCURATE
from mibench.data import STRANGERS, Split, evenly
from mibench.defenses.base import Defense
from mibench.errors import UnknownNameError
from mibench.nn import face_resnet, mobilefacenet
from mibench.nn.class_means import ClassMeans
from mibench.nn.faces import embeddings
from mibench.seeding import derive
from mibench.settings.victim import TRAINING_SECONDS, Blueprint, train_central
from mibench.storage.judge_files import FACE_RESNET_WEIGHTS, MOBILEFACENET
from mibench.storage.store import Payload
from mibench.storage.workshop import Workshop, clock
from mibench.tasks.base import Evaluator
from mibench.training import is_correct


class _Loader(Protocol):
    """Reads a network from the folder of weights."""

    def __call__(self, folder: Path) -> nn.Module: ...


@dataclass(frozen=True)
class Embedding:
    """A public face embedding that judges by class means.

    Attributes:
        load: Reads its files.
        weights: What identifies them.
        temperature: Of the softmax over cosine similarities: the one, of 0.2 to 0.01, at which the probabilities of 31
            people of LFW at 32 pixels are best calibrated (cross-entropy of private test images).
    """

    load: _Loader
    weights: str
    temperature: float


#: The face embeddings by name.
EMBEDDINGS: Mapping[str, Embedding] = {
    "mobilefacenet": Embedding(lambda folder: mobilefacenet.load(folder), MOBILEFACENET.sha256, 0.03),
    "face_resnet": Embedding(lambda folder: face_resnet.load(folder), FACE_RESNET_WEIGHTS.sha256, 0.01),
}


def lengthened(recipe: Mapping[str, Any], times: int) -> dict[str, Any]:
    """Return a recipe's options for a training so many times as long.

    >>> lengthened({"epochs": 20, "min_steps": 300, "lr": 0.1}, 2)
    {'epochs': 40, 'min_steps': 600, 'lr': 0.1}
    """
    return {key: times * value if key in ("epochs", "min_steps") else value for key, value in recipe.items()}


def train_evaluator(
    rounds: Iterable[Blueprint], split: Split, workshop: Workshop, seed: int, key: Mapping[str, Any], target: float
) -> Evaluator:
    """Return the first of several trainings that is at least as accurate as the target, else the most accurate one.

    Each comes from the store where it is there. They learn raw, undefended private data.

    Args:
        rounds: The trainings, the shortest first; at least one. A later one is made only where those before it fail.
        split: The dataset.
        workshop: Store and device.
        seed: Seed of all evaluation models.
        key: What the recipe of all evaluation models adds to its key.
        target: Accuracy of the undefended target on the private test data; NaN where there are none.
    """
    best, seconds = None, 0.0
    for blueprint in rounds:
        one = _trained(blueprint, split, workshop, seed, key)
        seconds += one.seconds
        if best is None or one.accuracy > best.accuracy:
            best = one
        if reaches(one.accuracy, target):
            break
    assert best is not None
    return dataclasses.replace(best, seconds=seconds)


def _trained(blueprint: Blueprint, split: Split, workshop: Workshop, seed: int, key: Mapping[str, Any]) -> Evaluator:
    victim = train_central(
        blueprint,
        split.private,
        split,
        Defense(),
        workshop,
        {"role": "evaluator", **key},
        derive(seed, "evaluator", blueprint.name),
        f"evaluator {blueprint.name}",
    )
    recipe, steps = blueprint.recipe, blueprint.recipe.steps_of_epoch(len(split.private.train))
    return Evaluator(
        name=blueprint.name,
        model=victim.module.blind().requires_grad_(False),
        accuracy=float(is_correct(victim.predict_proba, split.private.test.to(workshop.device)).double().mean()),
        seconds=float(victim.facts.get(TRAINING_SECONDS, 0.0)),
        steps=recipe.passes(steps) * steps,
    )


def reaches(accuracy: float, target: float) -> bool:
    """Return whether an accuracy is that of the target or more, to half a point (``AS_ACCURATE``).

    Every one is where the target's is not known.
    """
    return not accuracy < target - AS_ACCURATE


def with_votes(judges: Sequence[Evaluator], target: float) -> Sequence[Evaluator]:
    """Return the evaluation models, of which those vote that reach the target's accuracy; all where none does."""
    able = [reaches(one.accuracy, target) for one in judges]
    return [dataclasses.replace(one, votes=can or not any(able)) for one, can in zip(judges, able, strict=True)]


def refuse_unknown(names: Sequence[str]) -> None:
    """Refuse names of no face embedding.

    Raises:
        UnknownNameError: Naming those there are.
    """
    for name in names:
        if name not in EMBEDDINGS:
            raise UnknownNameError("face embedding (evaluation.embeddings)", name, list(EMBEDDINGS))


def embedding_evaluator(name: str, folder: Path, split: Split, workshop: Workshop) -> Evaluator:
    """Return a face embedding as an evaluation model of the private people.

    What it sees of the private images, and of the public ones on which judges are tried, is stored.

    Args:
        name: The embedding's.
        folder: The folder of weights.
        split: The dataset.
        workshop: Store and device.

    Raises:
        WeightsMissingError: If a file is not there, or is not the published one.
    """
    chosen, private = EMBEDDINGS[name], split.private
    network = chosen.load(folder).to(workshop.device)
    images = {"train": private.train.x, "test": private.test.x}
    if split.public is not None:
        images["public"] = evenly(split.public.x, STRANGERS)

    def build() -> Payload:
        start = clock(workshop.device)
        seen = {part: embeddings(network, x) for part, x in images.items()}
        return Payload(seen, {TRAINING_SECONDS: clock(workshop.device) - start})

    key = {"network": name, "weights": chosen.weights, "private": private.digest()}
    key |= {} if split.public is None else {"public": split.public.digest()}
    payload = workshop.store.get("embedding", key, build)
    model = ClassMeans(network, payload.tensors["train"], private.train.y.cpu(), chosen.temperature)
    for part, x in images.items():
        model.remember(x, payload.tensors[part])
    accuracy = float(is_correct(model.to(workshop.device).predict_proba, private.test).double().mean())
    return Evaluator(name, model, accuracy, seconds=float(payload.facts[TRAINING_SECONDS]))
