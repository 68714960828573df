import dataclasses
import functools
import json
import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from mibench.defenses.base import Defense
from mibench.errors import IncompatibleCellError, NotGrantedError, UserError
from mibench.knowledge import GRANTS
from mibench.leaderboard.rows import COLUMNS
from mibench.leaderboard.shards import read_shard
from mibench.planning.catalogue import entries
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.running.notes import _of_evaluators
from mibench.running.stage import accuracy_of, blueprint
from mibench.tasks.base import Evaluator


def numbers(frame):
    return frame.drop(
        columns=["seconds", "training_seconds", "judge_seconds", "peak_memory_mb", "created_at", "git_commit"]
    )


#: What a generator of 16 channels learns digits from.
LARGER = ("dataset.size=16", "prior.width=16", "prior.batch_size=16", "evaluation.models=[mlp]")

#: The evaluation model that is trained in a second.
ONE_JUDGE = ("evaluation.models=[mlp]",)

#: A cell of seconds whose images are worth nothing.
SHORT = (
    "attack=gmi", "attack.iterations=10", "prior.iterations=20", "evaluation.models=[mlp]", "prior.batch_size=16",
    "target.recipe.epochs=2", "target.recipe.min_steps=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def make_cell(make_cell):
    """Cells of digits of 8x8 pixels, as they are published."""
    return functools.partial(make_cell, "dataset.size=8")


@pytest.fixture(scope="module")
def gmi(make_cell):
    cell = make_cell("attack=gmi", "attack.iterations=120", "prior.iterations=300", *LARGER)
    return cell, cell.run()


def test_a_cell_leaves_rows_and_a_picture(gmi):
    cell, outcome = gmi
    frame = read_shard(outcome.shard)
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["cell_id"]) == {cell.plan.cell_id} == {outcome.shard.stem}
    assert outcome.picture.stat().st_size > 1000
    accuracy = frame[(frame["metric"] == "attack_accuracy") & (frame["variant"] == "top1")]
    assert accuracy["value"].item() > accuracy["control"].item()
    assert accuracy["lift"].item() == pytest.approx(accuracy["value"].item() - accuracy["control"].item())
    assert frame["queries"].unique().tolist() == [120 * 4]
    assert frame["knowledge"].unique().tolist() == ["public,prior:wgan_gp"]
    assert json.loads(frame["config"].iloc[0])["attack"]["iterations"] == 120


def test_every_skipped_row_says_why(gmi):
    frame = read_shard(gmi[1].shard)
    skipped = frame[frame["status"] != "ok"]
    assert (skipped["reason"].str.len() > 20).all() and skipped["value"].isna().all()
    assert frame[frame["status"] == "ok"]["value"].notna().all()


def test_the_same_seed_gives_the_same_bits_in_a_store_of_its_own(make_cell, tmp_path):
    once, again = make_cell(*SHORT), make_cell(*SHORT, folder=tmp_path)
    assert once.plan.cell_id == again.plan.cell_id
    pd.testing.assert_frame_equal(*(numbers(read_shard(one.run().shard)) for one in (once, again)), check_exact=True)
    assert torch.equal(once.result.reconstruction.values, again.result.reconstruction.values)


def test_a_warm_cell_reports_the_cost_of_the_cold_one(gmi, make_cell):
    warm = make_cell("attack=gmi", "attack.iterations=120", "prior.iterations=300", *LARGER)
    assert warm.result.ledger == gmi[0].result.ledger
    assert warm.result.seconds == gmi[0].result.seconds
    assert 0 < warm.facts().training_seconds == gmi[0].facts().training_seconds


def test_another_seed_is_another_cell_of_the_same_group(make_cell):
    first, other = make_cell(*SHORT), make_cell(*SHORT, "seed=1")
    assert other.plan.group_id == first.plan.group_id
    assert other.plan.cell_id != first.plan.cell_id
    assert not torch.equal(other.result.reconstruction.values, first.result.reconstruction.values)


