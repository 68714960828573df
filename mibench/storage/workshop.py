"""Where things are built: the store, the device and the precision."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from mibench.precision import precision_key
from mibench.storage.store import Store


@dataclass(frozen=True)
class Workshop:
    """Where things are built.

    Attributes:
        store: The store.
        device: Where to compute.
        precision: What networks are trained and searched in, ``float32`` or ``bfloat16``.
    """

    store: Store
    device: torch.device
    precision: str = "float32"

    @property
    def key(self) -> dict[str, str | int]:
        """What of it is part of the key of every network that is trained here; nothing at full precision."""
        return precision_key(self.precision)


def clock(device: torch.device) -> float:
    """Return seconds spent: the processor's own where it computes, so that nobody else's count, else by the wall."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
