import pytest
import torch
from exact import inside, variation

from mibench.access import FeaturesView, Ledger
from mibench.attacks import split_rmle
from mibench.attacks.split_rmle import SplitRmle
from mibench.errors import NotGrantedError
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal

CPU = torch.device("cpu")
COUNT = 8


def observe(split, hidden, seed=0, noise=0.0, sends=1, held=None):
    """Returns a view of what a client with ``hidden`` units sends, its inputs, and whose encoder the attacker holds."""
    torch.manual_seed(seed)
    model = Mlp(spec=split.spec, hidden=[hidden])
    rows = torch.randperm(len(split.private.test), generator=torch.Generator().manual_seed(1))[:COUNT]
    x = split.private.test.x[rows]
    with torch.no_grad():
        sent = model.client(x).expand(sends, -1, -1)
    sent = sent + noise * torch.randn(sent.shape, generator=torch.Generator().manual_seed(2))
    if held is not None:
        torch.manual_seed(held)
        model = Mlp(spec=split.spec, hidden=[hidden])
    view = FeaturesView.of(model, sent, split.spec, Ledger(), CPU, ask=model.client, untrained=lambda seed: None)
    return view, x


def error(split, hidden, iterations=1500, restarts=1, **observed):
    view, x = observe(split, hidden, **observed)
    result = SplitRmle(iterations=iterations, restarts=restarts)(view, Knowledge(), InstanceGoal(COUNT, 1), seed=0)
    return float(squared_errors(result.reconstruction.values, x).mean())


def mean_error(split):
    x = observe(split, 8)[1]
    return float(squared_errors(split.private.train.x.mean(0).expand_as(x), x).mean())


def test_what_descends_is_the_formula(digits8):
    """Feature distance, squared variation and norm with their weights; starts are grey but for a little noise."""
    view, _ = observe(digits8, 32)

    def look(start, objective, steps, **options):
        u = torch.rand(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        apart = (view.encoder(u) - view.features).square().flatten(1).mean(1)
        expected = apart + 0.7 * variation(u, 2) + 0.3 * u.square().flatten(1).mean(1)
        torch.testing.assert_close(objective(u).detach(), expected.detach())
        assert float((start[0] - 0.5).abs().max()) < 0.1 and float(start[0].std()) > 0
        assert options["amsgrad"] is True and options["lr"] == 0.02
        assert torch.equal(options["project"]([3 * u])[0], (3 * u).clamp(0, 1))

    attack = SplitRmle(tv=0.7, l2=0.3)
    inside(split_rmle, "adam_descent", lambda: attack(view, Knowledge(), InstanceGoal(COUNT, 1), seed=0), look)


def test_every_restart_has_a_start_of_its_own_and_the_nearest_point_is_returned(digits8, monkeypatch):
    """The distance alone decides, not the regularisers: of two given points the one whose features fit."""
    view, x = observe(digits8, 32)
    starts = []

    def descend(start, objective, steps, **options):
        starts.append(start[0])
        objective(x)
        return [torch.full_like(x, 0.5)]

    monkeypatch.setattr(split_rmle, "adam_descent", descend)
    found = SplitRmle(tv=50.0, l2=50.0)(view, Knowledge(), InstanceGoal(COUNT, 1), seed=0).reconstruction
    assert torch.equal(found.values, x) and len(starts) == 2 and not torch.equal(*starts)


def test_an_injective_client_gives_its_inputs_away(digits8):
    """Measured: 0 to rounding with the client's weights; 0.30 with another client's (the mean image: 0.08)."""
    floor = mean_error(digits8)
    assert error(digits8, 192) < 1e-8
    assert error(digits8, 192, held=5, iterations=300) > 1.5 * floor


def test_a_narrow_client_does_not(digits8):
    """A negative control: from 32 units behind a ReLU no search can tell 64 pixels."""
    assert error(digits8, 32, iterations=600) > 0.3 * mean_error(digits8)


def test_the_mean_of_what_was_sent_is_matched(digits8):
    once, often = (error(digits8, 192, iterations=300, noise=0.5, sends=sends) for sends in (1, 32))
    assert often < 0.3 * once


def test_the_lowest_feature_distance_is_returned_with_its_loss(digits8):
    view, _ = observe(digits8, 48)
    result = SplitRmle(iterations=40, restarts=2)(view, Knowledge(), InstanceGoal(COUNT, 1), seed=0)
    answer = result.reconstruction
    apart = (view.encoder(answer.values) - view.features).square().mean(1)
    torch.testing.assert_close(apart, answer.loss, rtol=1e-4, atol=1e-6)
    first = SplitRmle(iterations=40, restarts=1)(view, Knowledge(), InstanceGoal(COUNT, 1), seed=0).reconstruction
    assert bool((answer.loss <= first.loss).all()) and bool((answer.loss < first.loss).any())
    assert result.ledger["gradients"]["optimise"] == 2 * 40 * COUNT
    assert result.ledger["queries"]["select"] == 2 * COUNT


def test_the_regularisers_smooth_and_darken(digits8):
    view, _ = observe(digits8, 32)

    def made(**options):
        return SplitRmle(iterations=200, restarts=1, **options)(
            view, Knowledge(), InstanceGoal(COUNT, 1), seed=0
        ).reconstruction.values

    plain, smooth, dark = made(), made(tv=0.5), made(l2=0.5)
    assert float(smooth.diff(dim=-1).square().mean()) < 0.8 * float(plain.diff(dim=-1).square().mean())
    assert float(dark.mean()) < 0.8 * float(plain.mean())


def test_without_the_weights_it_is_refused(digits8):
    view = observe(digits8, 32)[0].narrow("query")
    with pytest.raises(NotGrantedError, match=r"knowledge\.encoder=weights"):
        SplitRmle(iterations=1)(view, Knowledge(), InstanceGoal(COUNT, 1), seed=0)
