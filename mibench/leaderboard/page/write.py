"""The files of a page: one that needs no network and no server, and one that it loads beside it."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from mibench.files import write_text
from mibench.leaderboard.page.columns import as_json
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.details import details
from mibench.leaderboard.page.overview import overview
from mibench.leaderboard.page.static import static_table

#: The parts of the script, in the order in which they are joined.
SCRIPTS = (
    "data.js", "format.js", "address.js", "export.js", "tables.js", "controls.js", "figure.js", "tooltip.js",
    "overview.js", "matrix.js", "ranking.js", "plane.js", "curves.js", "numbers.js", "group.js", "pages.js", "main.js",
)  # fmt: skip

#: What the second file calls with its content.
RECEIVER = "mibench_receive"


def write_page(folder: Path, sources: Sources) -> Path:
    """Write ``index.html`` and ``page/numbers.js`` into a folder of results, and return the page.

    They hold no date and no path, and are sorted throughout: the same rows give the same bytes.
    """
    page = folder / "index.html"
    first = overview(sources)
    write_text(page, filled(first, static_table(sources)))
    write_text(folder / "page" / "numbers.js", f"{RECEIVER}({as_json(details(sources))});\n")
    return page


def filled(content: Mapping[str, Any], table: str) -> str:
    """Return the page with style, script, overview and the static table inside: fetching fails on ``file://``."""
    assets = files("mibench.leaderboard.page").joinpath("assets")

    def text_of(name: str) -> str:
        return assets.joinpath(name).read_text(encoding="utf-8")

    scripts = [text_of(name) for name in SCRIPTS if assets.joinpath(name).is_file()]
    parts = {
        "/*style*/": text_of("page.css"),
        "<!--noscript-->": table,
        "<!--counts-->": html.escape(_counts(content["counts"])),
        "/*overview*/": as_json(content),
        "/*script*/": "\n".join(scripts),
    }
    place = re.compile("|".join(map(re.escape, parts)))
    return place.sub(lambda found: parts[found[0]], text_of("page.html"))


def _counts(counts: Mapping[str, int]) -> str:
    """Return how much was measured, for search engines and readers without a script.

    >>> _counts({"datasets": 5, "attacks": 38, "defenses": 37, "runs": 1467, "numbers": 11564})
    '38 model-inversion attacks against 37 defenses on 5 datasets; 11,564 numbers beside their control'
    """
    return (
        f"{counts['attacks']:,} model-inversion attacks against {counts['defenses']:,} defenses on "
        f"{counts['datasets']:,} datasets; {counts['numbers']:,} numbers beside their control"
    )
