"""The command line within the process of the tests, whose imports are done."""

import contextlib
import io

import pytest

from mibench.cli.main import main


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
