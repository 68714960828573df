"""The precision that networks compute in: float32, or bfloat16 where it costs nothing that an attack measures.

Nothing else in mibench decides what runs in which precision. At ``bfloat16`` every convolution and matrix product of a
training or a search runs in bfloat16 (autocast) on weights that stay float32, and networks lie in the channels-last
memory format. Autocast casts the weights of a training anew at every step. It would do so with weights that never
change as well: those of frozen networks are cast once instead, for the length of the block. What an attack asks of a
service, and whatever metrics compute, is float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: Counts what ``bfloat16`` covers; part of the identity of all that is computed in it. 1 was the training of victims.
REVISION = 3


class Cast(NamedTuple):
    """One frozen weight of a network in both precisions."""

    module: nn.Module
    name: str
    full: nn.Parameter
    half: nn.Parameter


#: The weights that are bfloat16 here and now.
_casts: ContextVar[tuple[Cast, ...]] = ContextVar("casts", default=())


def precision_key(precision: str) -> dict[str, str | int]:
    """Return what a precision adds to the key of whatever is computed in it; nothing at ``float32``."""
    return {} if precision == "float32" else {"precision": precision, "precision_revision": REVISION}


@contextmanager
def computing(precision: str, device: torch.device, *networks: nn.Module) -> Iterator[None]:
    """Compute in a precision inside the block.

    Args:
        precision: ``float32``, which also ends a bfloat16 around it, or ``bfloat16``.
        device: Where it runs. One without bfloat16 instructions gives much the same numbers, slowly.
        *networks: Networks that lie in the channels-last format inside the block if it is bfloat16. The frozen ones of
            their weights are bfloat16 there; after the block and in a float32 block inside it the weights are the very
            ones that were there before.
    """
    import torch

    if precision == "float32":
        if not torch.is_autocast_enabled(device.type):
            yield
            return
        with _restored(), torch.autocast(device.type, enabled=False):
            yield
        return
    # The cache of cast weights would outlive their steps: a block may be a whole training.
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    with laid_out(precision, *networks), _narrowed(*networks), autocast:
        yield


@contextmanager
def laid_out(precision: str, *networks: nn.Module) -> Iterator[None]:
    """Lay the weights of networks out with the channels last inside the block, unless the precision is float32."""
    import torch

    if precision == "float32":
        yield
        return
    try:
        for network in networks:
            network.to(memory_format=torch.channels_last)
        yield
    finally:
        for network in networks:
            network.to(memory_format=torch.contiguous_format)


@contextmanager
def _narrowed(*networks: nn.Module) -> Iterator[None]:
    """Put bfloat16 copies in the place of the frozen weights of networks inside the block."""
    casts = tuple(cast for network in networks for module in network.modules() for cast in _casts_of(module))
    with _holding(casts, "half", "full", (*_casts.get(), *casts)):
        yield


@contextmanager
def _restored() -> Iterator[None]:
    """Put every weight that is bfloat16 back in float32 inside the block."""
    with _holding(_casts.get(), "full", "half", ()):
        yield


@contextmanager
def _holding(casts: Sequence[Cast], inside: str, outside: str, narrow: tuple[Cast, ...]) -> Iterator[None]:
    """Let modules hold one of the two forms of their weights inside the block, and the other one after it.

    Args:
        casts: The weights.
        inside: ``half`` or ``full``.
        outside: The other one.
        narrow: The weights that are bfloat16 inside the block.
    """
    outer = _casts.set(narrow)
    try:
        for cast in casts:
            setattr(cast.module, cast.name, getattr(cast, inside))
        yield
    finally:
        for cast in casts:
            setattr(cast.module, cast.name, getattr(cast, outside))
        _casts.reset(outer)


def _casts_of(module: nn.Module) -> Iterator[Cast]:
    """Yield the frozen float32 weights of one module that enter convolutions and matrix products.

    Those are weight and bias of torch's layers, and of others what they name in ``products``. Norms and embeddings
    stay float32.
    """
    import torch
    from torch import nn

    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    names = ("weight", "bias") if isinstance(module, layers) else getattr(module, "products", ())
    for name, weight in list(module.named_parameters(recurse=False)):
        if name in names and weight.dtype == torch.float32 and not weight.requires_grad:
            half = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
            yield Cast(module, name, weight, half)


def widened(x: Tensor) -> Tensor:
    """Return what a network computed in float32 where that was bfloat16; of any other type as it is."""
    import torch

    return x.float() if x.dtype == torch.bfloat16 else x


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has bfloat16 instructions, without which bfloat16 is slower than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
