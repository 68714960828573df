"""``mibench leaderboard``: the tables and the page, from committed studies and from one's own shards."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from mibench.cli.reproduction import Commands
from mibench.cli.stored import results_folder
from mibench.errors import UserError
from mibench.leaderboard.build import build, write_study


def run(words: Sequence[str]) -> int:
    """Builds the pages, or with ``study=NAME`` writes the local shards as one committed study."""
    names = [word.removeprefix("study=") for word in words if word.startswith("study=")]
    overrides = [word for word in words if not word.startswith("study=")]
    if odd := [word for word in overrides if "=" not in word]:
        raise UserError(f"leaderboard takes study=NAME and paths.results=DIR, but got '{odd[0]}'.")
    results = results_folder(overrides)
    if names:
        path = write_study(results, names[-1])
        print(f"study     {path}\nNow build the pages: python -m mibench leaderboard")
        return 0
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
            print(f"set aside {name}: {reason}", file=sys.stderr)
    for one in built:
        print(f"{one.scope:<10}{one.page}   {one.cells} cells, {one.rows} rows, {one.groups} groups")
    return 0
