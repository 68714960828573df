"""Whether the truth tests notice the edits of tests/edits: every edit is made in a copy, whose test must then fail.

    make edits                                           all of them (an hour of one core)
    PYTHONPATH=. python scripts/edits.py --method rgcir --method attacks/sgi
    PYTHONPATH=. python scripts/edits.py --sample 12 --seed 3
    PYTHONPATH=. python scripts/edits.py --list

A verdict is ``noticed`` (the test fails), ``unnoticed``, or ``broken``: the test fails without the edit too, or is
skipped here, so that nothing can be said. The exit status is 1 where fewer than 95 % of the rest are noticed, or where
an edit is broken. Nothing of the checkout is written: tests run in a copy of it, every one in a process of its own that
is forked after torch has been imported, in one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from edits import KINDS, Edit, StaleEditError, read_edits  # noqa: E402

#: The least share of the edits that must be noticed.
REQUIRED = 0.95

#: What of the checkout a test needs; the rest is linked.
COPIED = ("mibench", "tests", "conf", "hydra_plugins", "scripts", "benchmarks")

#: Seconds of a processor, and by the wall, after which a test of an edit is taken to hang, because of the edit.
LIMIT, WALL = 240, 3600.0

#: pytest's exit status where a test failed, and where what was collected could not be imported or run.
FAILED, PASSED = (1, 2), 0


@dataclass
class Results:
    """Verdicts by edit, and what is known of the tests without an edit.

    Attributes:
        verdicts: By edit, with the seconds that it took.
        unedited: By test, whether it passes without an edit.
    """

    verdicts: dict[Edit, tuple[str, float]] = field(default_factory=dict)
    unedited: dict[str, bool] = field(default_factory=dict)
    locks: dict[str, Lock] = field(default_factory=dict)

    def score(self, kind: str | None = None) -> tuple[int, int]:
        """Return how many edits of a kind, or of all, were noticed, and of how many that is."""
        words = [word for edit, (word, _) in self.verdicts.items() if kind in (None, edit.kind) and word != "broken"]
        return words.count("noticed"), len(words)


class Copy:
    """A copy of the checkout in which a worker makes one edit at a time.

    Args:
        folder: Where it is made.
        only: What the names of tests are restricted by, as ``pytest -k``; all run where it is empty.
    """

    def __init__(self, folder: Path, only: str = "") -> None:
        self.folder = folder
        self.only = only
        folder.mkdir()
        leave_out = shutil.ignore_patterns("__pycache__", ".*_cache")
        for path in sorted(ROOT.iterdir()):
            if path.name in COPIED:
                shutil.copytree(path, folder / path.name, ignore=leave_out)
            elif path.name not in (".venv", ".git", "store"):
                (folder / path.name).symlink_to(path)

    def passes(self, test: str) -> bool | None:
        """Return whether a test passes, in a process of its own; None where it was skipped as a whole."""
        child = os.fork()
        if not child:
            self._run(test)
        status = waited(child, WALL)
        return None if status == SKIPPED else status == PASSED

    def passes_edited(self, edit: Edit) -> bool | None:
        """Return the same with an edit, which is undone afterwards.

        Raises:
            StaleEditError: If the edit does not fit.
        """
        path = self.folder / edit.file
        text = path.read_text()
        path.write_text(edit.applied(text))
        try:
            return self.passes(edit.test)
        finally:
            path.write_text(text)

    def _run(self, test: str) -> None:
        """Run a test and leave the process; called in the child."""
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
        os.chdir(self.folder)
        log = os.open(self.folder.parent / f"{self.folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["PYTHONPATH"] = f"{self.folder}{os.pathsep}{self.folder / 'tests'}"
        own = [str(self.folder), str(self.folder / "tests"), str(self.folder / "benchmarks")]
        sys.path[:] = own + [path for path in sys.path if not path.startswith(str(ROOT) + os.sep) or ".venv" in path]
        for name in ("edits", "reach"):
            sys.modules.pop(name, None)
        status = 3
        try:
            import pytest

            counted = Counted()
            words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={self.folder}.tmp", test]
            words += ["-k", self.only] if self.only else []
            status = int(pytest.main([*words, "-m", "not slow"], plugins=[counted]))
            if status in (0, 5) and not counted.passed:
                status = SKIPPED
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(status)


#: The exit status of a child whose tests were all skipped.
SKIPPED = 77


class Counted:
    """A pytest plugin that counts the tests that passed."""

    passed = 0

    def pytest_runtest_logreport(self, report: object) -> None:
        self.passed += getattr(report, "when", "") == "call" and getattr(report, "outcome", "") == "passed"


def waited(child: int, limit: float) -> int:
    """Return the exit status of a child; one that takes more than ``limit`` seconds is ended, and counts as failed."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 1


