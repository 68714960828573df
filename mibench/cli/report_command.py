"""``mibench report``: a page on one cell or several, for a reader who is not in the field."""

from __future__ import annotations

from collections.abc import Sequence

from mibench.cli.stored import results_folder, stored_rows
from mibench.errors import UserError


def run(words: Sequence[str]) -> int:
    """Write the page on the cells named and print where it lies; ``name=NAME`` names the file."""
    import pandas as pd

    from mibench.reporting.report import report_name, write_report

    ids = [word for word in words if "=" not in word]
    names = [word.removeprefix("name=") for word in words if word.startswith("name=")]
    if not ids:
        raise UserError(
            "report takes cell ids, as the tables print them: python -m mibench report CELL_ID [CELL_ID ...]."
        )
    results = results_folder([word for word in words if "=" in word and not word.startswith("name=")])
    rows = pd.concat([stored_rows(cell_id, results) for cell_id in ids], ignore_index=True)
    rows = rows.drop_duplicates(["cell_id", "metric", "variant", "evaluator"])
    print(f"report    {write_report(rows, results, names[0] if names else report_name(rows))}")
    return 0
