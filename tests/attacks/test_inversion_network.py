from dataclasses import replace

import pytest
import torch

from mibench.access import Ledger, ScoresView
from mibench.attacks import inversion_network
from mibench.attacks.inversion_network import InversionNetwork, InversionNetworkInstance
from mibench.data import Examples
from mibench.defenses.rounding import Rounding
from mibench.knowledge import Knowledge
from mibench.optim.selection import Best
from mibench.targets.mlp import Mlp
from mibench.tasks.class_ import ClassGoal
from mibench.tasks.instance import InstanceGoal
from mibench.training import Recipe, Training

CPU = torch.device("cpu")
GOAL = ClassGoal(torch.tensor([3, 7]), samples=2)


@pytest.fixture(scope="module")
def digits(digits8):
    """All ten digits: 600 of the victim, 900 of the attacker, 297 that neither has seen."""
    parts = (digits8.private.train, digits8.private.test, digits8.public)
    x, y = (torch.cat([getattr(part, name) for part in parts]) for name in "xy")
    y[-len(digits8.public) :] += 5  # which the split numbers from 0
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    victims, public, unseen = (Examples(x[rows], y[rows]) for rows in order.split([600, 900, len(x) - 1500]))
    return replace(digits8.spec, classes=10), victims, public, unseen


@pytest.fixture(scope="module")
def service(digits):
    """Makes a view of a victim, a perceptron 64-32-10, whose answers a function has changed."""
    spec, victims, _, _ = digits
    torch.manual_seed(0)
    model = Mlp(spec=spec, hidden=[32])
    Training(model, victims, Recipe(epochs=30, batch_size=64, lr=5e-3), 0, CPU).run()

    def make(change=lambda scores: scores, budget=None):
        return ScoresView(spec, Ledger(budget), CPU, lambda x: change(model.predict_proba(x)))

    return make


def trained(view, public, **options):
    attack = InversionNetwork(**{"width": 16, "epochs": 40, "lr": 5e-3, "batch_size": 64, "shift": 15.0, **options})
    return attack, attack.trained(view, Knowledge(public), 0)


def error(attack, networks, answers, images):
    with torch.no_grad():
        return float((networks["decoder"](attack.encoded(answers)) - images).square().mean())


def test_the_epoch_of_the_lowest_held_out_error_is_kept(digits, service, monkeypatch):
    """With a step that is far too large the last epoch is not the best one; it is judged by images held out."""
    offered, sizes, mse_loss = [], [], inversion_network.mse_loss

    class Recorded(Best):
        def offer(self, variables, loss):
            offered.append((float(loss), [one.detach().clone() for one in variables]))
            super().offer(variables, loss)

    def error_of(made, truth):
        if not torch.is_grad_enabled():
            sizes.append(len(made))
        return mse_loss(made, truth)

    monkeypatch.setattr(inversion_network, "Best", Recorded)
    monkeypatch.setattr(inversion_network, "mse_loss", error_of)
    public = digits[2][torch.arange(100)]
    _, networks = trained(service(), public, epochs=8, lr=0.3)
    losses = [loss for loss, _ in offered]
    best = losses.index(min(losses))
    assert best < 7 and sizes == [10] * 8
    state = list(networks["decoder"].state_dict().values())
    assert all(torch.equal(one, other) for one, other in zip(state, offered[best][1], strict=True))


def test_more_of_an_answer_gives_more_of_the_image_if_it_was_trained_on(digits, service):
    """Measured: 0.022 of whole answers, 0.035 of three entries, 0.043 of one, 0.073 of the mean image.

    The decoder of whole answers that is given three entries: 0.098.
    """
    _, _, public, unseen = digits
    answers = service().query(unseen.x)
    errors = {}
    for topk in (None, 3, 1):
        attack, networks = trained(service(), public, topk=topk)
        errors[topk] = error(attack, networks, answers, unseen.x)
        if topk is None:
            attack.topk = 3
            misaligned = error(attack, networks, answers, unseen.x)
    mean = float((public.x.mean(0) - unseen.x).square().mean())
    assert errors[None] < 0.85 * errors[3] and errors[3] < 0.9 * errors[1] and errors[1] < 0.95 * mean
    assert misaligned > 1.3 * errors[3]


def top3(scores):
    return torch.zeros_like(scores).scatter(1, (top := scores.topk(3)).indices, top.values)


