"""Progress bars on standard error; silent where no person is watching."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger("mibench")


def progress(items: Iterable[T], label: str, total: int | None = None, initial: int = 0) -> Iterator[T]:
    """Yield ``items`` behind a bar named ``label``, which starts at ``initial``; none where no terminal is there.

    The environment variable ``MIBENCH_PROGRESS`` (``0`` or ``1``) overrides the choice.
    """
    from tqdm import tqdm

    forced = os.environ.get("MIBENCH_PROGRESS")
    disable = None if forced is None else forced == "0"
    yield from tqdm(
        items, f"{label:<24}", total, disable=disable, mininterval=0.2, leave=True, ncols=88, initial=initial
    )
