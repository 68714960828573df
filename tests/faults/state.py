"""What stands in a folder of results and artifacts, whole or broken, without what differs from run to run."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from mibench.storage.artifact import MANIFEST, TENSORS
from mibench.storage.manifest import DamagedError, check_tensors, read_manifest

#: Columns that measure the machine or name the time.
PASSING = ("seconds", "training_seconds", "judge_seconds", "peak_memory_mb", "created_at", "reason")

#: What of a page names the machine's speed or the time.
SECONDS = re.compile(rb"\d+(\.\d+)?")


@dataclass
class State:
    """What stands in a folder.

    Attributes:
        rows: The rows of every shard by cell, without what passes.
        tables: Files of the leaderboard, by path, as digests of what does not pass.
        artifacts: ``KIND/DIGEST`` of the artifacts that are whole.
        pictures: The pictures that are whole.
        broken: Files that bear their whole name and are not whole.
        leftovers: Temporary files.
    """

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)
    pictures: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    def rows_lost_in(self, there: "State", end: "State") -> Iterator[str]:
        """Say which measured rows of this state are gone or weaker; those of ``end`` may stand in their place."""
        for cell, rows in self.rows.items():
            now = there.rows.get(cell)
            if rows[0]["status"] != "failed" and now not in (rows, end.rows.get(cell)):
                yield f"{cell} " + ("is gone" if now is None else f"is now {differs(rows, now)}")

    def missing_in(self, there: "State", rows_alone: bool = False) -> Iterator[str]:
        """Say what of this state is not in another one."""
        for cell, rows in self.rows.items():
            if (now := there.rows.get(cell)) != rows:
                yield f"the rows of {cell} " + ("are missing" if now is None else f"differ: {differs(rows, now)}")
        if more := there.rows.keys() - self.rows.keys():
            yield f"there are rows of {', '.join(sorted(more))}"
        if rows_alone:
            return
        for name, digest in self.tables.items():
            if there.tables.get(name) != digest:
                yield f"{name} {'differs' if name in there.tables else 'is missing'}"
        for name in sorted(self.artifacts - there.artifacts):
            yield f"artifact {name} is missing"
        for name in sorted(self.pictures - there.pictures):
            yield f"picture {name} is missing"


def differs(rows: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """Say how rows differ."""
    if len(rows) != len(now):
        return f"{len(now)} rows ({now[0]['status'] if now else 'none'}) for {len(rows)}"
    pairs = ((a[name], b[name], name) for a, b in zip(rows, now, strict=True) for name in a if a[name] != b[name])
    return next((f"{name} {b!r} for {a!r}"[:160] for a, b, name in pairs), "")


def state_of(folder: Path) -> State:
    """Return what stands in ``folder/r`` (results) and ``folder/s`` (store)."""
    state = State()
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if any(part.startswith(".tmp") or part.endswith(".tmp") for part in Path(name).parts):
            state.leftovers.append(name)
        if file.name.startswith(".") or not file.is_file() or any(p.startswith(".") for p in Path(name).parts[:-1]):
            continue
        try:
            _read(file, name, state)
        except Exception as error:
            state.broken.append(f"{name} ({type(error).__name__}: {' '.join(str(error).split())[:80]})")
    return state


def _read(file: Path, name: str, state: State) -> None:
    place = Path(name).parts
    if place[:2] == ("r", "shards") and file.suffix == ".parquet":
        rows = [without_passing(row) for row in pq.read_table(file).to_pylist()]
        state.rows[file.stem] = sorted(rows, key=lambda row: (row["metric"], row["variant"], row["evaluator"]))
    elif file.suffix == ".png":
        with Image.open(file) as picture:
            picture.load()
        state.pictures.add(name)
    elif place[0] == "r" and file.suffix == ".parquet":
        rows = [without_passing(row) for row in pq.read_table(file).to_pylist()]
        state.tables[name] = digest(repr(sorted(map(repr, rows))).encode())
    elif place[0] == "r" and file.suffix in (".html", ".js", ".md"):
        whole = file.read_bytes()
        assert whole.rstrip().endswith({".html": b"</html>", ".js": b");"}.get(file.suffix, b"")) and whole, "cut"
        state.tables[name] = digest(SECONDS.sub(b"", whole))
    elif place[0] == "s" and file.name == "manifest.json" and whole_artifact(file.parent):
        state.artifacts.add("/".join(place[1:3]))


def whole_artifact(folder: Path) -> bool:
    """Return whether an artifact passes its checksums; unlike the store, this sets nothing aside."""
    try:
        manifest = read_manifest((folder / MANIFEST).read_bytes(), folder.parent.name, folder.name)
        check_tensors(manifest, (folder / TENSORS).read_bytes())
    except (OSError, DamagedError):
        return False
    return True


def without_passing(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without what differs from run to run; NaN is None, which equals itself."""
    return {name: None if value != value else value for name, value in row.items() if name not in PASSING}


def digest(content: bytes) -> str:
    """Return a short digest."""
    return hashlib.sha256(content).hexdigest()[:16]
