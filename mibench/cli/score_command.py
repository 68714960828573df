"""``mibench score``: metrics of a stored reconstruction, added to its rows without running the attack again."""

from __future__ import annotations

from collections.abc import Sequence

from filelock import Timeout

from mibench.cli.stored import completed, description_of, replan, results_of, split_words, stored_rows
from mibench.cli.table import print_scores, scores_of
from mibench.errors import UserError
from mibench.leaderboard.shards import read_shard, write_shard


def run(words: Sequence[str]) -> int:
    """Compute the metrics given by ``metric=[...]`` (the task's own where none are) and put them into the shard."""
    from mibench.running.cell import Cell
    from mibench.running.standing import claim_of

    cell_id, overrides = split_words(words, "score")
    results = results_of(overrides)
    stored = stored_rows(cell_id, results)
    description, overrides = completed(description_of(stored), overrides, f"python -m mibench score {cell_id}")
    plan = replan(description, overrides)
    if plan.cell_id != str(stored["cell_id"].iloc[0]):
        raise UserError(
            f"With these words cell {cell_id} would be cell {plan.cell_id}: an option, a component or "
            "the content of a folder is not what it was; run it again."
        )
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
