"""The content-addressed store: an artifact is a folder named by the hash of everything that determines it.

A folder holds ``manifest.json`` (the key, facts, checksums; :mod:`mibench.storage.manifest`) and
``tensors.safetensors``, a prior's also the picture ``samples.png``. It is written under a temporary name, flushed to
disk and renamed; checked whenever it is read; and built by one process while the others wait on a file lock. What fails
its check is set aside under another name and built again. Beside it lies, as long as it is being built, what an
interrupted training can go on from (:mod:`mibench.storage.checkpoints`).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from mibench.errors import StoreError, UserError
from mibench.files import ASIDE, TEMPORARY, discard, refuse_unwritable, set_aside, size_of, unwritable
from mibench.storage.artifact import REPLACED, manifest_of, read_artifact, recover, replaced_name, write_artifact
from mibench.storage.manifest import DamagedError, canonical

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("mibench")

#: How the file of an unfinished artifact begins; its digest follows.
UNFINISHED = ".unfinished-"

#: The name of an artifact's folder.
DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")

#: Seconds after which a temporary leftover is deleted that does not name its artifact, as earlier versions left them.
STALE = 24 * 3600.0


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
    """One stored artifact, as ``python -m mibench store`` lists it; unfinished and damaged ones have no key."""

    kind: str
    digest: str
    path: Path
    size: int
    key: Mapping[str, Any] = field(default_factory=dict)


def digest_of(key: Any) -> str:
    """Return the 16-digit hash of a key made of plain data; the order of mappings does not matter."""
    return hashlib.sha256(canonical(key).encode()).hexdigest()[:16]


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
            UserError: If the store cannot be read or written.
        """
        path = self.path(kind, key)
        if not rebuild and (found := self._peek(path, key)) is not None:
            return found
        refuse_unwritable("store", path.parent, "paths.store")
        with self._locked(path):
            if not rebuild and (found := self._sound(path, key)) is not None:
                return found
            payload = build()
            with self._writing():
                write_artifact(path, key, payload.tensors, payload.facts)
                self.unfinished_path(kind, key).unlink(missing_ok=True)
            found = self._peek(path, key)
        if found is None:
            raise StoreError(f"Artifact {path} could not be read back after it was written; is the disk full?")
        return found

    def find(self, kind: str, key: Mapping[str, Any]) -> Payload | None:
        """Return the artifact where it is there and whole; None otherwise. Nothing is built.

        Raises:
            UserError: If the store cannot be read.
        """
        path = self.path(kind, key)
        if (found := self._peek(path, key)) is not None:
            return found
        if not any(os.path.lexists(one) for one in (path, replaced_name(path))):
            return None
        with contextlib.suppress(Timeout, UserError), self._locked(path, timeout=0):
            return self._sound(path, key)
        return None  # another process builds it, or what is damaged lies in a folder that cannot be written

    def artifacts(self) -> Iterator[Artifact]:
        """Yield every complete artifact, sorted by kind and digest; what is seen to be damaged is set aside.

        Manifests are read and the sizes of tensors compared; tensors are not read.
        """
        self._recover_all()
        for path in sorted(self.root.glob("*/*")):
            if not DIGEST.fullmatch(path.name):
                continue
            try:
                manifest = manifest_of(path)
            except DamagedError:
                with contextlib.suppress(Timeout, UserError), self._locked(path, timeout=0):
                    self._examined(path)
                continue
            except FileNotFoundError:  # deleted meanwhile
                continue
            except (OSError, StoreError) as error:
                log.warning("%s", error)
                continue
            yield Artifact(path.parent.name, path.name, path, size_of(path), manifest["key"])

    def unfinished(self) -> Iterator[Artifact]:
        """Yield what unfinished artifacts can go on from, sorted by kind and digest."""
        for file in sorted(self.root.glob(f"*/{UNFINISHED}*")):
            yield Artifact(file.parent.name, file.name.removeprefix(UNFINISHED), file, size_of(file))

    def damaged(self) -> Iterator[Artifact]:
        """Yield what was set aside, sorted by kind and digest."""
        for path in sorted(self.root.glob(f"*/{ASIDE}*")):
            yield Artifact(path.parent.name, path.name.removeprefix(ASIDE), path, size_of(path))

    def collect(self, keep: set[str], kinds: Collection[str] | None = None, damaged: bool = False) -> int:
        """Delete artifacts, finished or not, and temporary leftovers; return the bytes that the former took.

        What a process builds, reads or has locked is left alone. Each is renamed before it is deleted, so that a kill
        in between leaves a leftover and no half artifact.

        Args:
            keep: Digests of artifacts that are kept.
            kinds: Kinds that are deleted; None deletes all.
            damaged: Whether what was set aside is deleted too.

        Raises:
            UserError: If the store cannot be written.
        """
        doomed = [
            one
            for one in [*self.unfinished(), *self.artifacts()]
            if one.digest not in keep and (kinds is None or one.kind in kinds)
        ]
        freed = sum(self._delete(one.path) for one in doomed)
        freed += sum(self._delete(one.path) for one in self.damaged()) if damaged else 0
        for leftover in sorted(self.root.glob(f"*/{TEMPORARY}*")):
            self._delete(leftover)
        return freed

    def _delete(self, path: Path) -> int:
        """Delete one thing that lies in the store, unless its artifact is in use; return the bytes freed."""
        owner = DIGEST.search(path.name)
        try:
            if owner is not None:
                with self._locked(path.with_name(owner[0]), timeout=0), self._writing():
                    return discard(path)
            with self._writing():
                return discard(path) if os.path.lexists(path) and _age(path) > STALE else 0
        except Timeout:
            log.info("%s is being built or read; it is left alone.", path.relative_to(self.root))
            return 0

    @contextlib.contextmanager
    def _locked(self, path: Path, timeout: float = -1) -> Iterator[None]:
        """Hold the lock of one artifact; its file stays, for deleting it would part those who wait for it.

        Raises:
            Timeout: If another process holds it for longer than ``timeout`` seconds; -1 waits as long as it takes.
            UserError: If the store cannot be written.
        """
        lock = FileLock(f"{path}.lock", timeout=timeout)
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the disk refuses into one sentence."""
        try:
            yield
        except Timeout:
            raise
        except OSError as error:
            raise unwritable("store", self.root, "paths.store", error) from error

    def _peek(self, path: Path, key: Mapping[str, Any]) -> Payload | None:
        """Return an artifact where it is whole, and leave one that is not to who holds its lock."""
        try:
            return self._read(path, key)
        except (DamagedError, FileNotFoundError):
            return None

    def _sound(self, path: Path, key: Mapping[str, Any]) -> Payload | None:
        """Return an artifact whose lock is held; a damaged one is set aside."""
        with self._writing():
            recover(path)
        try:
            return self._read(path, key)
        except FileNotFoundError:
            return None
        except DamagedError as damage:
            self._set_aside(path, damage)
            return None

    def _examined(self, path: Path) -> None:
        """Set an artifact aside whose lock is held, where its manifest or the size of its tensors shows damage."""
        try:
            manifest_of(path)
        except FileNotFoundError:
            return
        except DamagedError as damage:
            self._set_aside(path, damage)

    def _set_aside(self, path: Path, damage: DamagedError) -> None:
        with self._writing():
            aside = set_aside(path)
        log.warning("Artifact %s is damaged (%s); it is kept as %s and will be built again.", path, damage, aside.name)

    def _recover_all(self) -> None:
        for replaced in self.root.glob(f"*/{REPLACED}*"):
            path = replaced.with_name(replaced.name.removeprefix(REPLACED))
            with contextlib.suppress(Timeout, UserError), self._locked(path, timeout=0), self._writing():
                recover(path)

    def _read(self, path: Path, key: Mapping[str, Any]) -> Payload:
        """Return an artifact, every byte of it checked.

        Raises:
            FileNotFoundError: If there is none.
            DamagedError: If it is not whole.
            UserError: If it cannot be read.
        """
        try:
            return Payload(*read_artifact(path, key))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(
                f"The store {self.root} cannot be read ({error.strerror or error}); make {path} readable, or set "
                "paths.store to another folder."
            ) from error


def _age(path: Path) -> float:
    """Return the seconds since a file or folder was last changed."""
    return time.time() - path.lstat().st_mtime
