import copy
import dataclasses
from functools import partial

import pytest
import torch
from exact import cosine_distance, inside, variation

from mibench.attacks import sgi
from mibench.attacks.sgi import Sgi, quantised
from mibench.data import Examples
from mibench.errors import NotGrantedError
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.nn.batch_norm import running_buffers, use_batch_statistics
from mibench.optim.batch_norm_prior import known_statistics
from mibench.optim.regularisers import BatchNormStatistics, statistics_mismatch
from mibench.optim.row_adam import Adam
from mibench.targets.cnn import Cnn
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal

COUNTS = (5, 3, 3, 1)


def crowd(client_view, split, seed):
    """Returns a view of a batch of 12 digits, whose four classes are four of 100 ids, 5, 3, 3 and 1 times there."""
    spec = dataclasses.replace(split.spec, classes=100)
    torch.manual_seed(seed)
    model = Mlp(spec=spec, hidden=[64])
    ids, digits = torch.randperm(100)[:4], torch.randperm(5)[:4]
    private = split.private.train
    rows = [torch.nonzero(private.y == digit).flatten() for digit in digits]
    rows = [one[torch.randperm(len(one))[:count]] for one, count in zip(rows, COUNTS, strict=True)]
    y = ids.repeat_interleave(torch.tensor(COUNTS))
    return client_view(model, Examples(private.x[torch.cat(rows)], y), 12), y.sort().values


def named(client_view, split, seed, **options):
    view, truth = crowd(client_view, split, seed)
    goal, found = InstanceGoal(1, 12), Sgi(generations=60, iterations=1, **options)
    return found(view, Knowledge(public_data=split.public), goal, seed=seed).reconstruction.labels, truth


def score(client_view, split, **options):
    """Returns of how many of ten batches the set of classes, and their counts, are right."""
    found = [named(client_view, split, seed, **options) for seed in range(10)]
    sets = sum(set(one.tolist()) == set(truth.tolist()) for one, truth in found)
    return sets, sum(torch.equal(one.sort().values, truth) for one, truth in found)


def test_what_descends_is_the_formula_step_by_step(digits_view, monkeypatch):
    """Distances under the step's mask, total variation from step 2, batch-norm terms from step 4; the doubling."""
    view, secret = digits_view(partial(Cnn, width=4), 2)
    masks, mask = [], Sgi.mask
    monkeypatch.setattr(Sgi, "mask", lambda self, *given: masks.append(mask(self, *given)) or masks[-1])
    monkeypatch.setattr(sgi, "known_statistics", lambda view: [None])
    monkeypatch.setattr(sgi, "of_messages", lambda known, own: known)
    monkeypatch.setattr(sgi, "statistics_mismatch", lambda seen, known, first: torch.full((2,), sum(first)))
    u, rows = torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(2)

    def look(adam, objective, start, found, steps, project, reshape):
        images = u * view.model.entry.std + view.model.entry.mean
        ours = view.updates(images, secret.y[:, None])
        theirs = {name: torch.stack([one[name] for one in view.messages]) for name in view.messages[0]}
        for step in steps:
            value, score = objective(rows, u)
            kept = masks[-1]
            masked = [{name: side[name] * kept[name] for name in kept} for side in (ours, theirs)]
            expected = cosine_distance(*masked) + 0.7 * (step >= 2) * variation(u[:, 0]) + 0.3 * (step >= 4) * 4.3
            torch.testing.assert_close(value, expected)
            torch.testing.assert_close(score, cosine_distance(ours, theirs))
            assert torch.equal(reshape([u])[0], (2 if step < 3 else 1) * quantised(u))
        assert len(masks) == 8 and len(masks[0]) < len(masks[-1]) == len(theirs)
        assert project(rows, [9 * u])[0].abs().max() < 9 * u.abs().max()
        return [adam.rate(step) for step in range(8)]

    options = {"iterations": 8, "period": 2, "tv": 0.7, "tv_after": 2, "bn": 0.3, "bn_after": 4, "boost": 3}
    attack = Sgi(end=0.0, stride=0.4, label_rule="bias_corrected", decay_at=(0.5,), **options)
    rates = inside(Adam, "minimise", lambda: attack(view, Knowledge(), InstanceGoal(2, 1), seed=0), look)
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 4)


def test_repeated_labels_are_counted_where_rules_without_repeats_must_fail(client_view, digits8):
    sets, exact = score(client_view, digits8)
    assert sets >= 9
    assert exact >= 6
    assert score(client_view, digits8, label_rule="lowest_rows")[1] == 0


