"""A mode of torch that knows on which of two devices a tensor would lie, on a machine that has one.

The accelerator is called ``cpu:0``, the host ``cpu``. Whatever a factory of torch makes without ``device=``, or with
the host's, lies on the host, and so do new parameters and what is computed of tensors of the host alone;
``.to(device)`` brings them over. All else counts as lying on the device. A function that is given tensors of both kinds
would fail on a GPU, and fails here; so does ``numpy()`` of a tensor of the device. As in torch, tensors of no dimension
and indices may lie on the host.
"""

import weakref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

HOST, DEVICE = torch.device("cpu"), torch.device("cpu", 0)
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
MOVES = {Tensor.to, Tensor.cuda}
FREE = {
    Tensor.__getitem__,
    Tensor.__setitem__,
    Tensor.index_put,
    Tensor.split,
    Tensor.copy_,
    torch._has_compatible_shallow_copy_type,
}


class Draws(torch.Generator):
    """A generator that knows where it lies."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    @property
    def device(self):
        return self.place


class TwoDevices(TorchFunctionMode):
    """Knows which tensors lie on the host, and refuses what would mix them with others.

    Args:
        host: Tensors that lie on the host.
    """

    def __init__(self, *host):
        super().__init__()
        self.known = {}
        for one in host:
            self.place(one)

    def __enter__(self):
        self.real = real = nn.Parameter.__new__, torch.Generator, torch.from_numpy

        def parameter(cls, data=None, *args, **kwargs):
            made = real[0](cls, data, *args, **kwargs)
            self.place(made, data is None or self.on_host(data))
            return made

        def from_numpy(array):
            made = real[2](array)
            self.place(made)
            return made

        nn.Parameter.__new__, torch.Generator, torch.from_numpy = parameter, Draws, from_numpy
        return super().__enter__()

    def __exit__(self, *error):
        nn.Parameter.__new__, torch.Generator, torch.from_numpy = self.real
        return super().__exit__(*error)

    def place(self, out, on_host=True):
        for one in tree_leaves(out):
            if isinstance(one, Tensor):
                if on_host:
                    self.known[id(one)] = weakref.ref(one)
                else:
                    self.known.pop(id(one), None)

    def on_host(self, one):
        found = self.known.get(id(one))
        return found is not None and found() is one

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = str(getattr(func, "__name__", func))
        if func == Tensor.device.__get__:
            return HOST if self.on_host(args[0]) else DEVICE
        if func is Tensor.numpy:
            assert self.on_host(args[0]), f"numpy() of a tensor {tuple(args[0].shape)} of the device"
        out = func(*args, **kwargs)
        if func in FACTORIES:
            on_host, draws = kwargs.get("device") in (None, HOST, "cpu"), kwargs.get("generator")
            if draws is not None and (draws.device == HOST) != on_host:
                raise AssertionError(f"{name} draws on {draws.device} for a tensor elsewhere")
            self.place(out, on_host)
            return out
        if func == Tensor.data.__set__:
            self.place(args[0], self.on_host(args[1]))
            return out
        if func is Tensor.cpu or (func in MOVES and HOST in [*args, *kwargs.values()]):
            out = out.view_as(out)
            self.place(out)
            return out
        if func in MOVES and DEVICE in [*args, *kwargs.values()]:
            return out.view_as(out)  # on one device it is the same tensor
        if func in MOVES and isinstance(args[1], Tensor):
            out = out.view_as(out)
            self.place(out, self.on_host(args[1]))
            return out
        if name == "__set__":
            return out
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.dim()]
        host = [self.on_host(one) for one in given]
        if any(host) and not all(host) and func not in FREE:
            shapes = [tuple(one.shape) for one in given]
            raise AssertionError(f"{name} of tensors {shapes} mixes the host and the device")
        if given and host[0] if func in FREE else given and all(host):
            self.place(out)
        return out
