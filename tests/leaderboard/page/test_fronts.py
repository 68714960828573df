"""How often a victim stays on the front of privacy and utility."""

import numpy as np
import pytest

from mibench.leaderboard.page.fronts import front_shares, on_front


def test_who_leaks_less_at_more_accuracy_beats_on_every_draw():
    lifts = np.array([[0.5] * 6, [0.4] * 6, [0.6] * 6, [0.1] * 6])
    assert on_front(lifts, np.array([0.9, 0.8, 0.85, 0.5])) == [1, 1, 0, 1]
    assert on_front(lifts, np.array([0.9, 0.9, 0.9, 0.9])) == [0, 0, 0, 1], "as accurate is enough"
    assert on_front(np.array([[0.5] * 6] * 2), np.array([0.9, 0.9])) == [1, 1], "equal ones do not beat each other"


def test_shares_are_those_of_draws_over_targets():
    draws = np.random.default_rng(5)
    lifts = draws.normal(0.5, 0.2, size=(2, 30))
    lifts[1] += 0.02
    again = draws.choice(lifts[0] - lifts[1], size=(20000, 30)).mean(axis=1)
    first, second = on_front(lifts, np.array([0.9, 0.8]))
    assert first == 1, "the most accurate one is beaten by nobody"
    assert 0.1 < second < 0.9 and second == pytest.approx(float((again >= 0).mean()), abs=0.04)


def test_groups_without_accuracy_or_targets_take_no_part(group, sources):
    gains = np.linspace(0.3, 0.7, 8).tolist()
    made = sources(
        group(gains=gains, accuracy=0.9), group("gmi", "bido", gains=[g - 0.2 for g in gains], accuracy=0.9),
        group("gmi", "mid", gains=gains, accuracy=float("nan")), group("gmi", "top_k", lift=0.0, accuracy=0.99),
    )  # fmt: skip
    assert front_shares(made.records) == {0: 0.0, 1: 1.0}
    assert front_shares(made.records[2:]) == {}
    few = sources(group(gains=gains[:4]), group("gmi", "bido", gains=gains[:4]))
    assert front_shares(few.records) == {}


def test_the_draws_are_the_same_every_time():
    lifts = np.random.default_rng(0).normal(size=(5, 12))
    assert on_front(lifts, np.linspace(0.5, 0.9, 5)) == on_front(lifts, np.linspace(0.5, 0.9, 5))
