"""The content-addressed store: an artifact is a folder named by the hash of everything that determines it.

A folder holds ``manifest.json`` (the key, facts, digests) and ``tensors.safetensors``, a prior's also the picture
``samples.png``. It is written under a temporary name and renamed, checked against its SHA-256 when read, and built by
one process while the others wait on a file lock. Beside it lies, as long as it is being built, what an interrupted
training can go on from (:mod:`mibench.storage.checkpoints`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mibench.errors import StoreError
from mibench.files import refuse_unwritable, unwritable

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("mibench")

#: How the file of an unfinished artifact begins; its digest follows.
UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Payload:
    """What an artifact holds.

    Attributes:
        tensors: Tensors by name.
        facts: Plain data (numbers, strings, lists, mappings).
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """One stored artifact, as ``python -m mibench store`` lists it; an unfinished one has no key."""

    kind: str
    digest: str
    path: Path
    size: int
    key: Mapping[str, Any] = field(default_factory=dict)


def digest_of(key: Any) -> str:
    """Return the 16-digit hash of a key made of plain data; the order of mappings does not matter."""
    text = json.dumps(key, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Store:
    """A folder of artifacts.

    Args:
        root: The folder; made when the first artifact is written.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Return where the artifact with this key lies or would lie."""
        return self.root / kind / digest_of(key)

    def unfinished_path(self, kind: str, key: Mapping[str, Any]) -> Path:
        """Return the file for what an interrupted building of this artifact can go on from."""
        path = self.path(kind, key)
        return path.with_name(f"{UNFINISHED}{path.name}")

    def get(self, kind: str, key: Mapping[str, Any], build: Callable[[], Payload], rebuild: bool = False) -> Payload:
        """Return the artifact, building it first where it is missing or damaged.

        Args:
            kind: ``victim``, ``evaluator``, ``prior``, ``attack_model`` or ``reconstruction``.
            key: Everything that determines the content, as plain data.
            build: Makes the payload.
            rebuild: Build again and replace what is there.

        Raises:
            UserError: If the store cannot be written.
        """
        path = self.path(kind, key)
        if not rebuild and (found := self._read(path)) is not None:
            return found
        refuse_unwritable("store", path.parent, "paths.store")
        with FileLock(f"{path}.lock"):
            if not rebuild and (found := self._read(path)) is not None:
                return found
            payload = build()
            self._write(path, kind, key, payload)
            self.unfinished_path(kind, key).unlink(missing_ok=True)
            found = self._read(path)
        if found is None:
            raise StoreError(f"Artifact {path} could not be read back after it was written; is the disk full?")
        return found

    def find(self, kind: str, key: Mapping[str, Any]) -> Payload | None:
        """Return the artifact where it is there and whole; None otherwise. Nothing is built."""
        return self._read(self.path(kind, key))

    def artifacts(self) -> Iterator[Artifact]:
        """Yield every complete artifact, sorted by kind and digest."""
        for manifest in sorted(self.root.glob("*/*/manifest.json")):
            folder = manifest.parent
            if folder.name.startswith("."):
                continue
            size = sum(file.stat().st_size for file in folder.iterdir())
            yield Artifact(folder.parent.name, folder.name, folder, size, json.loads(manifest.read_text())["key"])

    def unfinished(self) -> Iterator[Artifact]:
        """Yield what unfinished artifacts can go on from, sorted by kind and digest."""
        for file in sorted(self.root.glob(f"*/{UNFINISHED}*")):
            yield Artifact(file.parent.name, file.name.removeprefix(UNFINISHED), file, file.stat().st_size)

    def collect(self, keep: set[str]) -> int:
        """Delete what is temporary and every artifact whose digest is not in ``keep``; return the bytes freed.

        Unfinished ones are spared while a process builds them.
        """
        freed = 0
        for one in list(self.unfinished()):
            if one.digest in keep:
                continue
            try:
                with FileLock(f"{one.path.with_name(one.digest)}.lock", timeout=0):
                    one.path.unlink(missing_ok=True)
                    freed += one.size
            except Timeout:
                log.info("%s %s is being built; what it can go on from is left alone.", one.kind, one.digest)
        for artifact in list(self.artifacts()):
            if artifact.digest not in keep:
                freed += artifact.size
                shutil.rmtree(artifact.path)
                artifact.path.with_name(artifact.path.name + ".lock").unlink(missing_ok=True)
        for leftover in self.root.glob("*/.tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
        return freed

    def _read(self, path: Path) -> Payload | None:
        from safetensors.torch import load

        manifest_file = path / "manifest.json"
        if not manifest_file.exists():
            return None
        manifest = json.loads(manifest_file.read_text())
        content = (path / "tensors.safetensors").read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
            log.warning("Artifact %s is damaged (its checksum differs); it is set aside and built again.", path)
            aside = path.with_name(f".damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            return None
        return Payload(load(content), manifest["facts"])

    def _write(self, path: Path, kind: str, key: Mapping[str, Any], payload: Payload) -> None:
        from safetensors.torch import save

        content = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in payload.tensors.items()})
        manifest = {
            "kind": kind,
            "key": key,
            "facts": payload.facts,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        try:
            temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=path.parent))
            (temporary / "tensors.safetensors").write_bytes(content)
            (temporary / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=1))
            if path.exists():
                retired = path.with_name(f".tmp-old-{path.name}-{os.getpid()}")
                path.rename(retired)
                temporary.rename(path)
                shutil.rmtree(retired, ignore_errors=True)
            else:
                temporary.rename(path)
        except OSError as error:
            raise unwritable("store", self.root, "paths.store", error) from error
