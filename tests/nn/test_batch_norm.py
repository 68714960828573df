"""Running statistics of batch norm that are estimated anew."""

import torch
from torch import nn

from mibench.nn import batch_norm
from mibench.nn.batch_norm import estimate_statistics


def network():
    torch.manual_seed(0)
    layers = (nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.5), nn.ReLU(), nn.BatchNorm1d(4))
    return nn.Sequential(*layers).eval()


def test_they_are_those_of_the_data_whatever_stood_there_before(monkeypatch):
    """By hand, layer by layer, on one batch; over several they are the means of all batches."""
    x = 2 + 3 * torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    model = network()
    model[1].running_mean += 5
    estimate_statistics(model, x)
    first = model[0](x)
    second = ((first - first.mean(0)) / (first.var(0, unbiased=False) + 1e-5).sqrt()).relu()
    for layer, values in ((model[1], first), (model[4], second)):
        torch.testing.assert_close(layer.running_mean, values.mean(0), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.running_var, values.var(0), atol=1e-5, rtol=1e-5)
    assert (model[1].momentum, model[4].momentum) == (0.3, 0.1) and not any(one.training for one in model)
    monkeypatch.setattr(batch_norm, "TOGETHER", 4)
    estimate_statistics(model, x)
    parts = [first[:4], first[4:7], first[7:]]
    expected = torch.stack([part.var(0) for part in parts]).mean(0)
    torch.testing.assert_close(model[1].running_var, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, first.var(0), rtol=1e-2)
