"""``mibench reproduce``: the command that makes a stored cell again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from mibench.cli.reproduction import Commands
from mibench.cli.stored import completed, description_of, results_of, split_words, stored_rows
from mibench.errors import UserError
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell


def run(words: Sequence[str]) -> int:
    """Print the command on one line; return 1, and say why, where it would not make the same cell today."""
    cell_id, overrides = split_words(words, "reproduce")
    rows = stored_rows(cell_id, results_of(overrides))
    description, _ = completed(description_of(rows), overrides, f"python -m mibench reproduce {cell_id}")
    made = Commands()(description)
    if not made.command:
        raise UserError(made.changed[0])
    print(made.command)
    stored = str(rows["cell_id"].iloc[0])
    today = plan_cell(compose(shlex.split(made.command)[3:])).cell_id
    if today == stored:
        return 0
    reasons = "; ".join(made.changed) or "an option, a component or the content of a folder is not what it was"
    print(f"This command runs cell {today} today, not {stored}: {reasons}.", file=sys.stderr)
    return 1
