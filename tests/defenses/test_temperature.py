from itertools import pairwise

import pytest
import torch

from mibench.defenses.temperature import Temperature
from mibench.errors import UserError

TEMPERATURES = [0.1, 0.5, 2.0, 5.0, 10.0, 100.0]


@pytest.fixture
def logits():
    return 3 * torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))


def times(scores, temperature):
    """A stub: scales probabilities instead of logits."""
    flat = scores / temperature
    return flat / flat.sum(1, keepdim=True)


def entropy(scores):
    return -(scores * scores.clamp_min(1e-30).log()).sum(1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_it_is_the_softmax_of_scaled_logits(logits, temperature):
    """Measured: off by at most 1.5e-6; the stub by 0.34 and more."""
    wanted = (logits / temperature).softmax(1)
    assert torch.allclose(Temperature(temperature=temperature).output(logits.softmax(1)), wanted, atol=1e-5)
    assert not torch.allclose(times(logits.softmax(1), temperature), wanted, atol=1e-2)


def test_entropy_rises_with_the_temperature(logits):
    found = [entropy(Temperature(temperature=value).output(logits.softmax(1))) for value in (0.5, 1.0, 2.0, 5.0, 10.0)]
    assert all(bool((later > earlier).all()) for earlier, later in pairwise(found))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_label_stays_even_where_two_classes_are_all_but_level(logits, temperature):
    """Of scores one number apart plain scaling makes ties: the stub is wrong on half of them."""
    scores = logits.softmax(1)
    near = torch.full((6, 8), 0.1)
    near[torch.arange(6), torch.arange(6) + 2] = torch.nextafter(torch.tensor(0.1), torch.tensor(1.0))
    scores = torch.cat([scores, near])
    labels = scores.argmax(1)
    assert torch.equal(Temperature(temperature=temperature).output(scores).argmax(1), labels)
    if temperature >= 10:
        assert not torch.equal((scores.log() / temperature).softmax(1).argmax(1), labels)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0, 10.0])
def test_who_knows_of_it_has_the_logits_again(logits, temperature):
    """Measured, of logits of deviation 1: off by at most 5e-6, at T = 10."""
    small = logits / 3
    back = temperature * Temperature(temperature=temperature).output(small.softmax(1)).log()
    wanted = small - small.mean(1, keepdim=True)
    assert torch.allclose(back - back.mean(1, keepdim=True), wanted, atol=1e-4)


def test_temperature_one_is_the_identity(logits):
    scores = logits.softmax(1)
    assert Temperature(temperature=1.0).output(scores) is scores


def test_a_small_one_leaves_the_label_alone(logits):
    answer = Temperature(temperature=1e-3).output(logits.softmax(1))
    assert torch.equal(answer.argmax(1), logits.argmax(1)) and float((answer.amax(1) == 1).float().mean()) > 0.9


def test_a_wrong_option_is_said_in_one_sentence():
    with pytest.raises(UserError, match=r"defense\.temperature.*above 0"):
        Temperature(temperature=0.0)
