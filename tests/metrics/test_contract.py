"""What holds for every metric of the catalogue."""

import dataclasses
import math

import pytest
import torch

from mibench.data import Column, Examples, Population
from mibench.leaderboard.scoring import score
from mibench.metrics.mse import Mse
from mibench.planning.catalogue import entries
from mibench.planning.composition import build
from mibench.tasks import get_task
from mibench.tasks.attribute import AttributeTruth
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth
from mibench.tasks.completion import CompletionTruth, hole_mask
from mibench.tasks.edges import EdgesTruth
from mibench.tasks.instance import InstanceTruth

CATALOGUE = {one.name: one for one in entries("metric")}

#: A perfect value is 1 where higher is leakier and 0 otherwise, except for these.
PERFECT = {("psnr", ""): 100.0, ("psnr", "hole"): 100.0}

UTILITY = {"correct": torch.ones(4), "chance": 0.5}
SIDE = 16


#: The schema of the records that metrics of tables are given.
COLUMNS = (Column("kind", ("a", "b", "c")), Column("size"), Column("colour", tuple("abcde")), Column("age"))


def records(size, draw):
    """Returns records whose numbers lie in [0, 1], as the pixels of images do."""
    numbers = torch.rand(size, len(COLUMNS), generator=draw)
    codes = (numbers * torch.tensor([len(column.values) or 1 for column in COLUMNS])).floor()
    return codes.where(torch.tensor([column.categorical for column in COLUMNS]), numbers)


def perfect_case(name, task, size, evaluator):
    """Returns a reconstruction that is the truth itself, shuffled as far as the task leaves the order open.

    It is of images, or of records where the metric takes no images.
    """
    draw = torch.Generator().manual_seed(size)
    x, y = torch.rand(size, 1, SIDE, SIDE, generator=draw), torch.arange(size)
    order = torch.randperm(size, generator=draw)
    if task == "instance" and "image" not in CATALOGUE[name].card.modalities:
        message, x, more = torch.zeros(size, dtype=torch.long), records(size, draw), records(100, draw)
        pool = Examples(torch.cat([x, more]), torch.zeros(size + 100, dtype=torch.long))
        table = {"columns": COLUMNS, "spread": pool.x.std(0)}
        truth = InstanceTruth(x=x, y=y, target=message, private=Population(pool, pool), **table, **UTILITY)
        return Reconstruction(x[order], message, y[order]), truth
    if task == "class":
        everyone = Population(Examples(x, y), Examples(x, y))
        evaluators = [evaluator(x, "one"), evaluator(x, "two")]
        truth = ClassTruth(private=everyone, evaluators=evaluators, subject="face", **UTILITY)
        return Reconstruction(x[order], y[order]), truth
    if task == "instance":
        message = torch.zeros(size, dtype=torch.long)
        pool = Examples(torch.cat([x, torch.rand(x.shape, generator=draw)]), torch.cat([y, y]))
        truth = InstanceTruth(x=x, y=y, target=message, private=Population(pool, pool), **UTILITY)
        return Reconstruction(x[order], message, y[order]), truth
    if task == "completion":
        place = torch.arange(size)
        truth = CompletionTruth(x=x, y=y, target=place, hole=hole_mask("centre", SIDE, SIDE), **UTILITY)
        return Reconstruction(x, place, y), truth
    if task == "edges":
        linked = torch.arange(2 * size) % 2 == 0
        return Reconstruction(linked.float(), torch.arange(2 * size)), EdgesTruth(linked=linked, **UTILITY)
    assert task == "attribute"
    return Reconstruction(y % 3, torch.arange(size)), AttributeTruth(values=y % 3, choices=3, **UTILITY)


def cases(names):
    """Every metric with every task it measures and every batch size; tasks without a module have none."""
    for name in names:
        for task in CATALOGUE[name].card.tasks:
            for size in (1, 4, 16):
                if task in ("class", "instance", "completion", "attribute", "edges"):
                    yield pytest.param(name, task, size, id=f"{name}-{task}-{size}")


def built(name, **extra):
    """The metric at its defaults, with torch's own folder of weights."""
    return build(CATALOGUE[name].node, **extra)


def scored(metric, task, result, truth):
    return score(metric, get_task(task).align(result, truth), None, truth)


