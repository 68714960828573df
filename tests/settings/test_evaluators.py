"""Evaluation models: how long they are trained, who votes, and the embeddings that judge faces."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from mibench.data import STRANGERS
from mibench.errors import UserError, WeightsMissingError
from mibench.settings import evaluators
from mibench.settings.evaluators import (
    EMBEDDINGS,
    Embedding,
    embedding_evaluator,
    refuse_unknown,
    train_evaluator,
    with_votes,
)
from mibench.settings.victim import Blueprint
from mibench.targets.mlp import Mlp
from mibench.tasks.base import Evaluator
from mibench.training import Recipe


def rounds(*epochs):
    return [
        Blueprint("mlp", lambda spec: Mlp(spec=spec, hidden=(16,)), Recipe(epochs=count, lr=5e-3), {"epochs": count})
        for count in epochs
    ]


@pytest.fixture
def course(monkeypatch):
    """Stands in for training: the n-th round has the n-th accuracy and takes n seconds; returns which were trained."""

    def make(*accuracies):
        tried = []

        def trained(blueprint, *_):
            tried.append(blueprint.recipe.epochs)
            return Evaluator("mlp", None, accuracies[len(tried) - 1], seconds=float(len(tried)), steps=len(tried))

        monkeypatch.setattr(evaluators, "_trained", trained)
        return tried

    return make


@pytest.mark.parametrize(
    ("accuracies", "target", "taken", "seconds"),
    [
        ((0.6, 0.8, 0.9), 0.8, 2, 3.0),  # as accurate is enough, and no later round is made
        ((0.9, 0.8, 0.7), 0.5, 1, 1.0),
        ((0.6, 0.7, 0.75), 0.8, 3, 6.0),  # none reaches it: the most accurate
        ((0.6, 0.75, 0.7), 0.8, 2, 6.0),
        ((0.6, 0.7, 0.8), math.nan, 1, 1.0),  # nobody knows the target's
    ],
)
def test_the_first_that_reaches_the_target_is_taken(course, accuracies, target, taken, seconds):
    tried = course(*accuracies)
    one = train_evaluator(iter(rounds(1, 2, 4)), None, None, 0, {}, target)
    assert (one.steps, one.accuracy, one.seconds) == (taken, accuracies[taken - 1], seconds)
    assert len(tried) == (taken if one.accuracy >= target or math.isnan(target) else 3)


def test_every_round_is_an_artifact_that_is_made_once(digits8, workshop):
    """10 steps an epoch; of 1 and of 8 epochs the longer one is more accurate, and both are there the next time."""

    def trained(target):
        return train_evaluator(rounds(1, 8), digits8, workshop, 3, {"revision": 2}, target)

    short, best = trained(0.1), trained(2.0)
    assert (short.steps, best.steps) == (10, 80) and short.accuracy < best.accuracy
    folder = workshop.store.root / "victim"
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*/manifest.json")}
    again = trained(2.0)
    assert len(made) == 2 and made == {path: path.stat().st_mtime_ns for path in folder.glob("*/manifest.json")}
    assert (again.accuracy, again.seconds) == (best.accuracy, best.seconds) and best.seconds > short.seconds > 0
    assert not any(weight.requires_grad for weight in best.model.parameters())


def test_those_vote_that_reach_the_target_and_all_where_none_does():
    judges = [Evaluator(name, None, accuracy) for name, accuracy in (("one", 0.7), ("two", 0.8), ("three", 0.9))]

    def voters(target):
        return [one.name for one in with_votes(judges, target) if one.votes]

    assert voters(0.8) == ["two", "three"]
    assert voters(0.95) == voters(math.nan) == ["one", "two", "three"]


class Pixels(nn.Module):
    """An embedding of the pixels; counts the pictures that it is shown."""

    shown = 0

    def forward(self, x):
        type(self).shown += len(x)
        return normalize(x.flatten(1))


def test_an_embedding_judges_by_class_means_and_sees_the_data_once(digits8, workshop, tmp_path, monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "pixels", Embedding(lambda _: Pixels(), "checksum", 0.05))
    Pixels.shown = 0
    one = embedding_evaluator("pixels", tmp_path, digits8, workshop)
    private, strangers = digits8.private, min(STRANGERS, -(-len(digits8.public) // 2))
    assert Pixels.shown == len(private.train) + len(private.test) + strangers
    x, y = (normalize(private.train.x.flatten(1)), private.train.y)
    means = normalize(torch.stack([x[y == label].mean(0) for label in range(5)]))
    named = (normalize(private.test.x.flatten(1)) @ means.T).argmax(1)
    assert one.accuracy == pytest.approx(float((named == private.test.y).double().mean())) and one.accuracy > 0.9
    assert (one.name, one.steps) == ("pixels", 0) and one.seconds >= 0
    again = embedding_evaluator("pixels", tmp_path, digits8, workshop)
    again.model.predict_proba(private.train.x)
    assert Pixels.shown == len(private.train) + len(private.test) + strangers, "the store knows them"
    other = dataclasses.replace(digits8, public=None)
    assert embedding_evaluator("pixels", tmp_path, other, workshop).accuracy == one.accuracy


def test_a_missing_file_and_an_unknown_name_are_said(digits8, workshop, tmp_path):
    with pytest.raises(WeightsMissingError, match=r"face_recognition_model\.bin"):
        embedding_evaluator("face_resnet", tmp_path, digits8, workshop)
    refuse_unknown(["mobilefacenet", "face_resnet"])
    with pytest.raises(UserError, match=r"evaluation\.embeddings.*face_resnet"):
        refuse_unknown(["face_resnett"])
