"""Runs random command lines with a stub for the cell, and says which end in anything but 0, 1 or 2 and a sentence."""

import contextlib
import io
import json
import logging
import os
import random
import signal
import socket
from collections.abc import Iterator, Sequence

import composing
import pytest
from faults.grammar import CHOICES, Grammar

#: Seconds after which a command line hangs.
PATIENCE = 120

#: Most cells that a sweep of a random grid composes.
FEW = 3


@contextlib.contextmanager
def stubbed() -> Iterator[None]:
    """Composing, planning, types and every constructor are real; a cell that would run is done, with status 0."""
    from mibench.cli import explaining, sweeping
    from mibench.running.cell import Cell

    known, plan_cells = explaining.keys_there([]), sweeping.plan_cells
    with composing.composed_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("mibench.cli.run_command.run_planned", lambda plan: Cell(plan) and 0)
        patch.setattr(sweeping, "plan_cells", lambda *cells: plan_cells(*cells)[:FEW])
        patch.setattr(explaining, "keys_there", lambda words: known)
        patch.setattr(socket, "socket", None)
        yield


def keys_of_cells() -> list[tuple[str, str]]:
    """Return every key of a few cells that differ in everything, each with the choices that make it."""
    from mibench.cli.explaining import dotted
    from mibench.planning.composition import compose

    return sorted((choice, key) for choice in CHOICES for key in dotted(compose(choice.split())))


def fault_of(words: Sequence[str]) -> tuple[int | None, str]:
    """Run a command line; return its status and what is wrong with how it ended, empty where nothing is."""
    from mibench.cli.main import main

    def ring(_signal: int, _frame: object) -> None:
        raise TimeoutError

    here, levels = os.getcwd(), {one: one.level for one in loggers()}
    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    status: int | None = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(words))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as error:
        return None, f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        os.chdir(here)
        for logger in loggers():
            logger.handlers.clear()
            logger.disabled = False
            logger.setLevel(levels.get(logger, logging.NOTSET))
    said = err.getvalue()
    if status not in (0, 1, 2):
        return status, f"status {status}"
    if "verbose=true" in words:
        return status, ""
    if "Traceback" in said:
        return status, f"a traceback: {said.splitlines()[-1][:200]}"
    chatty = any(word.startswith("-") or "hydra" in word for word in words)
    if status == 2 and (not said.strip() or (len(said.splitlines()) != 1 and not chatty)):
        return status, f"status 2 and {len(said.splitlines())} lines: {said[:300]!r}"
    return status, ""


def loggers() -> list[logging.Logger]:
    """Return every logger, the root first."""
    return [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]


def faults_of(seed: int, count: int, keys: Sequence[tuple[str, str]]) -> Iterator[tuple[list[str], int | None, str]]:
    """Draw so many command lines, run each, and yield its words, its status and what is wrong."""
    grammar = Grammar(random.Random(seed), keys)
    for _ in range(count):
        words = grammar.line()
        yield words, *fault_of(words)


def shown(words: Sequence[str]) -> str:
    """Return words so that they can be copied into a test."""
    return json.dumps(words, ensure_ascii=True)
