"""What ends a cell from outside: its time limit, Ctrl-C and SIGTERM.

Each raises what is no ``Exception``, so that nothing on the way takes it for an error, a full disk for instance. Where
a library makes an error of its own of it (an import that breaks off, a callback from C), it is raised in the place of
that one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from mibench.errors import Terminated, TimeLimitReached

#: Seconds after which a limit rings again, should the exception have been lost (as where an object is deleted).
AGAIN = 1.0

#: The signals that asked the current command to end.
_received: list[int] = []


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise :class:`TimeLimitReached` where the block takes longer than ``seconds``; None sets no limit.

    Only the main thread can be limited; in others there is no limit.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    over = rang = False

    def ring(_signal: int, _frame: object) -> None:
        nonlocal rang
        rang = True
        if not over and not _on_its_way(TimeLimitReached):
            raise reached()

    def reached() -> TimeLimitReached:
        return TimeLimitReached(f"the cell took longer than time_limit={seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        try:
            yield
        except Exception as error:
            if rang:
                raise reached() from error
            raise
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def heeding_stops() -> Iterator[None]:
    """Have Ctrl-C end the block with ``KeyboardInterrupt`` and SIGTERM with :class:`Terminated`.

    A signal that somebody else handles or ignores (a launcher's worker, a notebook, ``nohup``) is left to that, and
    processes that are forked inside the block end by SIGTERM as they would without it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()
    _received.clear()

    def stop(number: int, _frame: object) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
            signal.raise_signal(number)
            return
        _received.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if not _on_its_way(Terminated):
            raise Terminated

    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    ours = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    except Exception:
        raise_if_stopped()
        raise
    finally:
        for number in ours:
            signal.signal(number, usual[number])


def raise_if_stopped() -> None:
    """Raise again what a signal raised, where an error took its place.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        Terminated: After SIGTERM.
    """
    if _received:
        raise KeyboardInterrupt if _received[-1] == signal.SIGINT else Terminated


def _on_its_way(kind: type[BaseException]) -> bool:
    """Whether such an exception is being handled: what it has to clean up is then not broken off by another one."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, kind):
        error = error.__context__
    return error is not None
