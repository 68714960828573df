"""Files that appear whole or not at all, and the sentence for a folder that cannot be written.

A file is written under a temporary name, flushed to the disk, then renamed. What cannot be used is set aside: it is
kept under another name beside its place.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mibench.errors import UserError, told

#: How the name of a file or folder begins that is being written, or deleted.
TEMPORARY = ".tmp-"

#: How the name of something begins that was set aside.
ASIDE = ".damaged-"

#: Bytes of the file by which a folder is tried.
PROBE = 4096


def temporary_name(path: Path) -> Path:
    """Return a name beside ``path`` that no other process takes, for what is being written or deleted there."""
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(3)}")


@contextlib.contextmanager
def written_safely(path: Path) -> Iterator[Path]:
    """Yield the temporary path to write a file at; it is then flushed to the disk and renamed to ``path``.

    Whatever stood there stays as it was until then, and where anything fails it stays for good and the temporary file
    is removed. The folder is made where it is missing.

    Args:
        path: Where the file is to appear.

    Raises:
        OSError: If it cannot be written; also whatever the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file as :func:`written_safely` does."""
    with written_safely(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as :func:`written_safely` does."""
    with written_safely(path) as temporary:
        temporary.write_bytes(content)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of writing ``path``; nobody else may be writing it now."""
    for leftover in path.parent.glob(f"{TEMPORARY}{glob.escape(path.name)}-*"):
        with contextlib.suppress(OSError):
            leftover.unlink(missing_ok=True)


def refuse_unwritable(what: str, folder: Path, key: str) -> None:
    """Raise where no file can be written in a folder, which is made where it is missing.

    Raises:
        UserError: As :func:`unwritable` says it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE))
    except OSError as error:
        raise unwritable(what, folder, key, error) from error


def unwritable(what: str, folder: Path, key: str, error: OSError) -> UserError:
    """Return the sentence for a folder that cannot be written.

    >>> str(unwritable("store", Path("s"), "paths.store", OSError(28, "No space left on device")))
    'The store s cannot be written (No space left on device); free some space, or set paths.store to a writable folder.'
    """
    first = "free some space, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return UserError(f"The {what} {folder} cannot be written ({told(error)}); {first}set {key} to a writable folder.")


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
