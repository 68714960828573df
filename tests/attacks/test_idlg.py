import pytest
import torch

from mibench.access import GradientsView, Ledger
from mibench.attacks.idlg import Idlg
from mibench.errors import IncompatibleCellError, UserError
from mibench.knowledge import Knowledge
from mibench.optim.label_recovery import LABEL_RULES
from mibench.seeding import seeded
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal


def observe(split, rows, net_seed=0):
    """Returns a view of one message per row of the private training data, by an untrained LeNet."""
    with seeded(net_seed):
        model = LeNet(spec=split.spec, channels=8)
    view = GradientsView.of(model, [], 1, split.spec, Ledger(), torch.device("cpu"))
    secret = split.private.train[rows]
    messages = [
        {name: value.detach() for name, value in view.gradient(x[None], y[None]).items()}
        for x, y in zip(secret.x, secret.y, strict=True)
    ]
    return GradientsView.of(model, messages, 1, split.spec, Ledger(), torch.device("cpu")), secret


def attack(view, **options):
    return Idlg(**options)(view, Knowledge(), InstanceGoal(len(view.messages), 1), seed=0)


def labels_right(split, recover):
    """Returns how many labels of 100 pairs of network and example the rule reads off."""
    rows = torch.randperm(len(split.private.train), generator=torch.Generator().manual_seed(3))[:100]
    right = 0
    for net_seed, row in enumerate(rows):
        view, secret = observe(split, row[None], net_seed)
        right += int(recover(view) == secret.y)
    return right


@pytest.mark.parametrize("rule", sorted(LABEL_RULES))
def test_every_rule_reads_every_label(digits8, rule):
    read = Idlg(label_rule=rule)
    assert labels_right(digits8, lambda view: read.labels(view, Knowledge())) == 100


def test_guessing_does_not_pass_the_label_check(digits8):
    draws = torch.Generator().manual_seed(0)
    assert labels_right(digits8, lambda view: torch.randint(5, (1,), generator=draws)) < 50


def exact(result, secret):
    error = (result.values - secret.x).square().flatten(1).mean(1)
    return int(((error < 1e-6) & (result.labels == secret.y)).sum())


def test_single_images_come_back_to_the_pixel(digits8):
    view, secret = observe(digits8, torch.arange(0, 600, 60))
    result = attack(view, iterations=80, restarts=2)
    assert exact(result.reconstruction, secret) >= 7


def test_a_wrong_label_does_not_pass_the_check(digits8, monkeypatch):
    monkeypatch.setitem(LABEL_RULES, "row_sum", lambda message, size: message["head.weight"].sum(1).argmax().reshape(1))
    view, secret = observe(digits8, torch.arange(0, 600, 150))
    assert exact(attack(view, iterations=80, restarts=1).reconstruction, secret) == 0


def test_granted_labels_go_before_the_rule(digits8):
    view, secret = observe(digits8, torch.tensor([5]))
    other = (secret.y + 1) % 5
    assert torch.equal(Idlg().labels(view, Knowledge(facts={"labels": other})), other[None])


def test_larger_batches_are_refused(make_cell):
    with pytest.raises(IncompatibleCellError, match="batches of at most 1"):
        make_cell("attack=idlg", "setting.batch_size=2")


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match=r"attack\.label_rule"):
        Idlg(label_rule="guess")
