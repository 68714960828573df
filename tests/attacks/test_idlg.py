from functools import partial

import pytest
import torch
from exact import inside, sent_of, squared_distance

from mibench.attacks.idlg import Idlg
from mibench.errors import IncompatibleCellError
from mibench.knowledge import Knowledge
from mibench.optim.input_space import Pixels
from mibench.optim.label_recovery import LABEL_RULES
from mibench.optim.row_lbfgs import Lbfgs
from mibench.seeding import seeded
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal

LENET = partial(LeNet, channels=8)


def attack(view, **options):
    return Idlg(**options)(view, Knowledge(), InstanceGoal(len(view.messages), 1), seed=0)


@pytest.fixture
def labels_right(client_view, digits8):
    """How many labels of 100 pairs of network and example the rule reads off: ``labels_right(recover)``."""

    def count(recover):
        train, right = digits8.private.train, 0
        rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(3))[:100]
        for net_seed, row in enumerate(rows):
            with seeded(net_seed):
                model = LENET(spec=digits8.spec)
            secret = train[row[None]]
            right += int(recover(client_view(model, secret)) == secret.y)
        return right

    return count


@pytest.mark.parametrize("rule", sorted(LABEL_RULES))
def test_every_rule_reads_every_label(rule, labels_right):
    read = Idlg(label_rule=rule)
    assert labels_right(lambda view: read.labels(view, Knowledge())) == 100


def test_guessing_does_not_pass_the_label_check(labels_right):
    draws = torch.Generator().manual_seed(0)
    assert labels_right(lambda view: torch.randint(5, (1,), generator=draws)) < 50


def test_what_descends_is_the_squared_distance_of_inputs_alone_from_normal_starts_of_their_own(digits_view):
    view, secret = digits_view(LENET, 2)

    def look(descent, objective, starts, found, steps):
        (inputs,) = starts
        assert inputs.shape == (6, 1, 1, 8, 8) and len(inputs.unique(dim=0)) == 6
        assert abs(float(inputs.std()) - 1) < 0.15
        ours = view.updates(Pixels.of(view).to_inputs(inputs), secret.y.repeat_interleave(3)[:, None])
        for value in objective(torch.arange(6), inputs):
            torch.testing.assert_close(value, squared_distance(ours, sent_of(view, 3)))

    inside(Lbfgs, "minimise", lambda: attack(view, restarts=3), look)


def test_single_images_come_back_to_the_pixel(digits_view, exact):
    view, secret = digits_view(LENET, 10)
    result = attack(view, iterations=25, restarts=2)
    assert exact(result.reconstruction, secret) >= 7


def test_a_wrong_label_does_not_pass_the_check(monkeypatch, digits_view, exact):
    monkeypatch.setitem(LABEL_RULES, "row_sum", lambda message, size: message["head.weight"].sum(1).argmax().reshape(1))
    view, secret = digits_view(LENET, 4)
    assert exact(attack(view, iterations=20, restarts=1).reconstruction, secret) == 0


def test_granted_labels_go_before_the_rule(digits_view):
    view, secret = digits_view(LENET, 1)
    other = (secret.y + 1) % 5
    assert torch.equal(Idlg().labels(view, Knowledge(facts={"labels": other})), other[None])


def test_larger_batches_are_refused(make_cell):
    with pytest.raises(IncompatibleCellError, match="batches of at most 1"):
        make_cell("attack=idlg", "setting.batch_size=2")
