"""Runs a command with a fault, then without, each in a process forked after the imports; tells what was lost."""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.injection import FAULTS, SUDDEN, Disk
from faults.state import State, state_of

#: Seconds after which a command hangs.
PATIENCE = 300.0

#: How a command may end by itself; a raw exception of Python ends in none of these.
STATUSES = (0, 1, 2)

#: How it has to end where a signal stopped it.
STOPPED = {"ctrl-c": (130,), "term": (143,)}


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Its exit status, negative for a signal, None where it hung.
        said: What it wrote to the terminal.
        operations: Verb and path of every file operation, and whether a time limit ran then.
        seconds: How long it took.
    """

    status: int | None
    said: str
    operations: Sequence[tuple[str, str, bool]]
    seconds: float


def run_forked(
    words: Sequence[str],
    folder: Path,
    fault: str = "",
    at: int = 0,
    kill_after: float = PATIENCE,
    every: float = 0.0,
) -> Ended:
    """Run a command in ``folder``, in a forked process that writes a checkpoint every so many seconds."""
    from mibench.cli.main import main
    from mibench.storage import checkpoints

    journal, output = folder.with_suffix(".journal"), folder.with_suffix(".output")
    journal.unlink(missing_ok=True)
    sys.stdout.flush(), sys.stderr.flush()
    began = time.monotonic()
    if not (child := os.fork()):
        status = 99  # a raw exception
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which a runner of tests may have taken
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1), os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
            logging.getLogger().handlers.clear()  # which write to what the parent process had
            os.chdir(folder)
            checkpoints.EVERY = every
            disk = Disk(folder, journal, fault, at)
            disk.install()
            try:
                status = main(list(words))
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
            except BaseException:
                import traceback

                traceback.print_exc()
            disk.write_journal()
        os._exit(status)
    status = _waited(child, began + kill_after)
    operations = json.loads(journal.read_text()) if journal.exists() else []
    said = output.read_text(errors="replace") if output.exists() else ""
    return Ended(status, said, [tuple(one) for one in operations], time.monotonic() - began)


def _waited(child: int, until: float) -> int | None:
    """Return the exit status of a child; None where it was killed because its time was over."""
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


@dataclass(frozen=True)
class Driver:
    """A command whose files fail.

    Attributes:
        name: What it is called.
        words: The command; ``CELL`` in it is the id of the one cell there is.
        before: Commands that make the folder in which it runs.
        prepare: What is then done to that folder.
        every: Seconds between two checkpoints; 0 writes one at every step.
        remains: Whether temporary leftovers may stay after the command went through.
    """

    name: str
    words: Sequence[str]
    before: Sequence[Sequence[str]] = ()
    prepare: Callable[[Path], None] = lambda folder: None
    every: float = 0.0
    remains: bool = True


@dataclass(frozen=True)
class Point:
    """One fault at one operation of one driver; ``at`` is a share of its time for kills at random times."""

    driver: str
    fault: str
    at: float


@dataclass
class Case:
    """A driver with the folder it starts from and what it leaves undisturbed."""

    driver: Driver
    home: Path
    start: State = field(init=False)
    end: State = field(init=False)
    words: Sequence[str] = field(init=False)
    undisturbed: Ended = field(init=False)

    def __post_init__(self) -> None:
        folder = self.home / "start"
        folder.mkdir(parents=True)
        for words in self.driver.before:
            _went_through(self.run(folder, words), words)
        self.driver.prepare(folder)
        self.start = state_of(folder)
        self.words = [next(iter(self.start.rows)) if word == "CELL" else word for word in self.driver.words]
        with self.copied() as copy:
            self.undisturbed = self.run(copy, self.words)
            _went_through(self.undisturbed, self.words)
            self.end = state_of(copy)
        wrong = [*self.end.broken, *(() if self.driver.remains else self.end.leftovers)]
        assert not wrong, wrong

    def run(self, folder: Path, words: Sequence[str], **fault: Any) -> Ended:
        """Run a command of this driver in ``folder``; further arguments are those of :func:`run_forked`."""
        return run_forked(words, folder, every=self.driver.every, **fault)

    @contextlib.contextmanager
    def copied(self) -> Iterator[Path]:
        """Give a fresh copy of the folder in which the command starts."""
        folder = Path(tempfile.mkdtemp(dir=self.home)) / "run"
        shutil.copytree(self.home / "start", folder, symlinks=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder.parent)

    def points(self) -> list[Point]:
        """Return every operation with every fault that can happen there."""
        return [
            Point(self.driver.name, fault, number)
            for number, (_, _, limited) in enumerate(self.undisturbed.operations, 1)
            for fault in FAULTS
            if fault != "clock" or limited
        ]

    def losses(self, point: Point) -> list[str]:
        """Run the command with a fault and then again; return a sentence for whatever was lost."""
        with self.copied() as folder:
            if point.fault == "random kill":
                ended = self.run(folder, self.words, kill_after=point.at * self.undisturbed.seconds)
            else:
                ended = self.run(folder, self.words, fault=point.fault, at=int(point.at))
            lost = [*self._at_once(point, ended, state_of(folder))]
            lost += self._afterwards(self.run(folder, self.words), state_of(folder))
            where = ("of its time",)
            if point.fault != "random kill":  # SIGTERM leaves no journal
                where = (ended.operations or self.undisturbed.operations)[int(point.at) - 1][:2]
        return [f"{self.driver.name}, {point.fault} at {point.at:g} ({' '.join(where)}): {one}" for one in lost]

    def _at_once(self, point: Point, ended: Ended, there: State) -> Iterator[str]:
        """Say what is wrong as soon as the fault has happened."""
        sudden = point.fault in (*SUDDEN, "random kill")
        if not sudden and ended.status is None:
            yield "the command hangs"
        elif not sudden and ended.status not in STOPPED.get(point.fault, STATUSES):
            yield f"it ended with status {ended.status}: {_last(ended.said)}"
        elif point.fault in STOPPED and "Traceback" in ended.said:
            yield f"a signal ends in a traceback: {_last(ended.said)}"
        if ended.status == 0 and point.fault != "random kill":
            yield from (f"status 0, but {one}" for one in self.end.missing_in(there, rows_alone=True))
        yield from (f"half a file is there under its whole name: {one}" for one in there.broken)
        yield from (f"rows of before: {one}" for one in self.start.rows_lost_in(there, self.end))
        written = {Path(path).stem for verb, path, _ in ended.operations[: int(point.at) - 1] if _is_shard(verb, path)}
        for cell in written & {cell for cell, rows in there.rows.items() if rows[0]["status"] == "failed"}:
            yield f"measured rows of {cell} were replaced by a failed one"

    def _afterwards(self, again: Ended, there: State) -> Iterator[str]:
        """Say what is wrong after the same command has run once more."""
        if again.status != 0:
            yield f"the same command then ends with status {again.status}: {_last(again.said)}"
        elif "Traceback" in again.said:
            yield f"the same command then prints a traceback: {_last(again.said)}"
        yield from (f"the same command then leaves half a file: {one}" for one in there.broken)
        yield from (f"after the same command {one}" for one in self.end.missing_in(there))
        if not self.driver.remains:
            yield from (f"after the same command {one} is left over" for one in there.leftovers)


def _is_shard(verb: str, path: str) -> bool:
    return verb == "rename" and Path(path).suffix == ".parquet" and Path(path).parent.name == "shards"


def _last(said: str) -> str:
    return next((line[:200] for line in reversed(said.splitlines()) if line.strip()), "(silence)")


def _went_through(ended: Ended, words: Sequence[str]) -> None:
    if ended.status != 0:
        raise AssertionError(f"undisturbed, {' '.join(words)} ends with {ended.status}:\n{ended.said}")


def thinned(points: Sequence[Point], count: int, draw) -> list[Point]:
    """Return so many points at random, those of every driver in equal shares as far as it has so many."""
    by_driver: dict[str, list[Point]] = {}
    for point in draw.sample(points, len(points)):
        by_driver.setdefault(point.driver, []).append(point)
    kept: list[Point] = []
    while len(kept) < count and any(by_driver.values()):
        kept += [one.pop() for one in by_driver.values() if one][: count - len(kept)]
    return kept


def renamed(driver: Driver, name: str) -> Driver:
    """Return a driver under another name."""
    return dataclasses.replace(driver, name=name)
