"""The evaluation models of a cell."""

import dataclasses
from types import SimpleNamespace

import pytest

from mibench.errors import UserError
from mibench.planning.catalogue import entries
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.running.finished import accuracy_of
from mibench.running.notes import _of_evaluators
from mibench.running.stage import blueprint
from mibench.tasks.base import Evaluator


def test_evaluation_models_differ_from_the_victim(make_cell):
    for target in [one.name for one in entries("target") if "image" in one.card.modalities]:
        config = plan_cell(compose(["attack=gmi", f"target={target}"])).config
        names = [name for name in config["evaluation"]["models"] if name != target]
        assert len(names) >= config["evaluation"]["count"]


def test_evaluation_models_are_trained_as_long_as_the_cell_says(make_cell):
    usual, longer, shorter = (
        make_cell("attack=gmi", *given) for given in ((), ("evaluation.min_steps=900",), ("evaluation.min_steps=1",))
    )
    recipe = usual.evaluator_block("residual")["recipe"]
    assert longer.evaluator_block("residual")["recipe"] == {**recipe, "min_steps": 900}
    assert shorter.evaluator_block("residual")["recipe"] == recipe
    assert "min_steps" not in usual.plan.identity["evaluation"]
    assert len({one.plan.cell_id for one in (usual, longer, shorter)}) == 3


def test_each_round_of_an_evaluation_model_is_twice_as_long(make_cell):
    cell = make_cell("attack=gmi", "evaluation.min_steps=900")
    recipe = cell.evaluator_block("mlp")["recipe"]
    longer = [cell.evaluator_block("mlp", times)["recipe"] for times in (1, 2, 4)]
    assert [(one["min_steps"], one["epochs"]) for one in longer] == [(900, 20), (1800, 40), (3600, 80)]
    assert all({**one, "min_steps": 900, "epochs": 20} == recipe for one in longer)
    assert len({str(blueprint({**cell.evaluator_block("mlp", times)}).key) for times in (1, 2, 4)}) == 3


def test_evaluation_models_of_other_families_than_the_victims_come_first(make_cell):
    def judges(target):
        return [card.name for card in make_cell("attack=gmi", f"target={target}").judges]

    assert judges("cnn") == ["residual", "mlp"] and judges("resnet18") == ["mlp", "cnn"]
    assert judges("vgg16_64") == ["residual", "mlp"] and judges("lenet") == ["residual", "mlp"]


def test_evaluation_models_are_measured_by_the_undefended_target(make_cell, monkeypatch):
    """Every defense of one target has the same judges; without any nothing is trained for them."""
    tiny = ("target.recipe.epochs=1", "target.recipe.min_steps=0", "dataset.size=8", "evaluation.models=[mlp]")
    plain = make_cell("attack=mi_face", *tiny)
    defended = make_cell("attack=mi_face", "defense=bido", "defense.a1=100", *tiny)
    asked = []

    def judge(rounds, split, workshop, seed, key, target):
        asked.append((len(list(rounds)), seed, key, target))
        return Evaluator("mlp", None, target - 0.1)

    monkeypatch.setattr("mibench.running.stage.train_evaluator", judge)
    accuracy = accuracy_of(plain.victim, plain.split.private.test)
    assert plain.undefended_accuracy == accuracy > accuracy_of(defended.victim, defended.split.private.test)
    assert [one.votes for cell in (plain, defended) for one in cell.evaluators] == [True, True], "none reaches it"
    assert asked == [(3, 0, {"revision": 2}, accuracy)] * 2
    nobody = make_cell("attack=mi_face", "evaluation.count=0", *tiny)
    assert not nobody.evaluators and "undefended_accuracy" not in nobody.__dict__


def test_faces_are_judged_by_embeddings_and_a_missing_file_is_a_note(make_cell, monkeypatch, tmp_path):
    cell = make_cell("attack=mi_face", f"paths.weights={tmp_path}", "evaluation.models=[mlp]")
    assert cell.embeddings == {}, "digits are no faces"
    faces = make_cell("attack=mi_face", f"paths.weights={tmp_path}", "evaluation.models=[mlp]")
    faces.__dict__["split"] = dataclasses.replace(faces.split, subject="face")
    assert faces.embeddings == {}, "no file is there"
    truth = SimpleNamespace(evaluators=[Evaluator("mlp", None, 0.5)])
    faces.__dict__["undefended_accuracy"] = 0.8
    said = list(_of_evaluators(faces, truth))
    assert "'mlp' is right on 50% of the test data, less than the undefended target's 80%: as none" in said[0]
    assert "mobilefacenet, face_resnet" in said[1] and "mibench fetch face_judges" in said[1] and len(said) == 2
    found = make_cell("attack=mi_face", "evaluation.embeddings=[face_resnet]")
    found.__dict__["split"] = faces.split
    one = Evaluator("face_resnet", None, 0.9)
    monkeypatch.setattr("mibench.running.stage.embedding_evaluator", lambda *_: one)
    assert found.embeddings == {"face_resnet": one}
    found.__dict__["undefended_accuracy"] = 0.8
    monkeypatch.setattr("mibench.running.stage.train_evaluator", lambda *_: Evaluator("mlp", None, 0.7))
    assert [one.votes for one in found.evaluators] == [False, False, True]
    with pytest.raises(UserError, match=r"evaluation\.embeddings"):
        make_cell("attack=mi_face", "evaluation.embeddings=[facenet]")


def test_an_evaluation_model_of_the_victims_family_is_said_so(make_cell, trained_folder):
    folder = trained_folder()
    words = ("attack=mi_face", "target=lenet", "target.recipe.epochs=0", "evaluation.models=[lenet,cnn,mlp]")
    notes = make_cell(*words, folder=folder).notes
    kindred = [note for note in notes if "of the victim's family" in note]
    assert len(kindred) == 1
    assert "'cnn'" in kindred[0] and "(convolutional)" in kindred[0] and "evaluation.models" in kindred[0]
    assert not [note for note in make_cell("attack=mi_face", folder=folder).notes if "family" in note]
