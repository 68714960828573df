"""Fixtures that tests of several targets share."""

import pytest
import torch
from omegaconf import OmegaConf

from mibench.planning.composition import build


@pytest.fixture(scope="session")
def make():
    """Makes a target of the catalogue in evaluation mode: ``make(entry, spec, seed=0)``."""

    def made(one, spec, seed=0):
        torch.manual_seed(seed)
        return build(OmegaConf.to_container(OmegaConf.create(dict(one.node))), spec=spec).eval()

    return made


@pytest.fixture(scope="session")
def derivatives():
    """The gradient of the cross-entropy by every parameter: ``derivatives(model, x, y, create_graph=False)``."""

    def of(model, x, y, create_graph=False):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        return torch.autograd.grad(loss, list(model.parameters()), create_graph=create_graph)

    return of
