import pytest
import torch
from exact import variation
from torch import nn

from mibench.access import FeaturesView, Ledger
from mibench.attacks.split_rmle import SplitRmle
from mibench.attacks.unsplit import UnSplit, stretched
from mibench.card import TargetCard
from mibench.errors import NotGrantedError
from mibench.knowledge import Knowledge
from mibench.targets.base import Target
from mibench.tasks.instance import InstanceGoal

CPU = torch.device("cpu")
COUNT = 10


class Shallow(Target):
    """A client part of one convolution of four channels and a ReLU."""

    card = TargetCard(name="shallow", title="", modalities=("image",))

    def __init__(self, *, spec):
        super().__init__(spec=spec)
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())])
        self.head = nn.Linear(4 * 64, spec.classes)


def fresh(split, seed):
    torch.manual_seed(seed)
    return Shallow(spec=split.spec)


@pytest.fixture(scope="module")
def observed(digits8):
    """A view of what the first client part sends for ten digits, and these."""
    model, x = fresh(digits8, 0), digits8.private.test.x[:COUNT]
    with torch.no_grad():
        sent = model.client(x)[None]

    def untrained(seed):
        return fresh(digits8, seed % 1000 + 1).client

    return FeaturesView.of(model, sent, digits8.spec, Ledger(), CPU, ask=model.client, untrained=untrained), x


def run(attack, view):
    return attack(view, Knowledge(), InstanceGoal(COUNT, 1), seed=0)


def likeness(made, truth):
    """Returns the absolute correlation of every image with its truth, shape ``(N,)``."""
    pairs = zip(made.flatten(1), truth.flatten(1), strict=True)
    return torch.stack([torch.corrcoef(torch.stack(pair))[0, 1].abs() for pair in pairs])


def test_both_descents_are_along_the_formula(observed, monkeypatch):
    """Three steps of the images and two of the copy, twice: the slopes that Adam gets, against the formula's."""
    view, _ = observed
    steps, real = [], torch.optim.Adam.step

    def step(self, *how):
        weights = self.param_groups[0]["params"]
        steps.append(([one.detach().clone() for one in weights], [one.grad.clone() for one in weights]))
        return real(self, *how)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    run(UnSplit(rounds=2, input_steps=3, model_steps=2, lr=0.05, tv=0.7, l2=0.3), view)
    assert [len(weights) for weights, _ in steps] == [1, 1, 1, 2, 2] * 2, "three steps of images, two of the copy"
    assert bool((steps[0][0][0] == 0.5).all()), "the first images are grey"
    for place, (weights, gradients) in enumerate(steps):
        before = steps[: place + 1]
        x = next(one[0] for one, _ in reversed(before) if len(one) == 1)
        if len(weights) == 1 and place in (1, 2):
            x = x.requires_grad_(True)
            copy = next(one for one, _ in steps[place:] if len(one) == 2)  # not moved since
            features = nn.functional.conv2d(x, *copy, padding=1).relu()
            loss = (features - view.features).square().flatten(1).mean(1)
            loss = loss + 0.7 * variation(x, 2) + 0.3 * x.square().flatten(1).mean(1)
            torch.testing.assert_close(gradients[0], torch.autograd.grad(loss.sum(), x)[0], atol=1e-6, rtol=1e-4)
    assert not torch.equal(steps[3][0][0], steps[4][0][0]), "the copy moves"


def test_inputs_are_found_without_weights_or_data(observed):
    """Measured: a correlation of 0.66; noise has 0.08, ``split_rmle`` with the weights 1.00."""
    view, x = observed
    short = UnSplit(rounds=1, input_steps=25, model_steps=25)
    result = run(UnSplit(rounds=60, input_steps=25, model_steps=25), view)
    found = float(likeness(result.reconstruction.values, x).mean())
    noise = float(likeness(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)), x).mean())
    white = float(likeness(run(SplitRmle(iterations=300, restarts=1), view).reconstruction.values, x).mean())
    assert found > 0.35
    assert noise < 0.15
    assert white > found  # who holds the weights does better
    assert bool((result.reconstruction.loss < run(short, view).reconstruction.loss).all())


def test_nothing_is_asked_of_the_client(observed):
    view, _ = observed
    before = view.ledger.queries
    run(UnSplit(rounds=1, input_steps=1, model_steps=1), view.narrow("architecture"))
    assert view.ledger.queries == before
    with pytest.raises(NotGrantedError, match=r"knowledge\.encoder=architecture"):
        run(UnSplit(rounds=1), view.narrow("none"))


def test_the_best_round_is_returned(observed):
    """Steps so long that some rounds are worse than the one before: more rounds never end at more than fewer."""
    view, _ = observed
    losses = [
        float(run(UnSplit(rounds=n, input_steps=1, model_steps=1, lr=0.3), view).reconstruction.loss.mean())
        for n in range(1, 9)
    ]
    assert losses == sorted(losses, reverse=True) and len(set(losses)) < 8


def test_what_is_returned_is_stretched_or_clamped(observed):
    view, _ = observed
    full, clamped = (
        run(UnSplit(rounds=1, input_steps=3, model_steps=1, stretched=one), view).reconstruction.values.flatten(1)
        for one in (True, False)
    )
    assert bool((full.amin(1) == 0).all()) and float(full.amax(1).min()) > 1 - 1e-5
    assert 0.3 < float(clamped.min()) < float(clamped.max()) < 0.7


def test_images_are_stretched_to_the_full_range():
    made = stretched(torch.tensor([[[[0.2, 0.4]]], [[[0.3, 0.3]]]]))
    torch.testing.assert_close(made, torch.tensor([[[[0.0, 1.0]]], [[[0.0, 0.0]]]]))