def test_metrics_machine_and_folders_do_not_change_what_a_cell_is():
    plain = plan_cell(compose(["device=cpu"])).cell_id
    assert plain == plan_cell(compose(["metric=[attack_accuracy]", "threads=1", "paths.store=elsewhere"])).cell_id
    assert plain != plan_cell(compose(["target.width=8"])).cell_id


def test_an_output_defense_shares_the_undefended_victim(make_cell):
    none = make_cell("attack=gmi", "defense=none")
    rounding_plan = plan_cell(compose(["attack=gmi", "defense=rounding", "budget=smoke"]))
    from mibench.running.cell import Cell

    rounded = Cell(rounding_plan)
    assert none.scene().defense_key == rounded.scene().defense_key == {}


def test_vacuous_and_incompatible_cells_are_refused_in_one_sentence(make_cell):
    with pytest.raises(IncompatibleCellError, match="Vacuous: defense 'rounding'"):
        make_cell("attack=gmi", "defense=rounding")
    with pytest.raises(IncompatibleCellError, match="Incompatible"):
        make_cell("attack=gmi", "setting=split")
    with pytest.raises(IncompatibleCellError, match="prior"):
        make_cell("attack=gmi", "prior=none")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("attack.iterations=many", "iterations"),
        ("target.recipe.lr=-1", "lr"),
        ("device=tpu", "device"),
        ("precision=float8", "precision"),
        ("metric=[psnr]", "psnr"),
        ("attack=gmi_", "gmi"),
    ],
)
def test_a_wrong_option_is_said_before_anything_is_trained(override, words, make_cell, tmp_path):
    from hydra.errors import HydraException

    with pytest.raises((UserError, HydraException), match=words):
        make_cell("attack=gmi", override, folder=tmp_path)
    assert not (tmp_path / "store").exists()


def test_an_attack_without_its_public_data_is_refused(make_cell, monkeypatch):
    cell = make_cell("attack=gmi")
    from dataclasses import replace

    cell.__dict__["split"] = replace(cell.split, public=None)
    with pytest.raises(NotGrantedError, match="needs public data"):
        _ = cell.knowledge


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


def test_a_grant_is_part_of_the_cells_that_use_it_alone(make_cell, monkeypatch):
    monkeypatch.setitem(GRANTS, "labels", dataclasses.replace(GRANTS["labels"], identity="use"))
    assert "labels" not in make_cell("attack=gmi").plan.identity["knowledge"]
    federated = make_cell("attack=dlg", "setting=federated", "target=lenet")
    assert "labels" in federated.plan.identity["knowledge"]


def test_a_spent_budget_gives_the_best_so_far(make_cell):
    cell = make_cell("attack=gmi", "query_budget=40", *ONE_JUDGE)
    assert "budget of 40 queries" in cell.result.stopped
    assert any(note.startswith("The attack ended early: The attack's budget of 40") for note in cell.notes)
    assert sum(cell.result.ledger["queries"].values()) == 40
    assert not bool(cell.result.reconstruction.missing.any())


def test_defense_facts_become_rows(make_cell):
    outcome = make_cell(
        "attack=mi_face", "defense=dp_sgd", "target.recipe.epochs=1", "target.recipe.min_steps=0", *ONE_JUDGE
    ).run()
    by_name = {one.metric: one for one in outcome.scores}
    assert by_name["epsilon"].value > 0 and "accountant" in by_name["epsilon"].variant
    assert math.isnan(by_name["epsilon"].control)


def test_a_cell_is_its_data_not_their_path(tmp_path):
    def cell_id(folder):
        return plan_cell(compose(["attack=mi_face", "dataset=image_folder", f"dataset.root={folder}"])).cell_id

    for name, content in (("here", b"one"), ("there", b"one"), ("other", b"two")):
        (tmp_path / name / "class").mkdir(parents=True)
        (tmp_path / name / "class" / "1.png").write_bytes(content)
    assert cell_id(tmp_path / "here") == cell_id(tmp_path / "there") != cell_id(tmp_path / "other")


