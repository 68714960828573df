"""The command line within the process of the tests, whose imports are done, and in processes of its own."""

import contextlib
import io

import composing
import forking
import pytest

from mibench.cli.main import main

LIGHT = ("hydra", "mibench.cli.main", "mibench.planning.composition")


@pytest.fixture
def composed_once():
    """Hydra composes a run once."""
    with composing.composed_once():
        yield


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Runs commands, each in a process of its own that has imported Hydra: ``processes("list")`` (tests/forking.py)."""
    with forking.forks(tmp_path_factory.mktemp("processes"), LIGHT) as run:
        yield run


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
