"""The command line within the process of the tests, whose imports are done, and in processes of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import composing
import pytest

from mibench.cli.main import main

ROOT = Path(__file__).parent.parent.parent

#: Forks a process for every command, so that Hydra is imported once, and prints the statuses. A word before the command
#: says what its output is: a file, or a pipe that nobody reads.
FORKS = """
import hydra, json, os, runpy, sys
import mibench.cli.main, mibench.planning.composition

def opened(name):
    return os.open(name, os.O_WRONLY | os.O_CREAT)

statuses = []
for number, (output, *words) in enumerate(json.loads(sys.argv[1])):
    if not (child := os.fork()):
        if output == "unread":
            reader, writer = os.pipe()
            os.close(reader)
        os.dup2(writer if output == "unread" else opened(f"out{number}"), 1)
        os.dup2(opened(f"err{number}"), 2)
        sys.argv[1:] = words
        runpy.run_module("mibench", run_name="__main__", alter_sys=True)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(statuses))
"""


@pytest.fixture
def composed_once():
    """Hydra composes a run once."""
    with composing.composed_once():
        yield


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    """Runs commands, each in a process of its own: ``processes(["file", "list"])`` gives status, output and errors.

    The first word says where the output goes: to a ``file``, or into a pipe that is ``unread``.
    """

    def run(*commands):
        folder = tmp_path_factory.mktemp("processes")
        done = subprocess.run(
            [sys.executable, "-c", FORKS, json.dumps(commands)], cwd=folder, capture_output=True, text=True,
            check=False, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT), "MIBENCH_PROGRESS": "0"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        out, err = ([folder / f"{kind}{number}" for number in range(len(commands))] for kind in ("out", "err"))
        texts = [[one.read_text() if one.exists() else "" for one in files] for files in (out, err)]
        return list(zip(json.loads(done.stdout), *texts, strict=True))

    return run


@pytest.fixture(scope="session")
def mibench():
    """Runs a command: ``mibench("list", "attacks")`` gives the exit status, the output and the errors."""

    def run(*words):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
        return status, out.getvalue(), err.getvalue()

    return run


@pytest.fixture(scope="session")
def places():
    """The words of a store and results below a folder."""
    return lambda folder: [f"paths.store={folder}/store", f"paths.results={folder}/results"]
