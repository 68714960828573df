import dataclasses

import pytest
import torch
from exact import inside

from mibench.data import Examples
from mibench.defenses.base import Defense
from mibench.defenses.ressfl import ResSfl, bottleneck
from mibench.errors import UserError
from mibench.nn.simulated_attacker import SimulatedAttacker
from mibench.targets.cnn import Cnn
from mibench.targets.torchvision_model import TorchvisionModel
from mibench.training import Batch, Recipe, Training, cross_entropy

SMALL = {"decoder": "custom", "decoder_channels": 32, "decoder_lr": 3e-3}
RECIPE = Recipe(epochs=12, batch_size=32, lr=5e-3)


class Helping(ResSfl):
    """A stub: the sign of the penalty is wrong, so that the model learns together with the decoder."""

    def success(self, error):
        return -super().success(error)


@pytest.fixture(scope="module")
def figures(train_under, accuracy_of, decoder_error):
    """Trains a network under a defense: ``figures(name) -> (error of a fresh decoder, test accuracy)``."""
    made = {}
    options = {"alpha": 5.0, "loss_": "mse", "channels": 4, **SMALL}
    defenses = {
        "none": lambda: ResSfl(**{**options, "alpha": 0.0, "transfer": False}),
        "private": lambda: ResSfl(**options, transfer=False),
        "public": lambda: ResSfl(**options),
        "stub": lambda: Helping(**options, transfer=False),
    }

    def train(name):
        if name not in made:
            model = train_under(defenses[name](), Cnn, RECIPE, width=8)
            made[name] = decoder_error(model), accuracy_of(model)
        return made[name]

    return train


def test_the_decoder_learns_before_its_success_is_punished(digits8, started, monkeypatch):
    """Three steps, then an error of 0.2: a similarity of 0.8, which is 0.3 above the threshold."""
    asked = []
    monkeypatch.setattr(SimulatedAttacker, "learn", lambda *_: asked.append("learn"))
    monkeypatch.setattr(SimulatedAttacker, "error", lambda *_: asked.append("error") or torch.tensor(0.2))
    defense = ResSfl(alpha=2.0, threshold=0.5, steps=3, transfer=False, **SMALL)
    plan = started(defense, Cnn, RECIPE, width=8)
    x, y = digits8.private.train.x[:8], digits8.private.train.y[:8]
    plan.model.eval()
    value = inside(Training, "run", lambda: defense.fit(plan), lambda _, loss: loss(Batch(plan.model, x, y)).item())
    assert value == pytest.approx(cross_entropy(Batch(plan.model, x, y)).item() + 2.0 * 0.3, abs=1e-5)
    assert asked == 3 * ["learn"] + ["error"]


@pytest.mark.parametrize("name", ["private", "public"])
def test_a_fresh_decoder_makes_less_of_the_features(figures, name):
    """Weight 5, four channels of 8x8 digits' eight, against the same bottleneck alone.

    Measured: squared errors of 0.034 without the decoder, of 0.056 trained against it on the private data and 0.053
    transferred from the public ones, 0.024 of the stub; accuracies of 1.00, 0.99, 0.98.
    """
    (plain, before), (error, after), (wrong, _) = (figures(one) for one in ("none", name, "stub"))
    assert error > 1.3 * plain
    assert wrong < plain
    assert after > before - 0.06


def test_similarity_is_not_punished_up_to_the_threshold():
    similarity = torch.tensor([0.0, 0.3, 0.5, 0.75, 1.0])
    error = (1 - similarity).requires_grad_(True)
    punished = ResSfl(threshold=0.5).success(error)
    assert punished.tolist() == [0, 0, 0, 0.25, 0.5]
    (gradient,) = torch.autograd.grad(punished.sum(), error)
    assert gradient.tolist() == [0, 0, 0, -1, -1]
    assert ResSfl(loss_="mse").success(error).tolist() == (-error).tolist()