@pytest.fixture
def attack_with_a_model(monkeypatch):
    """MI-Face replaced by an attack that trains a model of its own by asking the victim 30 times."""
    from torch import nn

    from mibench.attacks.mi_face import MiFace
    from mibench.tasks.base import Reconstruction

    trainings = []

    def networks(self, view, knowledge):
        return nn.ModuleDict({"map": nn.Linear(view.spec.classes, 64)})

    def prepare(self, networks, view, knowledge):
        trainings.append(1)
        x = torch.rand(30, 1, 8, 8)
        scores = view.logits(x)
        networks["map"].bias.data = x.mean(0).flatten() + 0 * scores.sum()

    def reconstruct(self, view, knowledge, goal, networks):
        with torch.no_grad():
            images = networks["map"](nn.functional.one_hot(goal.labels, view.spec.classes).float())
            images = images.reshape(-1, 1, 8, 8).clamp(0, 1)
            view.logits(images)
        return Reconstruction(images, goal.labels)

    for method in (networks, prepare, reconstruct):
        monkeypatch.setattr(MiFace, method.__name__, method)
    return trainings


def test_an_attacks_own_models_are_stored_with_what_they_cost(attack_with_a_model, make_cell, trained_folder):
    folder = trained_folder()
    cold = make_cell("attack=mi_face", folder=folder)
    assert cold.result.ledger["queries"] == {"prepare": 30, "initialise": 0, "optimise": 4, "select": 0}
    warm = make_cell("attack=mi_face", folder=folder)
    warm.rebuild = True
    assert warm.result.ledger == cold.result.ledger and len(attack_with_a_model) == 1
    assert torch.equal(warm.result.reconstruction.values, cold.result.reconstruction.values)
    elsewhere = make_cell("attack=mi_face", folder=trained_folder("elsewhere"))
    assert torch.equal(elsewhere.result.reconstruction.values, cold.result.reconstruction.values)
    assert cold.control is not None and len(attack_with_a_model) == 3, "the control's models are its own"


def test_where_the_defense_remembers_the_attackers_models_are_trained_by_the_one_who_attacks(
    attack_with_a_model, make_cell, trained_folder, monkeypatch
):
    folder = trained_folder()
    cold = make_cell("attack=mi_face", folder=folder)
    assert cold.result.ledger["queries"]["prepare"] == 30 and len(attack_with_a_model) == 1
    monkeypatch.setattr(Defense, "remembers", True)
    warm = make_cell("attack=mi_face", folder=folder)
    warm.rebuild = True
    assert warm.result.ledger == cold.result.ledger and len(attack_with_a_model) == 2
    assert torch.equal(warm.result.reconstruction.values, cold.result.reconstruction.values)


def test_a_budget_spent_while_preparing_leaves_failures(attack_with_a_model, make_cell, trained_folder):
    cell = make_cell("attack=mi_face", "query_budget=20", *ONE_JUDGE, folder=trained_folder())
    assert bool(cell.result.reconstruction.missing.all()) and "budget of 20 queries" in cell.result.stopped
    hits = [one.value for one in cell.run().scores if one.metric == "attack_accuracy" and one.variant == "top1"]
    assert hits and set(hits) == {0.0}


@pytest.fixture
def prior_that_asks(monkeypatch):
    """WGAN-GP replaced by a prior whose training asks the victim 30 times; the card is read from the source."""
    import dataclasses

    from mibench.priors.wgan_gp import WganGp

    trainings = []

    def train(self, network, data, seed, device):
        if data.view is None:
            return
        trainings.append(data.view.spec.classes)
        with torch.no_grad():
            network.seed_map[0].weight += 1e-3 * data.view.logits(data.public.x[:30]).mean()

    monkeypatch.setattr(WganGp, "train", train)
    plans = plan_cell(compose(["attack=gmi", "budget=smoke"])).cards
    card = dataclasses.replace(plans.prior, asks="white_box")
    monkeypatch.setattr(WganGp, "card", card)

    def asking(cell):
        cell.plan = dataclasses.replace(cell.plan, cards=dataclasses.replace(cell.plan.cards, prior=card))
        return cell

    return asking, trainings


