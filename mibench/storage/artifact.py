"""One artifact on disk: a folder of two files that is read as a whole, written as a whole and replaced as a whole.

Who writes, replaces or sets aside holds the artifact's lock; reading needs none.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.files import discard, flush, temporary_name
from mibench.storage.manifest import HEADER, DamagedError, canonical, check_tensors, read_manifest, sealed

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST, TENSORS = "manifest.json", "tensors.safetensors"

#: How the name of an artifact begins while another one takes its place; its digest follows.
REPLACED = ".replaced-"


def read_artifact(path: Path, key: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and facts of an artifact, every byte of it checked.

    Raises:
        FileNotFoundError: If there is none.
        DamagedError: If it is not whole, or another one.
        OSError: If it cannot be read.
        StoreError: If a later version of mibench wrote it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    with _being_read(path):
        manifest = manifest_of(path)
        content = (path / TENSORS).read_bytes()
    check_tensors(manifest, content)
    if canonical(manifest["key"]) != canonical(json.loads(json.dumps(key))):
        raise DamagedError("it belongs to another key")
    try:
        return load(content), manifest["facts"]
    except SafetensorError as error:
        raise DamagedError("its tensors cannot be read") from error


def manifest_of(path: Path) -> dict[str, Any]:
    """Return the manifest of an artifact whose files are both there; of its tensors the size alone is looked at.

    Raises:
        FileNotFoundError: If there is no artifact.
        DamagedError: If it is not whole.
        OSError: If it cannot be read.
        StoreError: If a later version of mibench wrote it.
    """
    if not os.path.lexists(path):
        raise FileNotFoundError(path)
    for name in (MANIFEST, TENSORS):
        if not (path / name).is_file():
            raise DamagedError(f"its {name} is missing")
    manifest = read_manifest((path / MANIFEST).read_bytes(), path.parent.name, path.name)
    size = (path / TENSORS).stat().st_size
    if size != manifest.get("bytes", size) or not size:
        raise DamagedError("its tensors are cut")
    return manifest


def write_artifact(path: Path, key: Mapping[str, Any], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write an artifact in place of what may be there; broken off or killed, it leaves what was there.

    Raises:
        OSError: If the disk does not take it.
    """
    from safetensors.torch import save

    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = save(held, dict(HEADER))
    recover(path)
    temporary = temporary_name(path)
    try:
        temporary.mkdir()
        manifest = sealed(path.parent.name, path.name, key, facts, content)
        for name, part in ((TENSORS, content), (MANIFEST, manifest)):
            (temporary / name).write_bytes(part)
            flush(temporary / name)
        flush(temporary)
        if os.path.lexists(path):
            os.rename(path, replaced_name(path))
        os.rename(temporary, path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        recover(path)


def recover(path: Path) -> None:
    """Put back an artifact whose replacement broke off, or delete the one that was replaced.

    Raises:
        OSError: If it cannot be put back.
    """
    replaced = replaced_name(path)
    if os.path.lexists(path):
        with contextlib.suppress(OSError):
            discard(replaced)
    elif os.path.lexists(replaced):
        os.rename(replaced, path)


def replaced_name(path: Path) -> Path:
    """Return the name of an artifact while another one takes its place."""
    return path.with_name(f"{REPLACED}{path.name}")


@contextlib.contextmanager
def _being_read(path: Path) -> Iterator[None]:
    """Share the lock of an artifact with other readers, where there is one, so that none is deleted meanwhile."""
    try:
        import fcntl

        lock = os.open(f"{path}.lock", os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)
