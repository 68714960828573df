"""``mibench plan``: what a grid or a sweep would run and skip, and why, before anything heavy is imported."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mibench.cli.fetch_command import folders_of, state
from mibench.errors import UnknownNameError, UserError
from mibench.planning.catalogue import AXES, choices, entry, read_yaml
from mibench.planning.choices import key_of
from mibench.planning.grid import (
    SWEEP_KEYS,
    Overrides,
    PlannedCell,
    cells_of,
    every_attack,
    plan_cells,
    read_grid,
)
from mibench.planning.plan import TOP_KEYS
from mibench.planning.products import products_of
from mibench.storage.public_sets import PUBLIC_SETS

#: Options that name files or folders of one's own.
FILES = (
    "dataset.root", "dataset.public_root", "dataset.held_out_root", "dataset.file", "dataset.public_file",
    "target.weights",
)  # fmt: skip

#: The first words of the keys that belong to no component.
TOP_BLOCKS = (*dict.fromkeys(key.partition(".")[0] for key in TOP_KEYS), "logger")


def run(words: Sequence[str]) -> int:
    """Print the counts, the reasons and, with ``cells=true``, every cell."""
    words = every_attack([word for word in words if word not in ("-m", "--multirun")])
    if odd := [word for word in words if "=" not in word]:
        raise UserError(f"plan takes KEY=VALUE, as a sweep does (plan grid=first), but got '{odd[0]}'.")
    said = {key_of(word): word.partition("=")[2] for word in words}
    known = (*AXES, *TOP_BLOCKS, *SWEEP_KEYS, "hydra")
    if strange := [key for key in said if re.split(r"[./@]", key)[0] not in known]:
        raise UnknownNameError("option", strange[0], known)
    if (listed := said.get("cells", "false")) not in ("true", "false"):
        raise UserError(f"Expected cells to be true or false, but got '{listed}'.")
    planned = plan_cells(expand(said.get("grid", "none"), words))
    runnable = [cell for cell in planned if not cell.reason]
    if listed == "true":
        for cell in planned:
            print(f"{'skip' if cell.reason else 'run '}  {' '.join(cell.overrides)}")
    print(f"{len(planned)} cells: {len(runnable)} to run, {len(planned) - len(runnable)} to skip")
    for axis in ("dataset", "attack", "defense"):
        counts = Counter(cell.choices[axis] for cell in runnable)
        print(f"  {axis:<10}" + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    for line in missing_data(runnable, words):
        print(f"  {line}")
    for reason, cells in sorted(by_reason(planned).items(), key=lambda one: -len(one[1])):
        print(f"  {len(cells):>5} x {reason}")
    return 0


def missing_data(cells: Sequence[PlannedCell], words: Sequence[str]) -> list[str]:
    """Return a line for every dataset of cells to run whose files, or for every file of one's own that, is not there.

    Args:
        cells: The cells.
        words: The command line, of which ``paths.data`` says where datasets lie.
    """
    root = folders_of([word for word in words if word.startswith("paths.data=")])["dataset"]
    lines = []
    for name, count in sorted(Counter(cell.choices["dataset"] for cell in cells).items()):
        one = entry("dataset", name)
        if (said := state(one, root)).startswith("missing"):
            lines.append(f"data of {count} cells are missing: {name} is {said}")
    own = (word.partition("=") for cell in cells for word in cell.overrides)
    named = Counter((key, value.strip("'\"")) for key, _, value in own if key in FILES)
    for (key, path), count in sorted(named.items()):
        if path not in (*PUBLIC_SETS, "null", "") and "$" not in path and not Path(path).expanduser().exists():
            lines.append(f"data of {count} cells are missing: {key}={path} is not there")
    return lines


def expand(grid: str, given: Sequence[str]) -> list[Overrides]:
    """Return the cells of a named grid under the overrides of the command line, whose commas make products.

    Raises:
        UnknownNameError: If there is no grid of that name.
    """
    grids = choices("grid")
    if grid not in grids:
        raise UnknownNameError("grid", grid, grids)
    study = read_grid(read_yaml(grids[grid].read_text(encoding="utf-8")))
    return cells_of(study, products_of(given))


def by_reason(planned: Sequence[PlannedCell]) -> dict[str, list[PlannedCell]]:
    """Return the cells that cannot be run, by the reason why."""
    found: dict[str, list[PlannedCell]] = {}
    for cell in planned:
        if cell.reason:
            found.setdefault(cell.reason, []).append(cell)
    return found
