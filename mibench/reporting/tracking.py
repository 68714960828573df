"""Copies of finished cells in an experiment tracker.

The rows in parquet are the record. A copy is made after they are written, from what was written, and whatever goes
wrong with it costs a sentence and at most ``init_timeout`` seconds.
"""

from __future__ import annotations

import contextlib
import logging
import math
import netrc
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlparse

from mibench.options import Options, Positive
from mibench.planning.plan import Plan
from mibench.running.cell import Outcome
from mibench.storage.store import digest_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("mibench")


class Logger(Options, ABC):
    """A tracker; its options are checked before the cell is run."""

    block: ClassVar[str] = "logger"

    @abstractmethod
    def log(self, plan: Plan, outcome: Outcome) -> None:
        """Copy a finished cell; raises nothing, whatever the tracker does."""


class NoLogger(Logger):
    """No tracker."""

    def log(self, plan: Plan, outcome: Outcome) -> None:
        """Do nothing."""


class WandbLogger(Logger):
    """Weights & Biases: configuration, numbers, the victim's loss curve and the picture sheet, one run per cell.

    W&B first writes the run to disk, which needs no network; where it is to be online, ``wandb sync`` then sends it
    from a process of its own, which is stopped after ``init_timeout``. So no retry, prompt or hook of W&B can hold up
    a cell, and what was not sent is there to be sent later.

    A cell is one run, however often it is run: the last one stands. Where ``WANDB_MODE`` is ``disabled`` nothing is
    started.
    """

    #: Set once sending has failed, so that the other cells of a sweep do not wait for the server again.
    unreachable: ClassVar[bool] = False

    project: str = "mibench"
    """The project."""
    entity: str | None = None
    """User or team; null takes W&B's own default."""
    group: str | None = None
    """Group of the run; null takes the cell's ``group_id``, which cells share that differ in the seed alone."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """``online``, ``offline``, or ``auto``: what ``WANDB_MODE`` says, or else online where there is a key."""
    init_timeout: Positive = 10.0
    """Most seconds that a cell waits for W&B's server."""
    pictures: Literal["shareable", "all", "none"] = "shareable"
    """``shareable`` copies the sheets of datasets whose card lets them be shown, ``all`` every sheet."""
    dir: Path | str = "results"
    """Folder in which W&B makes its folder ``wandb``."""

    def log(self, plan: Plan, outcome: Outcome) -> None:
        """Copy a finished cell; every failure of W&B ends as one warning."""
        if os.environ.get("WANDB_MODE") == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
            log.info("W&B is disabled by the environment, so it gets no copy of this cell.")
            return
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's reports on itself hang where the network does
        try:
            import wandb

            run = self._started(wandb, plan)
            self._fill(wandb, run, plan, outcome)
            run.finish()
            folder, online = Path(run.dir).parent, self._online(str(run.settings.base_url))
            if folder.is_dir() and not is_whole(folder / f"run-{self._id(plan)}.wandb"):
                raise OSError(f"the run below {self.dir} does not end; is the disk full?")
            for earlier in folder.parent.glob(f"offline-run-*-{self._id(plan)}"):
                if earlier != folder:
                    shutil.rmtree(earlier, ignore_errors=True)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            log.warning("W&B failed (%s), so its copy of this cell is not whole; the rows are safe.", reason)
            return
        if not online or WandbLogger.unreachable:
            return
        if reason := send(folder, self.init_timeout):
            WandbLogger.unreachable = True
            log.warning(
                "W&B did not take the cell (%s), so this one and those after it are kept on disk; wandb sync %s sends "
                "it, and the rows are safe.",
                reason,
                folder,
            )

    def _online(self, address: str) -> bool:
        """Whether runs are to be sent to the server at ``address``."""
        if self.mode != "auto":
            return self.mode == "online"
        if said := os.environ.get("WANDB_MODE"):
            return said == "online"
        if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            return True
        try:
            return netrc.netrc(os.environ.get("NETRC")).authenticators(urlparse(address).hostname or "") is not None
        except (OSError, netrc.NetrcParseError):
            return False

    def _id(self, plan: Plan) -> str:
        """Return the id of the run: the same for every time that the cell is copied to this project."""
        return digest_of({"cell": plan.cell_id, "project": self.project, "entity": self.entity})

    def _started(self, wandb: Any, plan: Plan) -> Any:
        folder = Path(self.dir).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        cards = plan.cards
        return wandb.init(
            id=self._id(plan),
            project=self.project,
            entity=self.entity,
            group=self.group or plan.group_id,
            name=f"{cards.attack.name} {cards.defense.name} {cards.dataset.name} seed {plan.config['seed']}",
            config={**plan.description, "cell_id": plan.cell_id, "group_id": plan.group_id},
            dir=str(folder),
            mode="offline",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=self.init_timeout,
                program="mibench",  # what is copied is the cell: neither the user's code nor what the machine is
                disable_code=True,
                disable_git=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_disable_stats=True,
            ),
        )

    def _fill(self, wandb: Any, run: Any, plan: Plan, outcome: Outcome) -> None:
        from mibench.leaderboard.shards import read_shard

        for step, loss in outcome.curve:
            run.log({"victim/loss": loss}, step=step)
        rows = read_shard(outcome.shard)
        run.log({"rows": table(wandb, rows)})
        if outcome.picture is not None and self._may_copy(plan):
            run.log({"pictures": wandb.Image(str(outcome.picture))})
        run.summary.update(summary(rows))

    def _may_copy(self, plan: Plan) -> bool:
        dataset = plan.cards.dataset
        if self.pictures == "shareable" and not dataset.may_show:
            log.info(
                "W&B gets no pictures of dataset '%s', which are not to be shown; logger.pictures=all sends them.",
                dataset.name,
            )
            return False
        return self.pictures != "none"


