"""The nearest class mean in an embedding: its probabilities, what it keeps, and its gradients."""

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from mibench.nn.class_means import ClassMeans
from mibench.nn.features import penultimate


class Directions(nn.Module):
    """The first two pixels of a picture, as a direction; counts the pictures that it is shown."""

    shown = 0

    def forward(self, x):
        self.shown += len(x)
        return normalize(x.flatten(1)[:, :2])


def pictures(*pixels):
    return torch.tensor(pixels).float().reshape(-1, 1, 1, 2)


@pytest.fixture
def judge():
    """Class 0 lies along the first axis, class 1 along the second: the mean of two directions beside it."""
    features = normalize(torch.tensor([[1.0, 0.0], [1.0, 3.0], [-1.0, 3.0]]))
    return ClassMeans(Directions(), features, torch.tensor([0, 1, 1]), temperature=0.5)


def test_its_probabilities_are_the_softmax_of_cosines_over_the_temperature(judge):
    x = pictures([1.0, 0.0], [3.0, 4.0])
    cosines = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert torch.allclose(judge.predict_proba(x), (cosines / 0.5).softmax(1), atol=1e-6)
    assert torch.allclose(penultimate(judge, x).float(), normalize(x.flatten(1)), atol=1e-6)


def test_it_embeds_an_image_once_and_one_that_it_is_told_of_never(judge):
    x = pictures([1.0, 0.0], [3.0, 4.0], [0.0, 2.0])
    judge.remember(x[:1], torch.tensor([[0.0, 1.0]]))
    first = judge.predict_proba(x[:2])
    assert judge.stages[0].shown == 1 and first[0].argmax() == 1, "what it was told counts"
    again = judge.predict_proba(x.flip(0))
    assert judge.stages[0].shown == 2 and torch.equal(again[1:].flip(0), first)


def test_gradients_reach_the_picture(judge):
    x = pictures([3.0, 4.0]).requires_grad_()
    judge.predict_proba(x.detach())
    (slope,) = torch.autograd.grad(judge(x)[0, 0], x)
    assert slope.abs().sum() > 0 and not any(weight.requires_grad for weight in judge.parameters())
