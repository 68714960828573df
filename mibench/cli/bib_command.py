"""``mibench bib``: the BibTeX entries of the methods behind the groups that are picked."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mibench.cli.picking import pick, put
from mibench.leaderboard.exports.references import bibliography

HELP = "python -m mibench bib [dataset=NAME attack=NAME ...] [metric=ID] [out=FILE]"


def run(words: Sequence[str]) -> int:
    """Print or write the entries, sorted by key, and name on standard error what has none."""
    found = pick("bib", words, ("out",), HELP)
    made = bibliography(found.groups, found.key)
    put(made.text, found.said.get("out", ""))
    for one in made.missing:
        print(one, file=sys.stderr)
    return 0
