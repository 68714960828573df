"""What stands of a cell: its claim, its log, its rows; and the one way in which a cell is run."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from mibench.errors import TimeLimitReached, UserError, told
from mibench.files import refuse_unwritable, remove_leftovers, unwritable
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
        status: ``measured``, ``failed``, ``elsewhere`` (another process runs it) or ``stands`` (another process has
            run it since it was looked for).
        outcome: What a measured cell left.
        shard: The rows of a cell that was measured or failed.
        reason: Why it failed.
        log: Its log.
        error: What broke it.
    """

    status: Literal["measured", "failed", "elsewhere", "stands"]
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
        if self.status != "failed":
            return ""
        assert self.shard is not None
        row = "the rows that it had before are kept in" if is_measured(self.shard) else "its row is"
        return f"The cell failed ({self.reason}); {row} {self.shard}, its log {self.log}."


def run_under_claim(plan: Plan) -> Ended:
    """Run a compatible cell, for the command line and for Python alike.

    The cell is claimed, so that no other process runs it; its log is written afresh; its time is limited; whatever
    breaks it becomes a ``failed`` row that names the log. The picture and the logger's copy come after the rows, and
    cost a warning where they fail.

    Raises:
        UserError: If an option of the cell is wrong, or its results cannot be written.
    """
    import torch

    from mibench.planning.composition import build
    from mibench.running.cell import Cell

    logger = build(plan.config["logger"])
    if plan.config["threads"] is not None:
        torch.set_num_threads(int(plan.config["threads"]))
    refuse_unwritable("results folder", folder(plan, "results"), "paths.results")
    try:
        with claim_of(plan):
            if (stands := finished(plan)) is not None and is_measured(stands):
                return Ended("stands", shard=stands)
            remove_leftovers(shard_path(folder(plan, "results"), plan.cell_id))
            remove_leftovers(picture_path(plan))
            with logging_to(log_of(plan)):
                with time_limit(plan.config["time_limit"]):
                    cell = Cell(plan, rebuild=plan.config["overwrite"] == "always")
                    done = cell.measured()
                done = replace(done, picture=cell.drawn(done.scores))
    except Timeout:
        return Ended("elsewhere")
    except UserError:
        raise
    except (Exception, TimeLimitReached) as error:
        raise_if_stopped()
        reason = f"{type(error).__name__}: {error}"
        shard = leave_row(plan, "failed", logged(plan, reason, error))
        return Ended("failed", shard=shard, reason=reason, log=log_of(plan), error=error)
    try:
        logger.log(plan, done)
    except Exception as error:
        log.warning("The copy for the logger failed (%s); the rows are safe.", told(error))
    return Ended("measured", done, done.shard)


@contextlib.contextmanager
def claim_of(plan: Plan) -> Iterator[None]:
    """Hold the lock that a process has while it runs a cell.

    Raises:
        Timeout: At once, if another process holds it.
        UserError: If its file cannot be written.
    """
    results = folder(plan, "results")
    claim = FileLock(results / "claims" / f"{plan.cell_id}.lock", timeout=0)
    try:
        Path(claim.lock_file).parent.mkdir(parents=True, exist_ok=True)
        claim.acquire()
    except Timeout:
        raise
    except OSError as error:
        raise unwritable("results folder", results, "paths.results", error) from error
    try:
        yield
    finally:
        claim.release()


def log_of(plan: Plan) -> Path:
    """Return where the log of a cell lies."""
    return folder(plan, "results") / "logs" / f"{plan.cell_id}.log"


#: How the last line of a failed cell's log begins; the reason follows.
FAILED = "failed    "


def logged(plan: Plan, reason: str, error: BaseException | None = None) -> str:
    """Write why a cell failed to the end of its log, and return the reason with the log's path, for its row.

    Args:
        plan: The cell.
        reason: The reason.
        error: What broke it, whose traceback is written before.
    """
    path = log_of(plan)
    with contextlib.suppress(OSError):  # the row says it too
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            if error is not None:
                traceback.print_exception(error, file=file)
            file.write(f"{FAILED}{' '.join(reason.split())}\n")
    return f"{reason} (log: logs/{path.name})"


def reason_logged(plan: Plan, since: int) -> str:
    """Return why a cell failed, from the last line of its log, with the log's path; empty where that does not say.

    Args:
        plan: The cell.
        since: Time in nanoseconds; a log that was last written before says nothing.
    """
    path = log_of(plan)
    try:
        if path.stat().st_mtime_ns < since:
            return ""
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    failed = lines and lines[-1].startswith(FAILED)
    return f"{lines[-1].removeprefix(FAILED)} (log: logs/{path.name})" if failed else ""


class _CellLog(logging.FileHandler):
    """The log of a cell, which goes on without its file where that cannot be written (any more)."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leave the line out."""


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write mibench's log lines to a file too, afresh; where that cannot be written, a warning says so."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _CellLog(path, mode="w", encoding="utf-8")
    except OSError as error:
        log.warning("The log %s cannot be written (%s); the cell runs without it.", path, told(error))
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with contextlib.suppress(OSError):  # of a full disk, once more
            handler.close()


def finished(plan: Plan) -> Path | None:
    """Return the shard that makes running the cell needless under ``overwrite``; None where it must run.

    A shard that cannot be read is said to be so, and the cell must run.
    """
    overwrite = plan.config["overwrite"]
    path = shard_path(folder(plan, "results"), plan.cell_id)
    if overwrite == "always" or not path.exists():
        return None
    try:
        rows = read_shard(path)
    except UserError as reason:
        log.warning("%s", reason)
        return None
    if plan.config["convergence"] and "ok" in set(rows["status"]) and "convergence" not in set(rows["metric"]):
        return None  # measured, but not yet checked
    return None if overwrite == "failed" and "failed" in set(rows["status"]) else path


def leave_row(plan: Plan, status: str, reason: str) -> Path:
    """Write the one row of a cell that was not measured, unless it has been measured before, and return the shard."""
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


def draw_again(plan: Plan, scores: Sequence[Score]) -> Path | None:
    """Draw the picture sheet of a cell whose rows stand, from what is stored; None, with a warning, where that fails.

    Args:
        plan: The cell.
        scores: Its numbers, one of which stands in the sheet's heading.
    """
    from mibench.running.cell import Cell

    try:
        refuse_unwritable("results folder", folder(plan, "results"), "paths.results")
        with claim_of(plan):
            return Cell(plan, stored_only=True).draw(scores)
    except Timeout:
        return None
    except Exception as error:
        log.warning("The picture is missing and cannot be drawn (%s); the rows stand.", told(error))
        return None


def is_measured(path: Path) -> bool:
    """Whether a shard can be read and any of its rows was measured."""
    try:
        return "ok" in set(read_shard(path)["status"])
    except UserError:
        return False


def picture_path(plan: Plan) -> Path:
    """Return where the picture sheet of a cell lies, where it has one."""
    return folder(plan, "results") / "pictures" / f"{plan.cell_id}.png"


def lacks_picture(plan: Plan, shard: Path) -> bool:
    """Whether the rows of a cell stand without the picture sheet that belongs to them, while its store is there."""
    if picture_path(plan).exists() or not (folder(plan, "store") / "reconstruction").is_dir():
        return False
    from mibench.tasks import get_task

    try:
        rows = read_shard(shard)
    except UserError:
        return False
    task = get_task(plan.cards.attack.task)
    return "ok" in set(rows["status"]) and rows["modality"].iloc[0] in task.pictured
