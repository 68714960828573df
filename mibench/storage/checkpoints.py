"""Checkpoints of a training that may be killed: what it is made of, saved as it goes and put back where it goes on.

A checkpoint is one file beside the place of the artifact that is being built: the SHA-256 of what follows, and a plain
file of tensors and numbers, which cannot execute anything when read. It is written under a temporary name, flushed to
disk and renamed. One that is damaged, belongs to something else or does not fit is set aside, and the training begins
anew.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mibench.access import Ledger
from mibench.files import set_aside, written_safely
from mibench.limits import TENSORS, content, pickled_tensors
from mibench.storage.progress import progress

log = logging.getLogger("mibench")

#: Seconds between two checkpoints.
EVERY = 60.0

#: What a training is made of.
Part = nn.Module | torch.optim.Optimizer | torch.Generator


class Checkpoints:
    """The checkpoint of one training: at most one at a time, in a file; without a file there is none.

    Args:
        file: Where it lies; None where nothing is saved.
        ledger: The account of the view that the training asks, whose counts go on where they stood.

    Attributes:
        earlier: Seconds that the training took before this process went on with it.
    """

    def __init__(self, file: Path | None = None, ledger: Ledger | None = None) -> None:
        self.file = file
        self.ledger = ledger
        self.earlier = 0.0

    def steps(self, count: int, label: str, **parts: Part) -> Iterator[int]:
        """Yield the steps that are left of 0 to ``count - 1`` behind a progress bar, and save in between.

        Killed and begun again, a training gives the very bits of one that ran through: restored are the parts, torch's
        global generators and the ledger, so whatever else changes from step to step must be among the parts. A training
        has one such loop.

        Args:
            count: Steps of the whole training.
            label: Name of the progress bar.
            **parts: Everything that a step changes: modules, optimisers, generators.
        """
        start = self._restored(parts)
        if start:
            log.info("%s goes on at step %d of %d, where it was interrupted", label, start, count)
        began = saved = time.monotonic()
        for step in progress(range(start, count), label, total=count, initial=start):
            yield step
            now = time.monotonic()
            if self.file is not None and now - saved >= EVERY and step + 1 < count:
                self._save(self.file, step + 1, self.earlier + now - began, parts)
                saved = time.monotonic()

    def remove(self) -> None:
        """Delete what was saved."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def _save(self, file: Path, step: int, seconds: float, parts: Mapping[str, Part]) -> None:
        """Write the checkpoint before ``step``; a full disk costs the checkpoint and not the training."""
        content = io.BytesIO()
        ledger = None if self.ledger is None else self.ledger.state()
        torch.save(
            {"of": file.name, "step": step, "seconds": seconds, "ledger": ledger, "parts": _state(parts)}, content
        )
        raw = content.getvalue()
        try:
            with written_safely(file) as temporary:
                temporary.write_bytes(hashlib.sha256(raw).digest() + raw)
        except OSError as error:
            log.warning(
                "No checkpoint could be written to %s (%s); the training goes on.", file, error.strerror or error
            )

    def _restored(self, parts: Mapping[str, Part]) -> int:
        """Put back what was saved and return the step to go on with; 0 where there is nothing that can be used."""
        if self.file is None or not self.file.exists():
            return 0
        fresh = copy.deepcopy(_state(parts))
        try:
            raw = content(self.file, str(self.file), TENSORS)
            if hashlib.sha256(raw[32:]).digest() != raw[:32]:
                raise ValueError("it is damaged")
            saved = pickled_tensors(raw[32:], str(self.file))
            if saved["of"] != self.file.name:
                raise ValueError("it belongs to another training")
            if self.ledger is not None and not Ledger(self.ledger.budget).affords(saved["ledger"]):
                raise ValueError("it cost more queries than there are now")
            step, seconds = int(saved["step"]), float(saved["seconds"])
            _restore(parts, saved["parts"])
        except Exception as error:
            _restore(parts, fresh)
            why = str(error).partition("\n")[0][:200] or type(error).__name__
            try:
                kept = f"it is kept as {set_aside(self.file).name}, and "
            except OSError:  # where it cannot be renamed, no later one can be written either, which is said then
                kept = ""
            log.warning("The checkpoint %s cannot be used (%s); %sthe training begins anew.", self.file, why, kept)
            return 0
        if self.ledger is not None:
            self.ledger.restore(saved["ledger"])
        self.earlier = seconds
        return step


def _state(parts: Mapping[str, Part]) -> dict[str, Any]:
    """Return the state of the parts and of torch's global generators as plain data."""
    state = {
        name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
        for name, part in parts.items()
    }
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return {"parts": state, "cpu": torch.get_rng_state(), "cuda": cuda}


def _restore(parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
    """Put back what :func:`_state` gave; parts of other names or shapes raise."""
    if set(parts) != set(state["parts"]):
        raise ValueError("its training has other parts")
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            part.set_state(state["parts"][name])
        else:
            part.load_state_dict(state["parts"][name])
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