def test_what_a_service_does_not_tell_is_not_read(digits, service):
    """A service that tells three entries trains the same decoder as an attacker who keeps three of all."""
    _, _, public, _ = digits
    few = Examples(public.x[:200], public.y[:200])
    told, own = trained(service(top3), few, epochs=2), trained(service(), few, epochs=2, topk=3)
    for one, other in zip(told[1].state_dict().values(), own[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_encoding():
    answers = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
    logs = answers[0, :3].log()
    read = InversionNetwork().encoded(answers)[0]
    torch.testing.assert_close(read, torch.cat([logs + 50, torch.zeros(1)]))
    torch.testing.assert_close(InversionNetwork(topk=2).encoded(answers)[0, :2], logs[:2] + 50)
    assert InversionNetwork(topk=2).encoded(answers)[0, 2] == 0
    torch.testing.assert_close(InversionNetwork(shift=1.0).encoded(answers)[0, :3], logs - logs[2])  # lifted to 0


def test_each_class_comes_out_as_itself(digits, service):
    """The image of class y is nearest the mean of y's private images: for 10 of 10, untrained for 1."""
    _, victims, public, _ = digits
    goal = ClassGoal(torch.arange(10), samples=1)
    means = torch.stack([victims.x[victims.y == label].mean(0) for label in range(10)]).flatten(1)
    attack, networks = trained(service(), public, topk=1)

    def right(networks):
        made = attack.reconstruct(service(), Knowledge(public), goal, networks).values.flatten(1)
        return int((torch.cdist(made, means).argmin(1) == goal.targets).sum())

    scores = right(networks), right(attack.untrained(service(), Knowledge(public), 0).eval())
    assert scores[0] >= 9 > 3 >= scores[1]


def test_every_public_image_is_asked_about_once_and_the_attack_itself_asks_nothing(digits, service):
    _, _, public, _ = digits
    view = service(Rounding(step=0.1).output)
    result = InversionNetwork(width=4, epochs=1)(view, Knowledge(public), GOAL, seed=0)
    assert result.ledger["queries"] == {"prepare": 900, "initialise": 0, "optimise": 0, "select": 0}
    images = result.reconstruction.values
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_a_spent_budget_leaves_a_decoder_of_what_was_answered(digits, service):
    _, _, public, _ = digits
    view = service(budget=500)
    result = InversionNetwork(width=4, epochs=1, batch_size=128)(view, Knowledge(public), GOAL, seed=0)
    assert view.ledger.queries == 384 and not result.reconstruction.missing.any()
    nothing = InversionNetwork()(service(budget=100), Knowledge(public), GOAL, seed=0)
    assert "budget" in nothing.stopped and nothing.reconstruction.missing.all()


# The inputs behind observed answers


def behind(service, digits, observed, **options):
    """Returns the reconstruction of the inputs behind observed answers, and what was asked."""
    view = replace(service(), observed=observed)
    attack = InversionNetworkInstance(
        **{"width": 16, "epochs": 40, "lr": 5e-3, "batch_size": 64, "shift": 15.0, **options}
    )
    result = attack(view, Knowledge(digits[2]), InstanceGoal(len(observed), 1), seed=0)
    return result.reconstruction, result.ledger["queries"]


def test_an_observed_answer_gives_its_own_input_and_not_that_of_another(digits, service):
    """Measured: a squared error of 0.026; 0.121 of the next answer's, 0.043 of the mean image of the class."""
    _, victims, _, unseen = digits
    made, asked = behind(service, digits, service().query(unseen.x), epochs=15)
    assert asked == {"prepare": 900, "initialise": 0, "optimise": 0, "select": 0}
    means = torch.stack([victims.x[victims.y == label].mean(0) for label in range(10)])[unseen.y]
    own, other, of_class = (float((x - unseen.x).square().mean()) for x in (made.values, made.values.roll(1, 0), means))
    assert own < 0.8 * of_class < 0.8 * 0.8 * other
    assert float((made.labels == unseen.y).double().mean()) > 0.85


def test_it_is_the_decoder_of_the_encoded_answer_in_the_order_of_the_answers(digits, service):
    answers = service().query(digits[3].x[:5])
    attack = InversionNetworkInstance(epochs=1, width=4, shift=15.0)
    view, goal = replace(service(), observed=answers), InstanceGoal(5, 1)
    networks = attack.untrained(view, Knowledge(digits[2]), 0).eval()
    made = attack.reconstruct(view, Knowledge(digits[2]), goal, networks)
    with torch.no_grad():
        torch.testing.assert_close(made.values, networks["decoder"](attack.encoded(answers)))
    assert made.target.tolist() == list(range(5)) and torch.equal(made.labels, answers.argmax(1))
