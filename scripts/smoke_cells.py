"""What smoke runs are made of: ``python scripts/smoke_cells.py KIND... [MOST]`` prints sweeps, the words of one a line.

KIND is ``attacks`` (every attack as it comes), ``defenses`` (every defense before the first of a few attacks that it
can be met by) or ``data`` (one real component of every other kind of data and task, of those below ``MIBENCH_DATA``).
MOST is the largest number of cells of one line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from mibench.planning.catalogue import entries
from mibench.planning.grid import plan_cells

#: What defenses are met by.
MET_BY = ("attack=gmi", "attack=dlg", "attack=split_rmle", "attack=inversion_network", "attack=brepmi")
MET_BY_RECORDS = "attack=fredrikson_map dataset=bank_marketing"

#: What has to be there, and the cell.
DATA = (
    (".", "attack=gmi dataset=att_faces"),
    ("planetoid/cora.npz", "attack=link_stealing dataset=cora"),
    ("SST-2/train.tsv", "attack=tag dataset=sst2 attack.iterations=100"),
    ("adult/adult.data", "attack=tableak dataset=adult"),
    ("free-spoken-digit-dataset/recordings", "attack=mi_face dataset=fsdd"),
    ("free-spoken-digit-dataset/recordings", "attack=gmi dataset=fsdd dataset.label=digit prior.iterations=50"),
    ("cifar10/train", "attack=imprint dataset=cifar10 setting.batch_size=8"),
)


def lines(words: str, names: list[str], most: int) -> Iterator[str]:
    """Yield sweeps over ``names``, at most ``most`` of them a line."""
    for start in range(0, len(names), most):
        yield words + ",".join(names[start : start + most])


def attacks(most: int) -> Iterator[str]:
    """Yield the sweeps of every attack."""
    return lines("attack=", [one.name for one in entries("attack")], most)


def defenses(most: int) -> Iterator[str]:
    """Yield the sweeps of every defense."""
    met_by = [*MET_BY, *([MET_BY_RECORDS] if os.environ.get("MIBENCH_DATA") else [])]
    chosen: dict[str, list[str]] = {}
    for one in entries("defense"):
        cells = [tuple(f"{attack} defense={one.name}".split()) for attack in met_by]
        met = [attack for attack, cell in zip(met_by, plan_cells(cells), strict=True) if not cell.reason]
        if met:
            chosen.setdefault(met[0], []).append(one.name)
    for attack, names in chosen.items():
        yield from lines(f"{attack} defense=", names, most)


def data(_most: int) -> Iterator[str]:
    """Yield the cells on real data."""
    folder = os.environ.get("MIBENCH_DATA")
    return iter([words for file, words in DATA if folder and Path(folder, file).exists()])


if __name__ == "__main__":
    kinds = {"attacks": attacks, "defenses": defenses, "data": data}
    most = next((int(word) for word in sys.argv[1:] if word.isdecimal()), sys.maxsize)
    for kind in (word for word in sys.argv[1:] if word in kinds):
        for line in kinds[kind](most):
            print(line)