def test_a_prior_that_asks_is_made_for_each_victim_and_its_queries_are_the_attacks(
    prior_that_asks, make_cell, trained_folder
):
    asking, trainings = prior_that_asks
    folder = trained_folder()
    cold = asking(make_cell("attack=gmi", folder=folder))
    plain = make_cell("attack=gmi", folder=trained_folder("plain")).result.ledger["queries"]
    assert cold.result.ledger["queries"] == {**plain, "prepare": 30} and len(trainings) == 1
    warm = asking(make_cell("attack=gmi", folder=folder))
    warm.rebuild = True
    assert warm.result.ledger == cold.result.ledger and len(trainings) == 1
    assert cold.control is not None and len(trainings) == 2, "the control's prior is its own"
    assert "prior:wgan_gp" in cold.knowledge.names()
    for one in (trained_folder("spent"), folder):  # where no prior is stored, and where it is already
        spent = asking(make_cell("attack=gmi", "query_budget=20", folder=one))
        assert bool(spent.result.reconstruction.missing.all()) and "budget of 20 queries" in spent.result.stopped
        assert sum(spent.result.ledger["queries"].values()) <= 20


def test_a_victim_near_chance_is_said_so(make_cell):
    notes = make_cell("attack=mi_face", "target.recipe.epochs=0", *ONE_JUDGE).run().notes
    assert any("near the" in note and "no merit of a defense" in note for note in notes)


@pytest.fixture
def with_companions(monkeypatch, make_cell):
    """MI-Face replaced by an attack that sends three images through the victim and two through every companion."""
    import dataclasses

    from mibench.attacks.mi_face import MiFace
    from mibench.tasks.base import Reconstruction

    def reconstruct(self, view, knowledge, goal, networks):
        image = torch.full((2, 1, 8, 8), 0.5, requires_grad=True)
        with view.phase("initialise"):
            said = [view.logits(image[[0, 0, 1]])]
        said += [one.logits(image) for one in knowledge.companions(view)]
        (shade,) = torch.autograd.grad(sum(one.square().sum() for one in said), image)
        return Reconstruction(shade[:1].sigmoid().expand(len(goal.labels), -1, -1, -1), goal.labels)

    monkeypatch.setattr(MiFace, "reconstruct", reconstruct)

    def make(*words, uses=("companions",), **options):
        cell = make_cell("attack=mi_face", "target.recipe.epochs=1", "target.recipe.min_steps=0", *words, **options)
        attack = dataclasses.replace(cell.plan.cards.attack, uses=uses)
        cell.plan = dataclasses.replace(cell.plan, cards=dataclasses.replace(cell.plan.cards, attack=attack))
        return cell

    return make


def test_companions_are_other_models_of_the_same_people_on_the_same_account(with_companions, trained_folder):
    folder = trained_folder()
    cell = with_companions("knowledge.companions=[cnn,cnn]", folder=folder)
    assert "companions:cnn+cnn" in cell.knowledge.names()
    same, other = cell.trained_companions(cell.split.private)
    heads = [one.module.head.weight for one in (cell.victim, same, other)]
    assert all(head.shape == heads[0].shape for head in heads)
    assert not any(torch.equal(a, b) for a, b in ((heads[0], heads[1]), (heads[0], heads[2]), (heads[1], heads[2])))
    assert cell.result.ledger["queries"] == {"prepare": 0, "initialise": 3, "optimise": 4, "select": 0}
    assert cell.result.ledger["gradients"]["optimise"] == 4
    spent = with_companions("knowledge.companions=[cnn,cnn]", "query_budget=5", folder=folder)
    assert "budget of 5 queries" in spent.result.stopped


