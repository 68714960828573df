import torch

from mibench.leaderboard.scoring import score
from mibench.metrics.federated_accuracy import FederatedAccuracy
from mibench.planning.composition import compose
from mibench.planning.plan import metric_blocks, plan_cell
from mibench.tasks.base import Reconstruction
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
    with_it, without = score(metric, ANSWER, None, truth(courses), 0)
    assert (with_it.value, without.value, without.variant) == (0.5, 1.0, "undefended")
    assert metric.course == {"rounds": 7, "batch_size": 3, "lr": 0.2}


def test_without_clients_there_is_none():
    (one,) = score(FederatedAccuracy(), ANSWER, None, truth({}), 0)
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


def test_it_is_measured_on_request_only():
    asked = [
        block["name"] for block in metric_blocks(plan_cell(compose(["attack=dlg", "metric=[federated_accuracy]"])))
    ]
    assert "federated_accuracy" in asked
    assert "federated_accuracy" not in [one["name"] for one in metric_blocks(plan_cell(compose(["attack=dlg"])))]
