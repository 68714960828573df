"""Files that are whole or not there: written under a temporary name, flushed to disk, then renamed.

What cannot be used is set aside: it is kept under another name beside its place.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

#: How the name of a file or folder begins that is being written, or deleted.
TEMPORARY = ".tmp-"

#: How the name of something begins that was set aside.
ASIDE = ".damaged-"


def temporary_name(path: Path) -> Path:
    """Return a name beside ``path`` that no other process takes, for what is being written or deleted there."""
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(3)}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the temporary name of a file, which takes the place of ``path`` once the block has written it.

    Where the block, or what follows, breaks, ``path`` is left as it was.

    Raises:
        OSError: If the disk takes it not.
    """
    temporary = temporary_name(path)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to disk.

    Raises:
        OSError: If a file could not be written; a folder that cannot be flushed (on some network disks) is passed over.
    """
    folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    except OSError:
        if folder:
            return
        raise
    try:
        with contextlib.suppress(*([OSError] if folder else [])):
            os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(path: Path) -> Path:
    """Rename what cannot be used to a name of its own beside it, and return that.

    Raises:
        OSError: If the folder cannot be written.
    """
    aside = path.with_name(f"{ASIDE}{path.name.lstrip('.')}")
    if os.path.lexists(aside):
        aside = aside.with_name(f"{aside.name}-{secrets.token_hex(3)}")
    os.rename(path, aside)
    return aside


def discard(path: Path) -> int:
    """Rename a file or folder to a temporary name, then delete it; return the bytes freed.

    Killed in between, it leaves what is cleaned as any other temporary leftover.

    Raises:
        OSError: If it cannot be renamed or deleted.
    """
    if not os.path.lexists(path):
        return 0
    doomed = path if path.name.startswith(TEMPORARY) else temporary_name(path)
    if doomed != path:
        os.rename(path, doomed)
    freed = size_of(doomed)
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink(missing_ok=True)
    return freed


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; what is gone meanwhile counts as nothing."""
    files = [path]
    if path.is_dir():
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total