def test_it_is_plain_training_to_the_bit_without_bottleneck_weight_and_transfer(digits8, train_under):
    def answers(defense):
        model = train_under(defense, Cnn, Recipe(epochs=2, batch_size=64), width=8)
        return model.predict_proba(digits8.private.test.x)

    class Plain(Defense):
        pass

    plain = answers(Plain())
    assert torch.equal(answers(ResSfl(alpha=0.0, channels=None, transfer=False)), plain)
    assert not torch.equal(answers(ResSfl(alpha=1.0, threshold=0.0, channels=None, transfer=False, **SMALL)), plain)
    assert not torch.equal(answers(ResSfl(alpha=0.0, transfer=False)), plain)


@pytest.mark.parametrize("cut", [None, 0, 1, 2])
def test_a_client_sends_few_channels_and_the_server_expands_them(digits8, started, cut):
    defense = ResSfl(channels=3)
    plan = started(defense, Cnn, cut=cut, width=8)
    x, channels = digits8.private.test.x[:2], 8 * 2 ** (cut or 0)
    sent = plan.model.client(x)
    assert sent.shape[1] == 3 and defense.facts()["sent_share"] == pytest.approx(3 / channels)
    strided = started(ResSfl(channels=3, stride=2), Cnn, cut=cut, width=8).model.client(x)
    assert strided.shape[2:] == tuple((side + 1) // 2 for side in sent.shape[2:])
    assert plan.model.blocks(x)[(cut or 0) + 1].shape == (2, channels, *sent.shape[2:])
    assert plan.model.divides(x) and plan.model(x).shape == (2, 5)


@pytest.mark.parametrize("whole", [(6, 7, 9), (6, 8, 8), (20,), (5, 12)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_expansion_has_the_size_that_the_bottleneck_was_given(whole, stride):
    narrow, wide = bottleneck(whole, 2, stride, relu=True)
    sent = narrow(torch.rand(4, *whole))
    assert sent.shape[1 if len(whole) == 3 else -1] == 2 and float(sent.detach().min()) >= 0
    assert wide(sent).shape == (4, *whole)
    torch.manual_seed(0)
    assert float(bottleneck(whole, 2, stride, relu=False)[0](torch.rand(4, *whole)).detach().min()) < 0


def test_the_private_data_hardly_move_what_the_public_data_taught_the_client(digits8, started):
    """At a rate of 0 the client's weights are the expert's to the bit, while the server's part has learned."""

    def after(client_lr, public=digits8.public):
        defense = ResSfl(alpha=0.0, client_lr=client_lr)
        plan = started(defense, Cnn, Recipe(epochs=2, batch_size=64), width=8)
        plan = dataclasses.replace(plan, public=public)
        fresh = {name: value.clone() for name, value in plan.model.named_parameters()}
        return fresh, dict(defense.fit(plan).named_parameters()), defense.facts()["expert"]

    fresh, frozen, expert = after(0.0)
    assert expert == "public"
    client, server = "stages.0.0.0.weight", "stages.2.0.weight"
    distances = [float((after(rate)[1][client] - frozen[client]).norm().detach()) for rate in (0.1, 1.0)]
    assert 0 < distances[0] < distances[1] / 2
    assert not torch.equal(frozen[client], fresh[client])  # the public data taught it
    slow, free = after(0.1)[1], after(1.0)[1]
    assert not torch.equal(slow[server], fresh[server]) and not torch.equal(slow["head.weight"], free["head.weight"])
    unknown = Examples(digits8.public.x, torch.zeros_like(digits8.public.y))
    assert after(0.1, unknown)[2] == after(0.1, None)[2] == "private"
    assert not ResSfl(transfer=False).learns_from_public


def test_it_acts_on_vectors_and_refuses_what_runs_in_one_piece(digits8, started):
    plan = started(ResSfl(channels=6), hidden=(24, 16))
    assert plan.model.client(digits8.private.test.x[:3]).shape == (3, 6)
    with pytest.raises(UserError, match="defense=ressfl acts behind a stage"):
        started(ResSfl(), TorchvisionModel, arch="resnet18", size=32)