def is_whole(file: Path, seconds: float = 5.0) -> bool:
    """Whether the file of a finished run, which W&B goes on writing for a moment, ends with the record of its end.

    Args:
        file: A LevelDB log behind seven bytes of W&B's own.
        seconds: How long it is waited for.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, ValueError, struct.error):
            if (last := _last_record(file.read_bytes())) and Record.FromString(last).HasField("exit"):
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)


def log_records(content: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the records of W&B's file, each with the place where it ends.

    Args:
        content: A LevelDB log behind seven bytes of W&B's own: blocks of 32 KiB, chunks behind checksum, length, kind.
    """
    at, whole = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield whole, at
            whole = b""


def _last_record(content: bytes) -> bytes:
    """Return the last record of W&B's file; nothing where the file goes on behind it."""
    record, end = b"", 0
    for record, end in log_records(content):  # noqa: B007
        pass
    return record if end == len(content) else b""


def summary(rows: pd.DataFrame) -> dict[str, float]:
    """Return the measured numbers of a cell by name: ``attack_accuracy/top1/vote`` and the same with ``/lift``."""
    numbers: dict[str, float] = {}
    for row in rows[rows["status"] == "ok"].to_dict("records"):
        name = "/".join(row[part] for part in ("metric", "variant", "evaluator") if row[part])
        numbers |= {name: row["value"], f"{name}/control": row["control"], f"{name}/lift": row["lift"]}
    numbers |= {name: rows[name].iloc[0] for name in ("queries", "seconds")}
    return {name: float(value) for name, value in numbers.items() if not math.isnan(value)}


def table(wandb: Any, rows: pd.DataFrame) -> Any:
    """Return the rows without their configuration as a table of W&B; what is not there is None."""
    told = rows.drop(columns="config").astype(object)
    told = told.where(told.notna(), None)
    return wandb.Table(columns=list(told.columns), data=told.to_numpy().tolist(), allow_mixed_types=True)


def send(folder: Path, seconds: float) -> str:
    """Send a run on disk to W&B's server, and return why that failed; empty where it did not.

    Args:
        folder: The run.
        seconds: Time after which it is stopped.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        sync = subprocess.Popen(
            [sys.executable, "-m", "wandb", "sync", str(folder.resolve())],
            cwd=folder,  # W&B writes a log below the folder it is called in
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = sync.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"no success within {seconds:g} seconds"
        finally:
            _end(sync)
        said.seek(0)
        lines = [line.strip() for line in said if line.strip()]
    if any(folder.glob("*.synced")):  # the status is 0 for a refused key too
        return ""
    return lines[-1].rstrip(".") if lines else f"wandb sync ended with status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