def imperfect(rows):
    """Returns the rows whose value is measured and not the perfect one; only those that speak of a leak have one."""
    wrong = []
    for row in rows:
        if row.higher_is_leakier is None:
            continue
        perfect = PERFECT.get((row.metric, row.variant), 1.0 if row.higher_is_leakier else 0.0)
        if row.status == "ok" and not math.isclose(row.value, perfect, abs_tol=1e-6):
            wrong.append(row)
    return wrong


LEAKS = [name for name, one in CATALOGUE.items() if not build(one.node).of_victim]


@pytest.mark.parametrize(("name", "task", "size"), cases(LEAKS))
def test_the_truth_itself_scores_perfectly_in_any_order(name, task, size, nearest_evaluator):
    result, truth = perfect_case(name, task, size, nearest_evaluator)
    rows = scored(built(name), task, result, truth)
    assert rows
    assert not imperfect(rows)
    for row in rows:
        assert row.status == "ok" or (row.status == "skipped" and row.reason and math.isnan(row.value))
        assert row.higher_is_leakier in (CATALOGUE[name].card.higher_is_leakier, None)
    assert any(row.higher_is_leakier == CATALOGUE[name].card.higher_is_leakier or row.reason for row in rows)


class WrongPairs(Mse):
    """The stub: compares each image with another original."""

    def measure(self, result, truth):
        return super().measure(dataclasses.replace(result, values=result.values.roll(1, 0)), truth)


def test_a_metric_that_compares_the_wrong_pairs_is_found_out(nearest_evaluator):
    result, truth = perfect_case("mse", "instance", 4, nearest_evaluator)
    assert imperfect(scored(WrongPairs(), "instance", result, truth))


@pytest.mark.parametrize(("name", "task", "size"), [case for case in cases(LEAKS) if case.values[2] == 16])
def test_no_answer_at_all_is_never_perfect(name, task, size, nearest_evaluator):
    result, truth = perfect_case(name, task, size, nearest_evaluator)
    grey = torch.full_like(result.values, 0.5) if result.values.is_floating_point() else torch.zeros_like(result.values)
    labels = None if result.labels is None else torch.zeros_like(result.labels)
    nothing = Reconstruction(grey, result.target, labels, torch.zeros(len(grey), dtype=torch.bool))
    rows = scored(built(name), task, nothing, truth)
    measured = [row for row in rows if row.status == "ok" and row.higher_is_leakier is not None]
    assert imperfect(measured) == measured


@pytest.mark.parametrize(("name", "task", "size"), [case for case in cases(LEAKS) if case.values[2] != 1])
def test_the_order_in_a_batch_changes_nothing(name, task, size, nearest_evaluator):
    result, truth = perfect_case(name, task, size, nearest_evaluator)
    if task in ("attribute", "completion", "edges"):
        pytest.skip("the place of a record, of a masked image or of a pair of nodes is given")
    draw = torch.Generator().manual_seed(0)
    noisy = (result.values + 0.3 * torch.randn(result.values.shape, generator=draw)).clamp(0, 1)
    result = dataclasses.replace(result, values=noisy)
    order = torch.randperm(size, generator=draw)
    labels = None if result.labels is None else result.labels[order]
    shuffled = Reconstruction(result.values[order], result.target[order], labels)
    before, after = (scored(built(name), task, one, truth) for one in (result, shuffled))
    assert [row.value for row in before] == pytest.approx([row.value for row in after], abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("name", [name for name, one in CATALOGUE.items() if "weights" in one.node])
def test_without_its_weights_a_metric_gives_a_reason_and_no_number(name, tmp_path, nearest_evaluator):
    metric = built(name, weights=tmp_path)
    for task in CATALOGUE[name].card.tasks:
        result, truth = perfect_case(name, task, 16, nearest_evaluator)
        rows = score(metric, result, result, truth)
        without = [row for row in rows if row.status == "skipped"]
        assert without
        assert not any(row.evaluator for row in rows if row not in without)  # what needs no network, as iip's pixels
        for row in without:
            assert str(tmp_path) in row.reason
            assert all(math.isnan(number) for number in (row.value, row.control, row.lift))


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_card_bears_the_name_of_its_yaml(name):
    one = CATALOGUE[name]
    assert one.node["name"] == name
    assert one.card.name == name
