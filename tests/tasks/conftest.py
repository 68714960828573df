"""Cases as the cell makes them."""

from __future__ import annotations

import pytest
import torch

from mibench.tasks.base import Budget, Case


@pytest.fixture
def make_case():
    """Makes a case of a split; what a test does not give must not be asked for."""

    def refuse(*_arguments):
        raise AssertionError("not part of this task")

    def make(split, *, targets=3, samples=2, records=50, seed=0, **given):
        fields = {
            "secret": None,
            "utility": {"correct": torch.ones(2), "chance": 0.5},
            "evaluators": refuse,
            "attack_held_out": refuse,
            "victim": refuse,
        }
        budget = Budget(name="smoke", targets=targets, samples=samples, records=records)
        return Case(split=split, budget=budget, seed=seed, **{**fields, **given})

    return make
