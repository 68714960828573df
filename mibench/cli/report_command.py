"""``mibench report``: a page on one cell or several, for a reader who is not in the field."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mibench.cli.stored import description_of, results_folder, stored_rows
from mibench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from mibench.reporting.report import Origin

#: Words of this command, which no cell has.
OWN = ("name", "author")


def run(words: Sequence[str]) -> int:
    """Write the page on the cells named and print where it lies.

    ``name=NAME`` names the file; ``author=NAME`` says who ran it, which the page does not say without it.
    """
    import pandas as pd

    from mibench.reporting.report import report_name, write_report

    ids = [word for word in words if "=" not in word]
    said = {key: value for key, equals, value in (word.partition("=") for word in words) if equals and key in OWN}
    if not ids:
        raise UserError(
            "report takes cell ids, as the tables print them: python -m mibench report CELL_ID [CELL_ID ...]."
        )
    results = results_folder([word for word in words if "=" in word and word.partition("=")[0] not in OWN])
    rows = pd.concat([stored_rows(cell_id, results) for cell_id in ids], ignore_index=True)
    rows = rows.drop_duplicates(["cell_id", "metric", "variant", "evaluator"])
    command = " ".join(["python -m mibench report", *(shlex.quote(word) for word in words)])
    origin = origin_of(rows, results, said.get("author", ""), command)
    print(f"report    {write_report(rows, results, said.get('name') or report_name(rows), origin)}")
    return 0


def origin_of(rows: pd.DataFrame, results: Path, author: str = "", command: str = "") -> Origin:
    """Return what a report says of where its cells come from.

    Args:
        rows: Rows of the cells.
        results: The folder ``paths.results``.
        author: Who ran them; empty leaves it out.
        command: The command that writes the report.
    """
    from mibench.cli.reproduction import Commands
    from mibench.leaderboard.lines import by_column
    from mibench.reporting.report import Origin

    commands = Commands(results / "local" / "cache" / "defaults.json")
    made = {str(cell): commands(description_of(own)) for cell, own in rows.groupby("cell_id") if own["config"].iloc[0]}
    shared = set.intersection(*({*one.options} for one in made.values())) if len(made) > 1 else set()
    return Origin(
        author=author,
        command=command,
        commands={cell: one.command for cell, one in made.items() if one.command},
        options={cell: by_column(word for word in one.options if word not in shared) for cell, one in made.items()},
    )
