"""What a user's own module answers: taken, or refused in one sentence."""

import re
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from mibench.data import Column, InputSpec
from mibench.errors import UserError
from mibench.nn.answers import trial_inputs
from mibench.nn.foreign import register
from mibench.targets.checkpoint import Checkpoint

SPEC = InputSpec("image", (1, 4, 4), 3)
TWO = InputSpec("image", (1, 4, 4), 2)
PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


class Answering(nn.Module):
    """A linear layer and what is made of its outputs."""

    def __init__(self, make, outputs=3):
        super().__init__()
        self.out, self.make = nn.Linear(16, outputs), make

    def forward(self, x):
        return self.make(self.out(x.flatten(1)))


class Changing(Answering):
    def forward(self, x):
        x -= 0.5
        return super().forward(x)


class Dropping(nn.Module):
    """Dropout that no mode switches off."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(nn.functional.dropout(x.flatten(1), 0.5))


class Training(nn.Module):
    """A module that stays in training mode."""

    def __init__(self):
        super().__init__()
        self.drop, self.out = nn.Dropout(0.5), nn.Linear(16, 3)

    def train(self, mode=True):
        return super().train(True)

    def forward(self, x):
        return self.out(self.drop(x.flatten(1)))


def checkpoint(tmp_path, build, spec=SPEC):
    """The target with the weights of one module of that kind in a file."""
    torch.manual_seed(0)
    module = build()
    torch.save(module.state_dict(), tmp_path / "w.pt")
    factory = register("answering", build)
    return Checkpoint(spec=spec, factory=factory, weights=str(tmp_path / "w.pt")).eval(), module.eval()


def refused(tmp_path, build, spec=SPEC):
    with pytest.raises(UserError) as caught:
        checkpoint(tmp_path, build, spec)
    said = str(caught.value)
    assert "\n" not in said and said.endswith(".")
    return said


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("make", "end"), [
    (torch.sigmoid, "sigmoid"),
    (lambda z: torch.sigmoid(z)[:, :3].clone().view(-1, 3), "sigmoid"),
    (nn.functional.hardsigmoid, "hard sigmoid"),
    (lambda z: z.softmax(1), "softmax"),
    (lambda z: z.exp() / z.exp().sum(1, keepdim=True), "softmax"),
])  # fmt: skip
def test_probabilities_are_refused(make, end, frozen, tmp_path):
    said = refused(tmp_path, lambda: Answering(make).requires_grad_(not frozen))
    assert f"without {end} at its end" in said and "wrappers to copy" in said


def test_logits_that_happen_to_lie_between_0_and_1_are_taken(tmp_path):
    def build():
        module = Answering(lambda z: z)
        with torch.no_grad():
            module.out.weight.mul_(0.01)
            module.out.bias.fill_(0.5)
        return module

    checkpoint(tmp_path, build)
    checkpoint(tmp_path, lambda: Answering(lambda z: z.log_softmax(1)))


@pytest.mark.parametrize("squeeze", [False, True])
def test_one_output_is_two_classes(squeeze, tmp_path):
    make = (lambda z: z.squeeze(1)) if squeeze else (lambda z: z)
    model, module = checkpoint(tmp_path, lambda: Answering(make, 1), TWO)
    x = torch.rand(6, 1, 4, 4)
    z = module(x).reshape(-1)
    logits = model(x)
    assert torch.equal(logits[:, 0], torch.zeros(6)) and torch.allclose(logits[:, 1], z, atol=1e-6)
    assert torch.allclose(logits.softmax(1)[:, 1], z.sigmoid(), atol=1e-6)
    assert model.head.out_features == 2 and torch.equal(model.head(model.features(x)), logits)


def test_one_output_that_is_none_of_two_logits_is_sent_to_the_wrapper(tmp_path):
    assert "logits 0 and z: docs/audit.md" in refused(tmp_path, lambda: Answering(lambda z: z.sum(1), 1), TWO)
    assert "without sigmoid" in refused(tmp_path, lambda: Answering(torch.sigmoid, 1), TWO)
    assert "tells 2 classes apart, with one output, but the data have 3" in refused(
        tmp_path, lambda: Answering(lambda z: z, 1)
    )
    control = Checkpoint(spec=SPEC, factory=register("one", lambda: Answering(lambda z: z, 1)))
    assert control.eval()(torch.rand(2, 1, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(("make", "said"), [
    (lambda z: z / 0, "answers are not finite"),
    (lambda z: z * float("nan"), "answers are not finite"),
    (lambda z: z.argmax(1), "whole numbers"),
    (lambda z: (z, z), "returns tuple of 2"),
    (lambda z: {"logits": z}, r"dict with the logits inside \(.logits\)"),
    (lambda z: types.SimpleNamespace(logits=z), "logits inside"),
    (lambda z: z[:, :, None], r"shape \(8, 3, 1\)"),
    (lambda z: z.to("meta"), "answers on meta.*moves inputs or tensors to a device itself"),
])  # fmt: skip
def test_what_is_no_logits_is_said(make, said, tmp_path):
    assert re.search(said, refused(tmp_path, lambda: Answering(make)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to move to")
def test_a_model_that_moves_its_inputs_is_told_what_to_do(tmp_path):
    assert "take .cuda() and .to(DEVICE) out" in refused(tmp_path, lambda: Answering(lambda z: z.cuda()))
    with pytest.raises(UserError, match=r"cannot run here.*take \.cuda\(\)"):
        Checkpoint(spec=SPEC, factory=register("moved", lambda: Answering(lambda z: z).cuda()))


def test_inputs_changed_in_place_are_refused(tmp_path):
    assert "changes its inputs in place" in refused(tmp_path, lambda: Changing(lambda z: z))


@pytest.mark.parametrize(("build", "named"), [(Dropping, "the same input differently"), (Training, "the model itself")])
def test_dropout_that_stays_on_is_noted(build, named, tmp_path):
    state = torch.get_rng_state()
    model, _ = checkpoint(tmp_path, build)
    (remark,) = model.remarks
    assert named in remark and remark.endswith(".")
    plain, _ = checkpoint(tmp_path, lambda: Answering(lambda z: z))
    assert not plain.remarks
    torch.set_rng_state(state)


def test_trial_inputs_are_inputs():
    for spec in (
        SPEC,
        InputSpec("tabular", (3,), 2, (Column("a"), Column("b", ("u", "v")), Column("c", (), 1.0, 2.0))),
    ):
        spec.check(trial_inputs(spec))
        assert torch.equal(trial_inputs(spec), trial_inputs(spec)) and len(trial_inputs(spec).unique(dim=0)) == 8


# The wrappers of docs/audit.md


def wrappers():
    """The code blocks below the heading, by the name of their class."""
    text = PAGE.read_text().partition("## Wrappers")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return {re.search(r"class (\w+)", block)[1]: block for block in blocks}


INSIDE = {
    "First": (lambda z: (z, z.sum()), 3, SPEC, lambda z: z),
    "Logits": (lambda z: types.SimpleNamespace(logits=z), 3, SPEC, lambda z: z),
    "TwoLogits": (lambda z: z.sum(1), 1, TWO, lambda z: torch.cat([torch.zeros_like(z), z], 1)),
    "Unsquashed": (torch.sigmoid, 3, SPEC, lambda z: z),
    "Picked": (lambda z: z, 300, SPEC, lambda z: z[:, [207, 3, 42]]),
}


def test_every_wrapper_is_tried():
    assert set(wrappers()) == set(INSIDE)


@pytest.mark.parametrize("name", INSIDE)
def test_a_wrapper_of_the_page_runs_with_weights_that_lack_it(name, tmp_path, monkeypatch):
    make, outputs, spec, expected = INSIDE[name]
    mine = types.ModuleType("my_model")
    mine.build = lambda: Answering(make, outputs)
    monkeypatch.setitem(__import__("sys").modules, "my_model", mine)
    made = {}
    exec(wrappers()[name], made)
    torch.manual_seed(0)
    bare = mine.build()
    torch.save({"model": bare.state_dict()}, tmp_path / "w.pt")
    model = Checkpoint(spec=spec, factory=register("wrapped", made[name]), weights=str(tmp_path / "w.pt")).eval()
    x = torch.rand(5, 1, 4, 4)
    assert torch.allclose(model(x), expected(bare.out(x.flatten(1))), atol=1e-4)
