"""``mibench plot``: figures for a paper, as SVG, PDF or PNG."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mibench.cli.picking import chosen, pick
from mibench.errors import UserError
from mibench.leaderboard.exports.figures import ENDINGS, KINDS, draw

HELP = (
    "python -m mibench plot kind=front|matrix|queries out=FILE.pdf [dataset=NAME ...] [metric=ID variant=FORM "
    "evaluator=ID] [width=3.3|6.8] [cost=queries|gradients]"
)


def run(words: Sequence[str]) -> int:
    """Draw the groups that the words pick, one panel per block of comparable groups, and print where it lies."""
    found = pick("plot", words, ("kind", "out", "width", "cost"), HELP)
    kind = chosen(found.said, "kind", list(KINDS), "")
    out, width = found.said.get("out", f"{kind}.svg"), found.said.get("width", "3.3")
    if Path(out).suffix not in ENDINGS:
        raise UserError(f"Expected out to end in {', '.join(ENDINGS)}, but got '{out}'.")
    if not re.fullmatch(r"\d+(\.\d+)?", width) or not 1 <= float(width) <= 20:
        raise UserError(f"width is that of the figure in inches, from 1 to 20, but got '{width}'.")
    cost = chosen(found.said, "cost", ("queries", "gradients"), "queries")
    path = Path(out).expanduser()
    notes = draw(kind, found.groups, path, found.options, found.key, float(width), cost)
    print(f"{'written':<10}{path}")
    for note in notes:
        print(note, file=sys.stderr)
    return 0
