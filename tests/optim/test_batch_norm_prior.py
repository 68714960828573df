"""What the server learns of a batch from the running statistics that came with a message."""

import copy

import pytest
import torch

from mibench.access import LocalTraining
from mibench.data import Examples
from mibench.nn.batch_norm import norms, running_buffers
from mibench.optim.batch_norm_prior import known_statistics
from mibench.targets.cnn import Cnn


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("momentum", "met"), [(0.1, 0), (0.3, 7), (None, 0), (None, 5), (1.0, 2)])
def test_the_statistics_of_a_batch_are_recovered_whatever_the_momentum(client_view, digits8, momentum, met, steps):
    torch.manual_seed(0)
    model = Cnn(spec=digits8.spec, width=4)
    x, y = digits8.private.train.x, digits8.private.train.y
    for layer in norms(model).values():
        layer.momentum = momentum
    for number in range(met):
        model.train()(x[8 * number : 8 * number + 8])
    client = copy.deepcopy(model)
    for _ in range(steps):
        client.train()(x[100:104])
    more = {"deltas": True, "local": LocalTraining(steps, 4, 0.1)} if steps > 1 else {}
    view = client_view(model.eval(), Examples(x[100:104], y[100:104]), 4, buffers=[running_buffers(client)], **more)
    alone = copy.deepcopy(model)
    for layer in norms(alone).values():
        layer.momentum = 1.0
    alone.train()(x[100:104])
    for known, layer in zip(known_statistics(view), norms(alone).values(), strict=True):
        expected = torch.stack([layer.running_mean, layer.running_var])[None]
        torch.testing.assert_close(known, expected, atol=1e-4, rtol=1e-3)


def test_of_a_layer_that_does_not_move_the_global_statistics_are_known(client_view, digits8):
    torch.manual_seed(0)
    model = Cnn(spec=digits8.spec, width=4).eval()
    for layer in norms(model).values():
        layer.momentum = 0.0
        layer.running_mean.fill_(0.5)
    examples = Examples(digits8.private.train.x[:4], digits8.private.train.y[:4])
    view = client_view(model, examples, 4, buffers=[running_buffers(model)])
    assert all((known[:, 0] == 0.5).all() and (known[:, 1] == 1).all() for known in known_statistics(view))
