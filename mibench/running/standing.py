"""What stands of a cell: its claim, its log, its rows; and the one way in which a cell is run."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from mibench.errors import TimeLimitReached, UserError
from mibench.leaderboard.rows import CellFacts, make_row, plan_facts
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import read_shard, shard_path, write_shard
from mibench.planning.plan import Plan, folder
from mibench.running.stopping import raise_if_stopped, time_limit

if TYPE_CHECKING:
    from mibench.running.cell import Outcome

log = logging.getLogger("mibench")


@dataclass(frozen=True)
class Ended:
    """How a cell that was run ended.

    Attributes:
        status: ``measured``, ``failed`` or ``elsewhere`` (another process runs it).
        outcome: What a measured cell left.
        shard: The rows of a cell that was measured or failed.
        reason: Why it failed.
        log: Its log.
        error: What broke it.
    """

    status: Literal["measured", "failed", "elsewhere"]
    outcome: Outcome | None = None
    shard: Path | None = None
    reason: str = ""
    log: Path | None = None
    error: BaseException | None = None

    @property
    def sentence(self) -> str:
        """What a person is told of a cell that was not measured; empty where it was."""
        if self.status == "elsewhere":
            return "This cell is being run by another process; it is left to that."
        failed = f"The cell failed ({self.reason}); its row is {self.shard}, its log {self.log}."
        return failed if self.status == "failed" else ""


def run_under_claim(plan: Plan) -> Ended:
    """Run a compatible cell, for the command line and for Python alike.

    The cell is claimed, so that no other process runs it; its log is written afresh; its time is limited; whatever
    breaks it becomes a ``failed`` row that names the log; and what was measured is handed to the logger.

    Raises:
        UserError: If an option of the cell is wrong.
    """
    import torch

    from mibench.planning.composition import build
    from mibench.running.cell import Cell

    logger = build(plan.config["logger"])
    if plan.config["threads"] is not None:
        torch.set_num_threads(int(plan.config["threads"]))
    try:
        with claim_of(plan), logging_to(log_of(plan)), time_limit(plan.config["time_limit"]):
            done = Cell(plan, rebuild=plan.config["overwrite"] == "always").run()
    except Timeout:
        return Ended("elsewhere")
    except UserError:
        raise
    except (Exception, TimeLimitReached) as error:
        raise_if_stopped()
        with log_of(plan).open("a") as file:
            traceback.print_exc(file=file)
        reason = f"{type(error).__name__}: {error}"
        shard = leave_row(plan, "failed", logged(plan, reason))
        return Ended("failed", shard=shard, reason=reason, log=log_of(plan), error=error)
    logger.log(plan, done)
    return Ended("measured", done, done.shard)


def claim_of(plan: Plan) -> FileLock:
    """Return the lock that a process holds while it runs a cell; acquiring it raises ``Timeout`` at once."""
    claims = folder(plan, "results") / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    return FileLock(claims / f"{plan.cell_id}.lock", timeout=0)


def log_of(plan: Plan) -> Path:
    """Return where the log of a cell lies; its folder is there."""
    path = folder(plan, "results") / "logs" / f"{plan.cell_id}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def logged(plan: Plan, reason: str) -> str:
    """Write why a cell failed to the end of its log, and return the reason with the log's path, for its row."""
    path = log_of(plan)
    with path.open("a") as file:
        file.write(f"{reason}\n")
    return f"{reason} (log: {path})"


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write mibench's log lines to a file too, afresh."""
    handler = logging.FileHandler(path, mode="w")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def finished(plan: Plan) -> Path | None:
    """Return the shard that makes running the cell needless under ``overwrite``; None where it must run."""
    overwrite = plan.config["overwrite"]
    path = shard_path(folder(plan, "results"), plan.cell_id)
    if overwrite == "always" or not path.exists():
        return None
    rows = read_shard(path)
    if plan.config["convergence"] and "ok" in set(rows["status"]) and "convergence" not in set(rows["metric"]):
        return None  # measured, but not yet checked
    return None if overwrite == "failed" and "failed" in set(rows["status"]) else path


def leave_row(plan: Plan, status: str, reason: str) -> Path:
    """Write the one row of a cell that was not measured, and return the shard."""
    facts: dict[str, Any] = plan_facts(plan)
    cell = CellFacts(
        cell_id=plan.cell_id,
        group_id=plan.group_id,
        knowledge="",
        modality=plan.cards.modalities[0],
        **facts,
    )
    row = make_row(cell, Score(metric="", status=status, reason=reason))
    return write_shard(folder(plan, "results"), plan.cell_id, [row])