def judged(edit: Edit, copy: Copy, results: Results) -> str:
    """Return the verdict of one edit."""
    with results.locks.setdefault(edit.test, Lock()):
        if edit.test not in results.unedited:
            results.unedited[edit.test] = copy.passes(edit.test) is True
    if not results.unedited[edit.test]:
        return "broken"
    try:
        return "noticed" if copy.passes_edited(edit) is False else "unnoticed"
    except StaleEditError as error:
        print(error, flush=True)
        return "broken"


def run(edits: Sequence[Edit], workers: int, only: str = "") -> Results:
    """Return the verdicts of edits, and print each as it comes."""
    import_first()
    results = Results()
    with tempfile.TemporaryDirectory(prefix="mibench-edits-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(workers):
            copies.put(Copy(Path(folder) / f"copy{number}", only))

        def one(edit: Edit) -> None:
            copy, begun = copies.get(), time.monotonic()
            try:
                word = judged(edit, copy, results)
            finally:
                copies.put(copy)
            results.verdicts[edit] = word, time.monotonic() - begun
            print(
                f"{word:9}  {edit.name:32}  {edit.kind:9}  {results.verdicts[edit][1]:5.1f} s  {edit.what}", flush=True
            )

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, edits))
    return results


def import_first() -> None:
    """Import what takes long and is not edited, before processes are forked."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MIBENCH_PROGRESS": "0"}
    import hydra  # noqa: F401
    import numpy  # noqa: F401
    import omegaconf  # noqa: F401
    import opacus  # noqa: F401
    import pytest  # noqa: F401
    import sklearn.ensemble  # noqa: F401
    import torch
    import torch._dynamo  # which the first optimiser imports
    import torchvision  # noqa: F401

    torch.set_num_threads(1)


def chosen(edits: Sequence[Edit], names: Sequence[str], sample: int | None, seed: int) -> list[Edit]:
    """Return the edits that can be noticed, of the named methods alone where any are named, or a sample of them."""
    some = [
        edit
        for edit in edits
        if not edit.unnoticeable
        and (not names or any(name in (edit.method, edit.method.split("/")[1], edit.name) for name in names))
    ]
    return some if sample is None else random.Random(seed).sample(some, min(sample, len(some)))


def report(results: Results) -> int:
    """Print the score by kind and in all, and return the exit status."""
    print()
    for kind in (*KINDS, None):
        noticed, count = results.score(kind)
        if count:
            print(f"{kind or 'all':9}  {noticed:4} of {count:4}  {noticed / count:7.1%}")
    words = Counter(word for word, _ in results.verdicts.values())
    if words["broken"]:
        print(
            f"broken     {words['broken']:4}  (the test fails or is skipped without the edit too, or the edit is stale)"
        )
    noticed, count = results.score()
    return int(words["broken"] > 0 or count == 0 or noticed < int(REQUIRED * count))  # 11 of a sample of 12


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--sample", type=int, help="how many edits are tried, drawn at random; all where it is not given"
    )
    parser.add_argument("--seed", type=int, default=0, help="what the sample is drawn by")
    parser.add_argument("--method", action="append", default=[], help="a method, AXIS/METHOD, or an edit AXIS/METHOD:N")
    parser.add_argument("--workers", type=int, default=1, help="tests that run at a time")
    parser.add_argument("--tests", default="", help="run only tests of such names (pytest -k); others may notice more")
    parser.add_argument("--list", action="store_true", help="print the edits and those that cannot be noticed")
    given = parser.parse_args(words)
    edits = read_edits(ROOT)
    some = chosen(edits, given.method, given.sample, given.seed)
    if given.list:
        for edit in some:
            print(f"{edit.name:32}  {edit.kind:9}  {edit.what}")
        for edit in edits:
            if edit.unnoticeable:
                print(f"{edit.name:32}  cannot be noticed: {edit.what}: {edit.unnoticeable}")
        return 0
    if not some:
        print(f"There are no edits of {', '.join(given.method)}; see scripts/edits.py --list.")
        return 2
    return report(run(some, given.workers, given.tests))


if __name__ == "__main__":
    sys.exit(main())
