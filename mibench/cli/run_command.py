"""One cell, or with ``-m`` a grid of them, composed by Hydra."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from mibench.catalogue import conf_dir
from mibench.cli.table import print_scores
from mibench.composition import Plan, folder, plan_cell, refuse_incompatible, register_resolvers
from mibench.errors import IncompatibleCellError, UserError

log = logging.getLogger("mibench")

OVERWRITE = ("never", "failed", "always")


def run(words: Sequence[str]) -> int:
    """Hands the words to Hydra and returns 0, or 1 where a cell failed."""
    import hydra

    register_resolvers()
    statuses: list[int] = []
    mistakes: list[UserError] = []  # told after Hydra is done, which would log its own lines around them

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="cell")
    def job(cfg: DictConfig) -> None:
        try:
            statuses.append(run_composed(cfg, sweeping=_sweeping()))
        except UserError as error:
            mistakes.append(error)

    before = sys.argv
    sys.argv = ["mibench", *words]
    try:
        job()
    finally:
        sys.argv = before
    if mistakes:
        raise mistakes[0]
    return max(statuses, default=0)


def _sweeping() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def run_composed(cfg: DictConfig, sweeping: bool = False) -> int:
    """Runs one composed cell, prints its table, and returns 0, or 1 where it failed.

    In a sweep a cell whose parts cannot meet leaves a ``skipped`` row, one that meets any other mistake of the user a
    ``failed`` one, and the sweep goes on; alone it is refused.

    Raises:
        UserError: If the cell or one of its options is wrong.
    """
    plan = plan_cell(cfg)
    try:
        refuse_incompatible(plan)
        if (path := finished(plan)) is not None:
            return print_stored(path, plan)
        return run_planned(plan)
    except UserError as reason:
        if not sweeping:
            raise
        skipped = isinstance(reason, IncompatibleCellError)
        status = "skipped" if skipped else "failed"
        log.warning("%s   %s", status, reason)
        leave_row(plan, status, str(reason))
        return 0 if skipped else 1


def run_planned(plan: Plan) -> int:
    """Runs a compatible cell; whatever breaks it becomes a ``failed`` row."""
    import torch

    from mibench.cell import Cell

    if plan.config["threads"] is not None:
        torch.set_num_threads(int(plan.config["threads"]))
    try:
        outcome = Cell(plan, rebuild=plan.config["overwrite"] == "always").run()
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc()
        shard = leave_row(plan, "failed", f"{type(error).__name__}: {error}")
        print(f"The cell failed ({type(error).__name__}: {error}); its row is {shard}.", file=sys.stderr)
        return 1
    print_scores(outcome.scores, plan, outcome.notes)
    print(f"rows      {outcome.shard}")
    if outcome.picture is not None:
        print(f"pictures  {outcome.picture}")
    return 0


def finished(plan: Plan) -> Path | None:
    """Returns the shard that makes running the cell needless under ``overwrite``; None where it must run.

    Raises:
        UserError: If ``overwrite`` is none of its words.
    """
    from mibench.leaderboard.shards import read_shard, shard_path

    overwrite = plan.config["overwrite"]
    if overwrite not in OVERWRITE:
        raise UserError(
            f"Expected overwrite to be {', '.join(OVERWRITE[:-1])} or {OVERWRITE[-1]}, but got '{overwrite}'."
        )
    path = shard_path(folder(plan, "results"), plan.cell_id)
    if overwrite == "always" or not path.exists():
        return None
    status = set(read_shard(path)["status"])
    return None if overwrite == "failed" and "failed" in status else path


def leave_row(plan: Plan, status: str, reason: str) -> Path:
    """Writes the one row of a cell that was not measured, and returns the shard."""
    from mibench.cell import plan_facts
    from mibench.leaderboard.rows import CellFacts, make_row
    from mibench.leaderboard.shards import write_shard
    from mibench.scoring import Score

    facts: dict[str, Any] = plan_facts(plan)
    cell = CellFacts(
        cell_id=plan.cell_id,
        group_id=plan.group_id,
        knowledge="",
        modality=plan.cards.dataset.modalities[0],
        **facts,
    )
    row = make_row(cell, Score(metric="", status=status, reason=reason))
    return write_shard(folder(plan, "results"), plan.cell_id, [row])


def print_stored(path: Path, plan: Plan) -> int:
    """Prints the table of a shard that stands already; returns 1 where it tells of a failure, 0 otherwise."""
    from mibench.cli.table import notes_of, scores_of
    from mibench.leaderboard.shards import read_shard

    rows = read_shard(path)
    if "failed" in set(rows["status"]):
        reason = rows.loc[rows["status"] == "failed", "reason"].iloc[0]
        print(f"This cell failed before ({reason}); overwrite=failed runs it again.", file=sys.stderr)
        return 1
    log.info("This cell has been run; its rows are kept (overwrite=always runs it again).")
    print_scores(scores_of(rows), plan, notes_of(rows))
    print(f"rows      {path}")
    picture = folder(plan, "results") / "pictures" / f"{plan.cell_id}.png"
    if picture.exists():
        print(f"pictures  {picture}")
    return 0
