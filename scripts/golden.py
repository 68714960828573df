"""Golden cells: the ids of the smoke cells and the bits of their rows and artifacts, recorded once and compared since.

``make smoke`` runs the cells and calls this. Ids and keys are compared everywhere; bits only on a machine whose
processor and libraries are those of the recording, because other ones round differently. To compare bits on another
machine, run ``scripts/smoke.sh`` on both revisions there, ``record`` the older one and ``compare`` the newer one:

    python scripts/golden.py record FOLDER [FILE]     writes what the smoke run in FOLDER left
    python scripts/golden.py compare FOLDER [FILE]    exits with 1 where something differs
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save

from mibench.leaderboard.shards import read_shard

GOLDEN = Path(__file__).parent.parent / "tests" / "golden.json"

#: Columns that differ from run to run, or hold sentences, which may be put better.
VOLATILE = (
    "seconds", "training_seconds", "judge_seconds", "peak_memory_mb", "device", "mibench_version", "git_commit",
    "created_at", "notes", "reason",
)  # fmt: skip

#: What identifies a cell to a person.
WORDS = ("dataset", "setting", "target", "attack", "access", "defense")

#: Columns added after the recording; what they hold is not compared.
KNOWN = "columns"


def machine() -> dict[str, str]:
    """Return what the bits of a computation depend on besides the program."""
    import numpy
    import torchvision

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    said = {line for line in lines if line.startswith(("model name", "flags", "model\t", "stepping"))} or set(lines)
    return {
        "processor": hashlib.sha256("\n".join(sorted(said)).encode()).hexdigest()[:16],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "libraries": f"torch {torch.__version__}, torchvision {torchvision.__version__}, numpy {numpy.__version__}",
    }


def digest(value: Any) -> str:
    """Return the hash of plain data; floats count to the last bit."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def rows_of(frame: pd.DataFrame, columns: list[str]) -> str:
    """Return the hash of the rows of a cell in the given columns."""
    kept = [name for name in columns if name in frame.columns]
    held = frame[kept].astype(object).where(frame[kept].notna(), None)
    rows = held.values.tolist()
    return digest([[one.tolist() if isinstance(one, np.ndarray) else one for one in row] for row in rows])


def bits_of(tensors: Path) -> str:
    """Return the hash of an artifact's tensors, without what the header of the file says of its form."""
    return hashlib.sha256(save(load_file(tensors))).hexdigest()[:16]


def read(folder: Path, columns: list[str] | None = None) -> dict[str, Any]:
    """Return the cells and artifacts that a smoke run left below ``folder``."""
    cells, artifacts = {}, {}
    for path in sorted((folder / "results" / "shards").glob("*.parquet")):
        frame = read_shard(path)
        columns = columns or [name for name in frame.columns if name not in VOLATILE]
        first = frame.iloc[0]
        cells[first["cell_id"]] = {
            "words": " ".join(f"{name}={first[name]}" for name in WORDS),
            "group_id": first["group_id"],
            "config": digest(first["config"]),
            "status": sorted(set(frame["status"])),
            "rows": rows_of(frame, columns),
        }
    for manifest in sorted((folder / "store").glob("*/*/manifest.json")):
        artifact = manifest.parent
        artifacts[f"{artifact.parent.name}/{artifact.name}"] = bits_of(artifact / "tensors.safetensors")
    return {KNOWN: columns, "cells": cells, "artifacts": artifacts}


def differences(then: dict[str, Any], now: dict[str, Any], bits: bool) -> list[str]:
    """Return what differs, a line each; what is new since the recording does not count."""
    found = []
    for cell, one in then["cells"].items():
        other = now["cells"].get(cell)
        if other is None and "dataset=digits" not in one["words"] and not os.environ.get("MIBENCH_DATA"):
            continue  # which needs data that are not here
        if other is None:
            found.append(f"cell {cell} is gone or has another id: {one['words']}")
            continue
        for key in ("group_id", "config", "status", *(["rows"] if bits else [])):
            if one[key] != other[key]:
                found.append(f"cell {cell}: {key} {one[key]} is now {other[key]}: {one['words']}")
    for artifact, sha in then["artifacts"].items():
        other = now["artifacts"].get(artifact)
        if bits and other != sha:  # keys hold digests of data, which a processor may resize by another last bit
            found.append(f"artifact {artifact} {'is gone' if other is None else 'holds other tensors'}")
    return found


def main(words: list[str]) -> int:
    """Record or compares, and return the exit status."""
    what, folder = words[0], Path(words[1])
    file = Path(words[2]) if len(words) > 2 else GOLDEN
    if what == "record":
        file.write_text(json.dumps({"machine": machine(), **read(folder)}, indent=1, sort_keys=True) + "\n")
        return 0
    then = json.loads(file.read_text())
    bits = then["machine"] == machine()
    found = differences(then, read(folder, then[KNOWN]), bits)
    for line in found:
        print(f"golden: {line}", file=sys.stderr)
    extent = "ids and bits" if bits else "ids (the bits were recorded on another processor or with other libraries)"
    print(f"golden: {len(then['cells'])} cells, {extent}: {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
