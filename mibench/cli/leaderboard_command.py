"""``mibench leaderboard``: the tables and the page, from committed studies and from one's own shards."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mibench.cli.plan_command import expand
from mibench.cli.reproduction import Commands
from mibench.cli.stored import results_folder
from mibench.errors import UserError, printable
from mibench.leaderboard.build import build, write_study
from mibench.planning.compatibility import compatible
from mibench.planning.composition import compose
from mibench.planning.grid import Overrides, plan_cells, unseeded
from mibench.planning.plan import Plan, own_files, plan_cell


def run(words: Sequence[str]) -> int:
    """Build the pages, or with ``study=GRID`` writes the local rows of a grid's cells as one committed study."""
    names = [word.removeprefix("study=") for word in words if word.startswith("study=")]
    overrides = [word for word in words if not word.startswith("study=")]
    if odd := [word for word in overrides if "=" not in word]:
        raise UserError(f"leaderboard takes study=GRID and paths.results=DIR, but got '{odd[0]}'.")
    results = results_folder(overrides)
    if names:
        return _study(names[-1], overrides, results)
    commands = Commands(results / "local" / "cache" / "defaults.json")
    gc.disable()  # a million small objects that all live until the pages are written
    try:
        built = build(results, commands)
    finally:
        gc.enable()
    commands.save()
    if not built:
        raise UserError(
            f"Neither studies nor shards lie below {results}; run a cell first, or set paths.results to where they lie."
        )
    for one in built:
        for name, reason in one.set_aside.items():
            print(printable(f"set aside {name}: {reason}"), file=sys.stderr)
    for one in built:
        print(f"{one.scope:<10}{one.page}   {one.cells} cells, {one.rows} rows, {one.groups} groups")
    return 0


def _study(name: str, overrides: Sequence[str], results: Path) -> int:
    """Write the local rows of the cells that a named grid plans as one file, and tell what is missing."""
    plans = plans_of(name, overrides)
    for plan in plans.values():
        if own := own_files(plan):
            raise UserError(
                f"Grid '{name}' holds cells of your own files ({', '.join(own)}), and a study would publish where they "
                "lie; take them out of the grid, their rows stay in results/local."
            )
    path, statuses = write_study(results, name, plans)
    counts = Counter(statuses.values())
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"study     {path}   {len(statuses)} cells: {said}")
    if missing := sum(not compatible(plan.cards) for cell, plan in plans.items() if cell not in statuses):
        print(
            f"missing   {missing} cells have no rows yet; run them: python -m mibench -m grid={name}", file=sys.stderr
        )
    print("Now build the pages: python -m mibench leaderboard")
    return 0


def plans_of(name: str, overrides: Sequence[str]) -> dict[str, Plan]:
    """Return the plans of a named grid's cells by id; of one that cannot be run whatever the seed, the first.

    Raises:
        UnknownNameError: If there is no grid of that name.
    """
    found: dict[str, Plan] = {}
    told: set[Overrides] = set()
    for planned in plan_cells(expand(name, overrides)):
        if planned.reason:
            if (combination := unseeded(planned)) in told:
                continue
            told.add(combination)
        plan = plan_cell(compose(planned.overrides))
        found[plan.cell_id] = plan
    return found
