"""Cases as the cell makes them."""

from __future__ import annotations

import pytest
import torch

from mibench.tasks.base import Budget, Case


@pytest.fixture
def make_case():
    """Makes a case of a split."""

    def make(split, *, targets=3, samples=2, records=50, seed=0, **given):
        fields = {
            "secret": None,
            "utility": {"correct": torch.ones(2), "chance": 0.5},
        }
        budget = Budget(name="smoke", targets=targets, samples=samples, records=records)
        return Case(split=split, budget=budget, seed=seed, **{**fields, **given})

    return make
