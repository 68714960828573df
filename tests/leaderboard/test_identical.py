"""Levels of a sweep that come out identical."""

import numpy as np
import pandas as pd
import pytest

from mibench.leaderboard.identical import identical_groups


def rows(*values, seeds=(0, 1), metric="psnr"):
    pairs = zip(values, [seed for seed in seeds for _ in range(len(values) // len(seeds))], strict=True)
    return pd.DataFrame([{"metric": metric, "variant": str(place % 2), "seed": seed, "value": value}
                         for place, (value, seed) in enumerate(pairs)])  # fmt: skip


def test_groups_are_one_class_where_every_number_agrees_to_the_last_bit():
    base = (1.0, 0.1 + 0.2, np.nan, 3.0)
    groups = {
        "weak": rows(*base),
        "middle": rows(*base).iloc[::-1],
        "near": rows(1.0, 0.3, np.nan, 3.0),
        "strong": rows(1.0, 0.3, np.nan, 3.0),
        "other metric": rows(*base, metric="ssim"),
        "other seeds": rows(*base, seeds=(0, 2)),
        "fewer": rows(*base).iloc[:3],
        "swapped": rows(0.1 + 0.2, 1.0, np.nan, 3.0),
        "number": rows(1.0, 0.1 + 0.2, 0.0, 3.0),
        "nothing": rows(np.nan, np.nan),
        "nothing else": rows(np.nan, np.nan),
    }
    assert identical_groups(groups) == [["weak", "middle"], ["near", "strong"]]
    assert identical_groups({}) == [] == identical_groups({"alone": rows(*base)})


@pytest.mark.parametrize("column", ["metric", "variant", "seed"])
def test_what_a_number_is_of_counts(column):
    one, other = rows(1.0, 2.0), rows(1.0, 2.0)
    assert identical_groups({1: one, 2: other}) == [[1, 2]]
    other[column] = ["a", "b"]
    assert identical_groups({1: one, 2: other}) == []