def test_the_controls_companions_see_the_held_out_alone(with_companions, trained_folder, monkeypatch):
    from mibench.settings.base import Scene

    trained, train = [], Scene.train

    def told(scene, population, key, label, cut=None):
        trained.append((label, population.train.digest()))
        return train(scene, population, key, label, cut)

    monkeypatch.setattr(Scene, "train", told)
    folder = trained_folder()
    cell = with_companions("knowledge.companions=[cnn]", folder=folder)
    assert cell.result is not None
    private, held_out = cell.split.private.train.digest(), cell.split.held_out.train.digest()
    assert set(trained) == {("victim", private), ("companion cnn", private)}
    trained.clear()
    assert not torch.equal(cell.control.values, cell.result.reconstruction.values)
    held = {one for one in trained if one != ("undefended target", private)}  # which the judges are measured by
    assert held == {("control victim", held_out), ("companion cnn", held_out)}
    assert with_companions("knowledge.companions=[cnn]", "control=none", folder=folder).control is None


def test_companions_are_part_of_what_an_attack_is_that_takes_them_and_of_no_other(with_companions, trained_folder):
    folder = trained_folder()

    def values(*companions, **options):
        cell = with_companions(f"knowledge.companions=[{','.join(companions)}]", folder=folder, **options)
        return cell.plan.cell_id, cell.result.reconstruction.values

    alone, one, two = (values(*["cnn"] * count) for count in (0, 1, 2))
    assert len({alone[0], one[0], two[0]}) == 3
    assert not torch.equal(alone[1], one[1]) and not torch.equal(one[1], two[1])
    assert torch.equal(values("cnn")[1], one[1])
    plain = [with_companions(f"knowledge.companions=[{name}]", uses=()) for name in ("cnn", "lenet")]
    assert plain[0].plan.cell_id == plain[1].plan.cell_id and not plain[0].companions
    assert "companions" not in plain[0].plan.description["knowledge"]


def test_a_cell_whose_companions_are_not_stored_is_planned_again(with_companions):
    from mibench.cli.stored import replan

    cell = with_companions(uses=())
    assert replan(cell.plan.description, ["device=cpu"]).cell_id == cell.plan.cell_id


def test_evaluation_models_share_no_architecture_with_a_companion(with_companions):
    assert [card.name for card in with_companions().judges] == ["residual", "mlp"]
    assert [card.name for card in with_companions("knowledge.companions=[mlp]").judges] == ["residual"]
    assert [card.name for card in with_companions("knowledge.companions=[mlp]", uses=()).judges] == ["residual", "mlp"]
    words = ["knowledge.companions=[vgg16_64]", "evaluation.models=[vgg16,mlp]"]
    assert [card.name for card in with_companions(*words).judges] == ["mlp"]
    cell = with_companions("knowledge.companions=[residual,mlp]")
    with pytest.raises(UserError, match=r"evaluation\.models.*knowledge\.companions"):
        _ = cell.judges
    with pytest.raises(UserError, match="lenett"):
        with_companions("knowledge.companions=[lenett]", uses=())


def test_an_evaluation_model_of_the_victims_family_is_said_so(make_cell, trained_folder):
    folder = trained_folder()
    words = ("attack=mi_face", "target=lenet", "target.recipe.epochs=0", "evaluation.models=[lenet,cnn,mlp]")
    notes = make_cell(*words, folder=folder).notes
    kindred = [note for note in notes if "of the victim's family" in note]
    assert len(kindred) == 1
    assert "'cnn'" in kindred[0] and "(convolutional)" in kindred[0] and "evaluation.models" in kindred[0]
    assert not [note for note in make_cell("attack=mi_face", folder=folder).notes if "family" in note]
