import dataclasses

import pytest
import torch

from mibench.data import Column
from mibench.errors import NotMeasurableError
from mibench.metrics.tolerance_accuracy import ToleranceAccuracy
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth

COLUMNS = (Column("age"), Column("kind", ("A", "B")))


def truth_of(x, columns=COLUMNS, spread=(5.0, 0.5)):
    y = torch.zeros(len(x), dtype=torch.long)
    return InstanceTruth(
        correct=torch.ones(1), chance=0.5, x=x, y=y, target=y, columns=columns, spread=torch.tensor(spread)
    )


def shares(made, truth, valid=None, **options):
    measured = ToleranceAccuracy(**options).measure(Reconstruction(made, truth.target, valid=valid), truth)
    return {one.variant: one.values.tolist() for one in measured}


def test_values_that_were_worked_out_by_hand():
    """The tolerance is 0.319 * 5 = 1.595: 31 is right of a true 30, and 32 is not."""
    truth = truth_of(torch.tensor([[30.0, 0.0], [30.0, 0.0], [30.0, 0.0]]))
    made = torch.tensor([[31.0, 0.0], [32.0, 1.0], [31.5, 1.0]])
    assert shares(made, truth) == {"": [1.0, 0.0, 0.5], "categorical": [1.0, 0.0, 0.0], "continuous": [1.0, 0.0, 1.0]}
    assert shares(made, truth, tolerance=0.1)["continuous"] == [0.0, 0.0, 0.0]


def test_a_missing_record_has_no_column_right():
    truth = truth_of(torch.tensor([[30.0, 0.0], [30.0, 0.0]]))
    assert shares(truth.x, truth, torch.tensor([True, False]))[""] == [1.0, 0.0]


def test_a_kind_without_columns_is_skipped_with_a_reason():
    truth = truth_of(torch.tensor([[0.0]]), COLUMNS[1:], (0.5,))
    measured = ToleranceAccuracy().measure(Reconstruction(truth.x, truth.target), truth)
    assert [(one.variant, one.reason) for one in measured if one.reason] == [("continuous", "No column is continuous.")]


def test_without_a_spread_nothing_is_measured():
    truth = dataclasses.replace(truth_of(torch.tensor([[30.0, 0.0]])), spread=None)
    with pytest.raises(NotMeasurableError, match="no private training records"):
        shares(truth.x, truth)
