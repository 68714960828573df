"""Files that appear whole or not at all, and the sentence for a folder that cannot be written."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mibench.errors import UserError, told

#: Bytes of the file by which a folder is tried.
PROBE = 4096


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # the name, which not every file system can flush
        _flush(path.parent)


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
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
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


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
