"""The precision that networks compute in: float32, or bfloat16 where it costs nothing that an attack measures.

Nothing else in mibench decides what runs in which precision. At ``bfloat16`` every convolution and matrix product of a
training or a search runs in bfloat16 (autocast) on weights that stay float32, and networks lie in the channels-last
memory format. What an attack asks of a service, and whatever metrics compute, is float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: Counts what ``bfloat16`` covers; part of the identity of all that is computed in it. 1 was the training of victims.
REVISION = 2


def precision_key(precision: str) -> dict[str, str | int]:
    """Return what a precision adds to the key of whatever is computed in it; nothing at ``float32``."""
    return {} if precision == "float32" else {"precision": precision, "precision_revision": REVISION}


@contextmanager
def computing(precision: str, device: torch.device, *networks: nn.Module) -> Iterator[None]:
    """Compute in a precision inside the block.

    Args:
        precision: ``float32``, which also ends a bfloat16 around it, or ``bfloat16``.
        device: Where it runs. One without bfloat16 instructions gives much the same numbers, slowly.
        *networks: Networks that lie in the channels-last format inside the block if it is bfloat16.
    """
    import torch

    if precision == "float32":
        if not torch.is_autocast_enabled(device.type):
            yield
            return
        with torch.autocast(device.type, enabled=False):
            yield
        return
    # The cache of cast weights would outlive their steps: a block may be a whole training.
    with laid_out(precision, *networks), torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
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