def test_the_label_rule_looks_at_public_images_and_is_charged_for_them(client_view, digits8):
    view, _ = crowd(client_view, digits8, 0)
    attack, goal = Sgi(generations=5, iterations=1, proxies=30), InstanceGoal(1, 12)
    result = attack(view, Knowledge(public_data=digits8.public), goal, seed=0)
    assert result.ledger["queries"]["initialise"] == 30
    with pytest.raises(NotGrantedError, match="needs public data"):
        attack(view, Knowledge(), goal, seed=0)


def test_layers_join_as_they_do_in_a_resnet34():
    attack = Sgi()
    starts = [attack.first(step, 110) for step in range(0, 6000, 500)]
    assert starts == [100, 90, 80, 70, 60, 50, 40, 30, 25, 25, 25, 25]
    assert attack.first(499, 110) == 100
    assert attack.first(0, 8) == 6  # the classifier's two tensors always count
    assert Sgi(end=0.0).first(10**6, 110) == 0


def test_masks_keep_their_share_of_the_entries_that_count_and_are_fresh():
    message = {f"layer{number}": torch.ones(20, 500) for number in range(11)}
    attack, draws = Sgi(), torch.Generator().manual_seed(0)
    first, second = (attack.mask(step, message, draws) for step in (3000, 3001))
    assert list(first) == [f"layer{number}" for number in range(4, 11)]
    for one in (first, second):
        assert 0.68 < float(torch.stack(list(one.values())).mean()) < 0.72
    assert not torch.equal(first["layer10"], second["layer10"])
    assert float(torch.stack(list(Sgi(keep_prob=1.0).mask(0, message, draws).values())).min()) == 1


def test_gradients_are_quantised_by_their_own_rows_median():
    gradient = torch.tensor([[-8.0, -1.0, 0.1, 0.6, 2.0]])
    torch.testing.assert_close(quantised(gradient), torch.tensor([[-1.0, -1.0, 0.2, 0.6, 1.0]]))
    both = quantised(torch.cat([gradient, 1e-6 * gradient]))
    torch.testing.assert_close(both[0], both[1])
    assert torch.equal(quantised(torch.zeros(1, 4)), torch.zeros(1, 4))


def searched(view, split, **options):
    attack = Sgi(**{"iterations": 300, "period": 10, "tv_after": 100, "boost": 5, **options})
    return attack(view, Knowledge(public_data=split.public), InstanceGoal(2, 1), seed=0).reconstruction


def test_images_come_back_once_all_layers_have_joined(digits8, digits_view):
    view, secret = digits_view(partial(LeNet, channels=8), 2)
    result = searched(view, digits8)
    assert torch.equal(result.labels, secret.y)
    late = searched(view, digits8, stride=1e-6, iterations=100)  # the stub: earlier layers never join
    assert float(squared_errors(result.values, secret.x).max()) < 0.05
    assert float(squared_errors(late.values, secret.x).min()) > 0.1


def test_a_message_comes_out_the_same_whoever_else_is_attacked(digits8, digits_view):
    view, _ = digits_view(partial(LeNet, channels=8), 2)
    together = searched(view, digits8, iterations=15)
    attack = Sgi(iterations=15, period=10, tv_after=100, boost=5)
    alone = dataclasses.replace(view, messages=view.messages[:1])
    single = attack(alone, Knowledge(public_data=digits8.public), InstanceGoal(1, 1), seed=0).reconstruction
    torch.testing.assert_close(together.values[:1], single.values, atol=2e-3, rtol=0)


def test_batch_norm_statistics_count_late_and_where_the_attacker_knows_them(digits8, client_view):
    torch.manual_seed(0)
    model, secret = Cnn(spec=digits8.spec, width=4).eval(), digits8.private.train[torch.arange(2)]
    fresh = copy.deepcopy(model)
    model.train()(secret.x)
    buffers = [running_buffers(model)]
    use_batch_statistics(fresh)
    view = client_view(fresh, secret, 2, buffers=buffers)

    def apart(view, **options):
        found = Sgi(label_rule="bias_corrected", iterations=60, tv=0.0, period=5, **options)
        images = found(view, Knowledge(public_data=digits8.public), InstanceGoal(1, 2), seed=0).reconstruction.values
        with torch.no_grad(), BatchNormStatistics(fresh, unbiased=True) as statistics:
            fresh(images)
            return statistics_mismatch(statistics.read(), [one[0] for one in known_statistics(view)]).item()

    without = apart(view, bn=0.0)
    assert apart(view, bn=1.0, bn_after=10) < 0.5 * without
    assert apart(view, bn=1.0, bn_after=60) == without
    blind = dataclasses.replace(view, buffers=())
    assert known_statistics(blind) == []
