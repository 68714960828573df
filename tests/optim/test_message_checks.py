"""Messages that say nothing, or the opposite."""

import dataclasses

import pytest
import torch

from mibench.attacks.dlg import Dlg
from mibench.attacks.inverting_gradients import InvertingGradients
from mibench.knowledge import Knowledge
from mibench.optim.message_checks import looks_reversed, silent_messages
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal


def scaled(view, *factors):
    pairs = zip(factors, view.messages, strict=True)
    messages = [{name: factor * value for name, value in one.items()} for factor, one in pairs]
    return dataclasses.replace(view, messages=messages)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_opposite_sign_is_seen_wherever_classes_tell(digits_view, batch):
    view, _ = digits_view(Mlp, 3, batch=batch)
    assert looks_reversed(scaled(view, -1, -1, -1)) and not looks_reversed(view)
    assert not looks_reversed(scaled(view, -1, -1, 1)), "one message of the right sign and the client is right"
    many, _ = digits_view(Mlp, 3, batch=4)
    assert not looks_reversed(many) and not looks_reversed(scaled(many, -1, -1, -1)), "five classes do not tell of four"
    noisy = {name: torch.tensor([1.0, -1, 1, -1, -1]).expand_as(value) for name, value in view.messages[0].items()
             if name == "head.bias"}  # fmt: skip
    assert looks_reversed(dataclasses.replace(view, messages=[noisy])) == (batch == 2)
    assert not looks_reversed(dataclasses.replace(view, messages=[{"head.weight": noisy["head.bias"]}]))


@pytest.mark.parametrize("kind", [Dlg, InvertingGradients])
@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_an_attack_that_meets_them_ends_with_finite_answers(digits_view, kind, factor):
    view, _ = digits_view(Mlp, 2)
    odd = scaled(view, factor, 1.0)
    assert silent_messages(odd) == ([0] if factor == 0 else [])
    found = kind(iterations=3, restarts=1)(odd, Knowledge(), InstanceGoal(2, 1), seed=0).reconstruction
    assert found.values.isfinite().all()
