"""A sweep: plans its cells, leaves out what stands, hands packs of the rest to a launcher, and counts by shards.

Nothing is taken from a launcher's return values: a job writes its own rows, and what it left is what happened.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from mibench.cli.closing import print_closing
from mibench.errors import UserError
from mibench.files import unwritable, write_text
from mibench.leaderboard.shards import read_shard, shard_path
from mibench.options import check_value
from mibench.planning.choices import quoted
from mibench.planning.composition import plain
from mibench.planning.grid import Overrides, PlannedCell, cells_of, plan_cells, read_grid, unseeded
from mibench.planning.plan import TOP_KEYS, Plan, folder, plan_cell
from mibench.running.standing import (
    claim_of,
    finished,
    is_measured,
    lacks_picture,
    leave_row,
    log_of,
    reason_logged,
)

log = logging.getLogger("mibench")

Compose = Callable[[Sequence[str]], DictConfig]

PACK_FILE = "packs.json"


@dataclass
class Sweep:
    """The cells of one sweep.

    Attributes:
        run: Cells to run, with their plans.
        before: When the shard of such a cell was last written, by its id; None where there is none.
        skipped: Cells that cannot be run, with the reason.
        standing: Cells whose rows stand already, with their plans.
        undrawn: Those of them whose picture sheet is missing; jobs draw it.
        unwritten: Why a row of a skipped cell could not be written; empty where all were.
    """

    run: list[tuple[Overrides, Plan]] = field(default_factory=list)
    skipped: list[PlannedCell] = field(default_factory=list)
    standing: list[tuple[Overrides, Plan]] = field(default_factory=list)
    undrawn: list[tuple[Overrides, Plan]] = field(default_factory=list)
    before: dict[str, int | None] = field(default_factory=dict)
    unwritten: str = ""
    begun: int = field(default_factory=time.time_ns)

    def packs(self, size: int) -> list[list[Overrides]]:
        """Return the cells to run or to draw, ``size`` to a job, those that share most side by side."""
        cells = [overrides for overrides, _ in (*self.run, *self.undrawn)]
        return [cells[start : start + size] for start in range(0, len(cells), size)]


def gather(products: Sequence[Sequence[str]], grid: DictConfig, compose: Compose) -> Sweep:
    """Return the cells of a grid and of the products on the command line, sorted into run, skipped and standing.

    Args:
        products: One list of overrides per combination of the command line.
        grid: The composed ``grid`` block.
        compose: Composes one cell.

    Raises:
        UserError: If a cell's options are wrong.
    """
    sweep, told = Sweep(), set()
    for planned in plan_cells(cells_of(read_grid(plain(grid)), products)):
        if not planned.reason:
            plan = plan_cell(compose(planned.overrides))
            if (stands := finished(plan)) is None:
                sweep.run.append((planned.overrides, plan))
                sweep.before[plan.cell_id] = written_at(plan)
            else:
                sweep.standing.append((planned.overrides, plan))
                if lacks_picture(plan, stands):
                    sweep.undrawn.append((planned.overrides, plan))
            continue
        sweep.skipped.append(planned)
        if (combination := unseeded(planned)) not in told:
            told.add(combination)
            plan = plan_cell(compose(planned.overrides))
            if not shard_path(folder(plan, "results"), plan.cell_id).exists():
                try:
                    leave_row(plan, "skipped", planned.reason)
                except UserError as error:
                    sweep.unwritten = str(error)
    return sweep


def write_packs(path: Path, packs: Sequence[Sequence[Overrides]]) -> list[list[str]]:
    """Write the packs beside the sweep's own files, and return the overrides of one launcher job per pack.

    A job knows the sweep's folder from here alone.

    Raises:
        UserError: If the folder cannot be written.
    """
    file = (path / PACK_FILE).resolve()
    try:
        write_text(file, json.dumps(packs, indent=1))
    except OSError as error:
        raise unwritable("folder of the sweep", path, "paths.results", error) from error
    where = [f"hydra.sweep.dir={quoted(str(file.parent))}", f"+pack_file={quoted(str(file))}"]
    return [[*where, f"+pack_index={index}"] for index in range(len(packs))]


def read_pack(cfg: DictConfig) -> list[list[str]]:
    """Return the overrides of the cells of one launcher job."""
    packs: list[list[list[str]]] = json.loads(Path(cfg.pack_file).read_text())
    return packs[cfg.pack_index]


def conclude(sweep: Sweep) -> int:
    """Tell what the sweep left, write a ``failed`` row for every cell that left none, and return 0 or 1.

    It is 1 where a cell failed, and where a picture or the row of a skipped cell is missing. The closing table has the
    cells that stood already too: a sweep that was begun again tells the whole.
    """
    left = [(words, plan, *left_by(plan, sweep.before[plan.cell_id], sweep.begun)) for words, plan in sweep.run]
    stood = [
        (words, plan, *status_of(shard_path(folder(plan, "results"), plan.cell_id))) for words, plan in sweep.standing
    ]
    counts = Counter(status for _, _, status, _ in left)
    print_closing([*left, *stood], sweep.skipped)
    log.info(
        "sweep     %d measured, %d failed, %d skipped, %d stood already",
        counts["ok"], counts["failed"], counts["skipped"] + len(sweep.skipped), len(sweep.standing),
    )  # fmt: skip
    measured = [plan for _, plan, status, _ in left if status == "ok"] + [plan for _, plan in sweep.undrawn]
    lacking = [
        plan.cell_id for plan in measured if lacks_picture(plan, shard_path(folder(plan, "results"), plan.cell_id))
    ]
    if lacking:
        log.warning(
            "sweep     %d measured without a picture (%s); their lines say why, and the same command draws them.",
            len(lacking), ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else ""),
        )  # fmt: skip
    if sweep.unwritten:
        log.warning("sweep     rows of skipped cells are missing: %s", sweep.unwritten)
    return 1 if counts["failed"] or lacking or sweep.unwritten else 0


def left_by(plan: Plan, before: int | None, begun: int = 0) -> tuple[str, str]:
    """Return what became of a launched cell, and where it was not measured why; a killed one gets its row here.

    Args:
        plan: The cell.
        before: When its shard was written before the sweep, if it was; rows that were measured are then kept.
        begun: When the sweep began; its log says why the cell failed where it was written since.
    """
    path = shard_path(folder(plan, "results"), plan.cell_id)
    if written_at(plan) == before:
        try:
            with claim_of(plan):
                if written_at(plan) != before:  # by another process, which has just ended
                    return status_of(path)
                reason = reason_logged(plan, begun) or killed(plan)
                if is_measured(path):
                    return "failed", f"{reason} The rows that it had before are kept."
                leave_row(plan, "failed", reason)
        except TimeoutError:
            return "elsewhere", "Another process is running this cell; its rows will be that one's."
        except UserError as error:
            return "failed", str(error)
    return status_of(path)


def status_of(path: Path) -> tuple[str, str]:
    """Return what became of the cell of a shard, and where it was not measured why."""
    try:
        rows = read_shard(path)
    except UserError as error:
        return "failed", str(error)
    if (failed := rows["status"] == "failed").any():
        return "failed", str(rows.loc[failed, "reason"].iloc[0])
    return ("ok", "") if (rows["status"] == "ok").any() else ("skipped", str(rows["reason"].iloc[0]))


def written_at(plan: Plan) -> int | None:
    """Return when the shard of a cell was written, in nanoseconds; None where there is none."""
    try:
        return shard_path(folder(plan, "results"), plan.cell_id).stat().st_mtime_ns
    except OSError:
        return None


def killed(plan: Plan) -> str:
    """Return the reason of a cell whose job left no row, with the path of its log where it had begun."""
    trace = log_of(plan)
    if not trace.exists():
        return "The job of this cell ended before the cell began (killed, or given up by the launcher)."
    return (
        "The process that ran this cell was killed and left no row (out of memory, or over the launcher's time?) "
        f"(log: logs/{trace.name})"
    )


def pack_size(config: DictConfig) -> int:
    """Return how many cells one job runs.

    Raises:
        UserError: If ``pack`` is no positive number.
    """
    check_value("pack", TOP_KEYS["pack"], config.pack)
    return int(config.pack)
