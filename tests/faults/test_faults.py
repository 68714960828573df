"""The n-th file operation fails, or the process is killed there: the same command then ends in the same rows.

``make faults`` tries a thousand points; here are a few of them, drawn from a seed.
"""

import random

import pytest
from faults.drivers import DRIVERS, RANDOM, REAL_CELL, warmed
from faults.harness import Point, thinned


def losses(cases, points):
    return [sentence for point in points for sentence in cases[point.driver].losses(point)]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    with warmed(tmp_path_factory.mktemp("few"), [one for one in DRIVERS if one.name in ("cell", "collect")]) as cases:
        yield cases


def test_a_handful_of_faults_lose_nothing(few):
    cell, collect = few["cell"].undisturbed.operations, few["collect"].undisturbed.operations
    verbs = {verb for verb, _, _ in [*cell, *collect]}
    assert verbs >= {"write", "rename", "unlink", "create"}, "the harness sees less than there is"
    points = thinned([point for case in few.values() for point in case.points()], 4, random.Random(0))
    assert not losses(few, points)


@pytest.mark.slow
def test_a_sample_of_all_faults_loses_nothing(tmp_path):
    draw = random.Random(1)
    with warmed(tmp_path / "home", [*DRIVERS, *RANDOM]) as cases:
        points = thinned([point for one in DRIVERS for point in cases[one.name].points()], 30, draw)
        kills = [Point(one.name, "random kill", draw.random()) for one in RANDOM for _ in range(2)]
        assert not losses(cases, [*points, *kills])


@pytest.mark.slow
def test_faults_of_a_real_cell_lose_nothing(tmp_path):
    with warmed(tmp_path / "home", [REAL_CELL]) as cases:
        assert not losses(cases, thinned(cases[REAL_CELL.name].points(), 3, random.Random(2)))
