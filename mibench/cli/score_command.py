"""``mibench score``: metrics of a stored reconstruction, added to its rows without running the attack again."""

from __future__ import annotations

from collections.abc import Sequence

from filelock import Timeout

from mibench.cli.stored import description_of, replan, results_folder, split_words, stored_rows
from mibench.cli.table import print_scores, scores_of
from mibench.errors import UserError
from mibench.leaderboard.shards import read_shard, write_shard


def run(words: Sequence[str]) -> int:
    """Compute the metrics given by ``metric=[...]`` (the task's own where none are) and put them into the shard."""
    from mibench.running.cell import Cell
    from mibench.running.standing import claim_of

    cell_id, overrides = split_words(words, "score")
    results = results_folder(overrides)
    stored = stored_rows(cell_id, results)
    plan = replan(description_of(stored), overrides)
    cell = Cell(plan, stored_only=True)
    scores = cell.scores()
    fresh = cell.rows(scores)
    measured = {row["metric"] for row in fresh}
    records = [{str(name): value for name, value in row.items()} for row in stored.to_dict("records")]
    kept = [row for row in records if row["metric"] not in measured and row["metric"]]
    try:
        with claim_of(plan):
            shard = write_shard(results, plan.cell_id, [*kept, *fresh])
    except Timeout:
        raise UserError("This cell is being run by another process; score it when that is done.") from None
    cell.drawn(scores_of(read_shard(shard)))  # whose heading holds the verdict
    print_scores(scores, plan, cell.notes)
    print(f"rows      {shard}")
    return 0
