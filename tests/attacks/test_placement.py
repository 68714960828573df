"""What would meet on two devices where the victim is on a GPU, found without one.

Whatever a factory of torch makes without ``device=`` lies on the host, and so does what is computed of such tensors
alone; ``.to(device)`` brings them over. All else counts as lying on the device. A function that is given tensors of
both kinds would fail on a GPU, and fails here. As in torch, tensors of no dimension and indices may lie on the host.

What runs here stands in ``white_box_loops.py``. Left out are

- attacks at any other access: the view computes services, messages and features and brings what it is given to its
  device, and gradient matching differentiates inside the view;
- ``emi`` and ``lomma``: they need further models, which the cell trains;
- ``secretgen`` and ``gmi_masked``: their goal is masked images, which the task ``completion`` makes;
- of the priors ``stylegan2_ada``: it comes trained.

On a GPU ``scripts/gpu_check.sh`` runs cells of these too.
"""

import weakref

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from white_box_loops import ATTACKS, PRIORS

from mibench.attacks.mi_face import MiFace
from mibench.data import Examples
from mibench.knowledge import Knowledge
from mibench.priors.base import PriorData
from mibench.tasks.class_ import ClassGoal

CPU = torch.device("cpu")
FACTORIES = {
    getattr(torch, name)
    for name in (
        "arange",
        "empty",
        "eye",
        "full",
        "linspace",
        "ones",
        "rand",
        "randint",
        "randn",
        "randperm",
        "tensor",
        "zeros",
    )
}
MOVES = {Tensor.to, Tensor.cuda, Tensor.copy_}
INDEXED = {Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put, Tensor.split, Tensor.tolist, Tensor.item}


class TwoDevices(TorchFunctionMode):
    """Knows which tensors lie on the host, and refuses what would mix them with others."""

    def __init__(self, *host):
        super().__init__()
        self.known = {}
        for one in host:
            self.place(one)

    def place(self, out):
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                self.known[id(one)] = weakref.ref(one)

    def on_host(self, one):
        found = self.known.get(id(one))
        return found is not None and found() is one

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in FACTORIES:
            if kwargs.get("device") is None:
                self.place(out)
            return out
        if func is Tensor.cpu:
            out = out.view_as(out)
            self.place(out)
            return out
        if func in MOVES and any(isinstance(one, torch.device) for one in (*args, *kwargs.values())):
            return out.view_as(out)  # on one device it is the same tensor
        if func in MOVES or str(getattr(func, "__name__", "")).startswith("__get__"):
            return out
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.dim()]
        host = [self.on_host(one) for one in given]
        if any(host) and not all(host) and func not in INDEXED:
            shapes = [tuple(one.shape) for one in given]
            raise AssertionError(f"{func.__name__} of tensors {shapes} mixes the host and the device")
        if given and all(host):
            self.place(out)
        return out


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_mixes_no_devices(name, trained_cnn, digits8, white_box):
    make, prior = ATTACKS[name]
    view, goal = white_box(trained_cnn, digits8), ClassGoal(torch.arange(3), samples=2)
    network = None if prior is None else PRIORS[prior].network(digits8.spec).eval().requires_grad_(False)
    with TwoDevices(goal.targets):
        make(2)(view, Knowledge(digits8.public, network), goal, seed=0)


@pytest.mark.parametrize("name", PRIORS)
def test_the_training_of_a_prior_mixes_no_devices(name, trained_cnn, digits8, white_box):
    public = Examples(digits8.public.x[:16], digits8.public.y[:16])
    data, network = PriorData(public, digits8.spec, white_box(trained_cnn, digits8)), PRIORS[name].network(digits8.spec)
    with TwoDevices():
        PRIORS[name].train(network, data, 0, CPU)


class Misplaced(MiFace):
    """Starts from what lies on the host."""

    def images(self, x, networks):
        return x + torch.zeros(x.shape)


def test_what_is_left_on_the_host_is_found(trained_cnn, digits8, white_box):
    goal = ClassGoal(torch.arange(3), samples=2)
    with pytest.raises(AssertionError, match="mixes the host and the device"), TwoDevices(goal.targets):
        Misplaced(iterations=2)(white_box(trained_cnn, digits8), Knowledge(), goal, seed=0)
