"""``mibench show``: one cell's rows, picture, configuration and the command that makes it again."""

from __future__ import annotations

from collections.abc import Sequence

from mibench.cli.stored import description_of, replan, results_of, split_words, stored_rows
from mibench.cli.table import notes_of, number, print_scores, scores_of
from mibench.leaderboard.shards import shard_path

#: What of the run stands below the numbers.
FACTS = (
    "knowledge", "queries", "gradient_evals", "seconds", "device", "mibench_version", "git_commit", "created_at",
)  # fmt: skip


def run(words: Sequence[str]) -> int:
    """Print what is stored of one cell."""
    cell_id, overrides = split_words(words, "show")
    results = results_of(overrides)
    rows = stored_rows(cell_id, results)
    first = rows.iloc[0]
    plan = replan(description_of(rows), overrides)
    print_scores(scores_of(rows), plan, notes_of(rows), str(first["cell_id"]))
    print()
    for name in FACTS:
        value = first[name]
        print(f"{name:<16}{number(value) if isinstance(value, float) else value}")
    print(f"{'rows':<16}{shard_path(results, first['cell_id'])}")
    picture = results / "pictures" / f"{first['cell_id']}.png"
    if picture.exists():
        print(f"{'pictures':<16}{picture}")
    return 0
