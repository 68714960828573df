"""Commands in processes of their own, which are forks of one that has imported what they need."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: What every cell imports: seconds, once.
CELL = ("torch", "torch._dynamo", "hydra", "pandas", "pyarrow.parquet", "sklearn.datasets", "mibench.cli.main",
        "mibench.running.cell", "mibench.planning.composition")  # fmt: skip

#: Seconds after which a command is taken to hang.
LIMIT = 300

#: Imports modules, then runs every command that it reads in a fork, and prints the status. What a child inherits of
#: standard input is closed.
SERVER = """
import gc, importlib, json, os, runpy, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # a child that ends looks through its own objects alone
for line in sys.stdin:
    asked = json.loads(line)
    if not (child := os.fork()):
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        reader, writer = os.pipe()
        os.close(reader)
        for number, name in ((1, asked["out"]), (2, asked["err"])):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT) if name else writer, number)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["env"])
        sys.argv[1:] = asked["words"]
        if asked["code"]:
            exec(asked["code"], {"__name__": "__main__"})
        else:
            runpy.run_module("mibench", run_name="__main__", alter_sys=True)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


class Forks:
    """Runs commands, each in a process of its own: ``forks("list", "attacks")`` gives status, output and errors.

    Args:
        server: The process that forks.
        folder: Where outputs are kept.
    """

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self.server, self.folder, self.count = server, folder, 0

    def __call__(self, *words: str, unread: bool = False, code: str = "", cwd: Path = ROOT, **env: str | None):
        """Run one command; variables that are None are taken out of its environment.

        Args:
            words: The command line.
            unread: Whether the output goes into a pipe that nobody reads.
            code: What is run in the place of ``python -m mibench``.
            cwd: The folder in which it runs.
        """
        self.count += 1
        out, err = (self.folder / f"{kind}{self.count}" for kind in ("out", "err"))
        known = {name: value for name, value in {**os.environ, **env}.items() if value is not None}
        asked = {"words": words, "code": code, "cwd": str(cwd), "env": known}
        print(
            json.dumps({**asked, "out": "" if unread else str(out), "err": str(err)}),
            file=self.server.stdin,
            flush=True,
        )
        assert select.select([self.server.stdout], [], [], LIMIT)[0], f"{words} took longer than {LIMIT} seconds"
        status = self.server.stdout.readline()
        assert status, "the process that forks has ended"
        said = err.read_text().partition("nanobind: leaked")[0]  # what Triton finds at the end of a fork
        return int(status), out.read_text() if out.exists() else "", said


@contextmanager
def forks(folder: Path, modules: Sequence[str] = CELL) -> Iterator[Forks]:
    """Commands whose processes have imported these modules; outputs lie in ``folder``."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, *modules], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MIBENCH_PROGRESS": "0"}, start_new_session=True,
    ) as server:  # fmt: skip
        yield Forks(server, folder)
        server.stdin.close()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:  # it waits for a command that hangs
            os.killpg(server.pid, signal.SIGKILL)
