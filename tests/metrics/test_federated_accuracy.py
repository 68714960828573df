import pytest
import torch

from mibench.leaderboard.scoring import score
from mibench.metrics.federated_accuracy import FederatedAccuracy
from mibench.planning.composition import compose
from mibench.planning.plan import metric_blocks, plan_cell
from mibench.settings.federated import Federated
from mibench.tasks.base import Budget, Reconstruction
from mibench.tasks.instance import InstanceTruth


def truth(courses):
    return InstanceTruth(
        x=torch.zeros(1, 1, 2, 2), y=torch.zeros(1, dtype=torch.long), target=torch.zeros(1, dtype=torch.long),
        correct=torch.ones(4), chance=0.5, courses=courses,
    )  # fmt: skip


ANSWER = Reconstruction(torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.long))


def test_both_trainings_stand_beside_each_other():
    metric = FederatedAccuracy(rounds=7, batch_size=3, lr=0.2)
    courses = {"federated_accuracy": (torch.tensor([True, True, False, False]), torch.ones(4, dtype=torch.bool))}
    with_it, without = score(metric, ANSWER, None, truth(courses))
    assert (with_it.value, without.value, without.variant) == (0.5, 1.0, "undefended")
    assert metric.course(budget("standard")) == {"rounds": 7, "batch_size": 3, "lr": 0.2}


def budget(name):
    return Budget(name=name, targets=1, samples=1, records=1)


@pytest.mark.parametrize(("name", "rounds"), [("smoke", 5), ("standard", 100), ("paper", 100)])
def test_a_smoke_cell_only_shows_that_the_training_runs(name, rounds):
    assert FederatedAccuracy().course(budget(name))["rounds"] == rounds


def test_without_clients_there_is_none():
    (one,) = score(FederatedAccuracy(), ANSWER, None, truth({}))
    assert one.status == "skipped" and "no clients" in one.reason


def test_a_defense_that_ruins_the_training_costs_accuracy_and_none_costs_nothing(make_cell):
    def accuracy(*words):
        cell = make_cell("attack=idlg", "target=mlp", "dataset.size=8", "setting.clients=4", *words)
        return [
            float(cell.federated_answers({"rounds": 60, "batch_size": 16, "lr": 0.2}, one).double().mean())
            for one in (1, 0)
        ]

    same = accuracy()
    assert same[0] == same[1] > 0.8
    ruined = accuracy("defense=gradient_noise", "defense.std=3.0")
    assert ruined[1] == same[1]
    assert ruined[0] < ruined[1] - 0.2


def test_attacks_share_both_trainings_and_pay_for_them_once(make_cell, tmp_path, monkeypatch):
    """Whatever the attack, its batch, its classes and the server that it plants."""
    trained = []
    honest = Federated.train

    def counted(self, scene, population, label):
        if label == "federated training":
            trained.append(scene.workshop.store.path("victim", self._key(scene, population, self.rounds)).name)
        return honest(self, scene, population, label)

    monkeypatch.setattr(Federated, "train", counted)
    small = ["dataset.size=8", "target=mlp", "defense=gradient_noise", "setting.clients=4"]
    few = ["metric=[federated_accuracy]", "metric.federated_accuracy.rounds=2"]
    for words in (
        ["attack=analytic_linear"],
        ["attack=imprint", "setting.batch_size=4", "setting.unique_labels=true"],
    ):
        cell = make_cell(*small, *words, *few, folder=tmp_path)
        accuracies = [one.value for one in cell.scores() if one.metric == "federated_accuracy"]
        assert len(accuracies) == 2 and all(0 < value < 1 for value in accuracies), words
    assert len(set(trained)) == 2 and trained[:2] == trained[2:]


def test_a_batch_is_no_larger_than_what_a_client_owns(make_cell):
    cell = make_cell("attack=idlg", "target=mlp", "dataset.size=8", "setting.clients=60")
    assert len(cell.split.private.train) // 60 < 16
    assert len(cell.federated_answers({"rounds": 1, "batch_size": 16, "lr": 0.1}, True))


def test_a_defense_that_refuses_such_a_training_says_why(make_cell):
    """Sixteen examples, one by one, are several local steps, of which clipping of every example makes nothing."""
    cell = make_cell(
        "attack=idlg", "target=mlp", "dataset.size=8", "defense=gradient_clipping", "setting.local_batch_size=1"
    )
    options = {"rounds": 1, "batch_size": 16, "lr": 0.1}
    assert "setting.local_epochs=1" in cell.both_answers(options)
    (one,) = score(FederatedAccuracy(), ANSWER, None, truth({"federated_accuracy": cell.both_answers(options)}))
    assert one.status == "skipped" and "setting.local_epochs=1" in one.reason


@pytest.mark.parametrize(
    ("words", "measured"),
    [
        ("attack=dlg", True),
        ("attack=tag dataset=sst2", True),
        ("attack=tableak dataset=adult", True),
        ("attack=split_rmle", False),
        ("attack=dlg setting=captured dataset=captured_update", False),
        ("attack=gmi", False),
    ],
)
def test_every_cell_whose_clients_send_updates_measures_it(words, measured):
    blocks = metric_blocks(plan_cell(compose(words.split())))
    assert ("federated_accuracy" in [one["name"] for one in blocks]) == measured
