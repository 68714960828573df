"""``mibench table``: one number by two facts, as LaTeX, Markdown or CSV."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import PurePath

from mibench.cli.picking import chosen, pick, put
from mibench.leaderboard.exports.crosstab import Cell, crosstabs
from mibench.leaderboard.exports.references import keys_of
from mibench.leaderboard.exports.writing import latex, markdown, tidy, why_parted

HELP = (
    "python -m mibench table rows=attack columns=defense [dataset=NAME ...] [metric=ID variant=FORM evaluator=ID] "
    "[show=lift|value] [format=markdown|latex|csv] [cite=true] [out=FILE]"
)

FORMATS = ("markdown", "latex", "csv")

#: The format of a file, by its ending.
ENDINGS = {".tex": "latex", ".csv": "csv"}


def run(words: Sequence[str]) -> int:
    """Print or write the tables of the groups that the words pick, one per block of comparable groups."""
    found = pick("table", words, ("rows", "columns", "format", "show", "cite", "out"), HELP)
    out = found.said.get("out", "")
    form = chosen(found.said, "format", FORMATS, ENDINGS.get(PurePath(out).suffix, "markdown"))
    cited = chosen(found.said, "cite", ("true", "false"), "false") == "true"
    rows, columns = found.said.get("rows", "attack"), found.said.get("columns", "defense")
    tables = crosstabs(found.groups, rows, columns, found.options, found.key, found.said.get("show", "lift"))
    if form == "latex":
        text = latex(tables, _keys if cited else None)
    else:
        text = markdown(tables) if form == "markdown" else tidy(tables)
    put(text, out)
    if why := why_parted(tables):
        print(why, file=sys.stderr)
    return 0


def _keys(axis: str, cell: Cell) -> list[str]:
    return keys_of(axis, cell.group)
