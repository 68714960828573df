"""A time limit, Ctrl-C and SIGTERM: nothing takes them for an error, and what they break off can go on."""

import builtins
import contextlib
import os
import signal
import time

import pytest
import torch

from mibench.cli.main import main
from mibench.errors import Terminated, TimeLimitReached
from mibench.running import stopping
from mibench.running.stopping import heeding_stops, raise_if_stopped, time_limit
from mibench.storage.checkpoints import Checkpoints
from mibench.storage.store import Payload, Store

CELL = ["attack=mi_face", "attack.iterations=2", "dataset.size=8", "target.recipe.epochs=1",
        "target.recipe.min_steps=0", "budget=smoke", "device=cpu", "control=none", "evaluation.count=0",
        "metric=[target_accuracy]"]  # fmt: skip

#: The exception and the status of each signal.
STOPS = {signal.SIGINT: (KeyboardInterrupt, 130), signal.SIGTERM: (Terminated, 143)}


@pytest.fixture(autouse=True)
def usual_handlers():
    """What a process has that is started on a terminal; one in the background may ignore Ctrl-C."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def slow_disk(monkeypatch):
    """Every flush takes long."""
    monkeypatch.setattr(os, "fsync", lambda _: time.sleep(5))


def waits(seconds=5.0):
    """Wait as a loop does, between whose steps a signal is noticed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)
    pytest.fail("nothing stopped it")


def test_a_limit_has_a_sentence_and_nothing_takes_it_for_an_error():
    with (
        pytest.raises(TimeLimitReached, match=r"^the cell took longer than time_limit=0\.05 seconds$"),
        time_limit(0.05),
    ):
        try:
            waits()
        except (Exception, OSError, TimeoutError):
            pytest.fail("the limit was swallowed")


def test_a_limit_that_rings_inside_an_import_leaves_its_own_sentence(monkeypatch):
    """Hydra and many libraries turn whatever an import raises into a sentence of their own."""
    real = builtins.__import__

    def slow(name, *more):
        return waits() if name == "a_slow_module" else real(name, *more)

    monkeypatch.setattr(builtins, "__import__", slow)
    with pytest.raises(TimeLimitReached, match="time_limit"), time_limit(0.05):
        try:
            import a_slow_module  # noqa: F401
        except BaseException as error:
            raise ImportError("Error loading a_slow_module") from error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_limit_rings_again_where_the_first_ring_was_lost(monkeypatch):
    """Python drops what is raised while an object is deleted."""
    monkeypatch.setattr(stopping, "AGAIN", 0.05)

    class Slow:
        def __del__(self):
            waits(0.2)

    with pytest.raises(TimeLimitReached), time_limit(0.05):
        slow = Slow()
        del slow
        waits()


def test_a_limit_does_not_ring_while_its_first_ring_is_cleaned_up(monkeypatch):
    monkeypatch.setattr(stopping, "AGAIN", 0.01)
    cleaned = []

    @contextlib.contextmanager
    def cleaning():
        try:
            yield
        finally:
            time.sleep(0.1)
            cleaned.append(True)

    with pytest.raises(TimeLimitReached), time_limit(0.02), cleaning():
        waits()
    assert cleaned == [True]


def test_a_block_that_ends_in_time_is_left_alone():
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(0.05):
        pass
    time.sleep(0.1)
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with pytest.raises(ValueError, match="its own"), time_limit(0.05):
        raise ValueError("its own")


def test_a_limit_in_a_slow_checkpoint_or_artifact_leaves_neither(slow_disk, tmp_path):
    """Both handle a full disk, an ``OSError``, which a limit is not."""
    file = tmp_path / "victim" / ".unfinished-x"
    file.parent.mkdir()
    with pytest.raises(TimeLimitReached), time_limit(0.05):
        Checkpoints(file)._save(file, 1, 0.0, {"net": torch.nn.Linear(2, 2)})
    with pytest.raises(TimeLimitReached), time_limit(0.05):
        Store(tmp_path).get("victim", {"a": 1}, lambda: Payload({"x": torch.zeros(1)}))
    assert [one.suffix for one in file.parent.iterdir()] == [".lock"]


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_ends_a_command_with_one_sentence(number, monkeypatch, capsys):
    """Also where a library makes an error of it."""

    def swallowing():
        try:
            waits()
        except BaseException as error:
            raise RuntimeError("unexpected pos") from error

    for working in (waits, swallowing):

        def command(_, working=working):
            os.kill(os.getpid(), number)
            return working()

        monkeypatch.setattr("mibench.cli.main._dispatch", command)
        assert main([]) == STOPS[number][1]
        out, err = capsys.readouterr()
        assert not out and err.count("\n") == 1 and "what was finished is kept" in err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_is_raised_again_where_an_error_took_its_place(number):
    def broken():
        try:
            os.kill(os.getpid(), number)
            waits()
        except BaseException:
            with contextlib.suppress(RuntimeError):
                raise RuntimeError("a launcher lost a worker") from None
        raise_if_stopped()
        pytest.fail("it went on")

    with pytest.raises(STOPS[number][0]), heeding_stops():
        broken()
    with heeding_stops():
        raise_if_stopped()  # of this block nothing is known


def test_handlers_of_others_stay():
    """A launcher's worker passes SIGTERM over, and ``nohup`` or ``&`` Ctrl-C; neither is taken from them."""
    seen, before = [], {number: signal.getsignal(number) for number in STOPS}
    try:
        signal.signal(signal.SIGTERM, lambda *_: seen.append("bypassed"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with heeding_stops():
            for number in STOPS:
                os.kill(os.getpid(), number)
            time.sleep(0.01)
        assert seen == ["bypassed"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_forked_process_ends_by_sigterm_without_a_word(capfd):
    with heeding_stops():
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                os.write(tell, b".")
                time.sleep(20)
            os._exit(7)
        os.read(ready, 1)  # a signal at the very moment of the fork is lost
        os.kill(child, signal.SIGTERM)
        assert os.waitpid(child, 0)[1] == signal.SIGTERM
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with the cell's victim."""
    folder = tmp_path_factory.mktemp("stopped")
    assert main([*CELL, f"paths.store={folder}/store", f"paths.results={folder}/results"]) == 0
    return folder / "store"


@pytest.mark.parametrize(
    ("moment", "number"),
    [("in the attack", signal.SIGTERM), ("in a flush", signal.SIGINT), ("in a callback", signal.SIGINT)],
)
def test_a_cell_that_is_stopped_leaves_no_half_file_and_goes_on(moment, number, store, tmp_path, monkeypatch, capsys):
    """Also inside a call that makes an error of it, which is then no reason for a failed row."""
    words = [*CELL, "overwrite=always", f"paths.store={store}", f"paths.results={tmp_path}/results"]

    def stopped(*_, **__):
        os.kill(os.getpid(), number)
        waits()

    def stopped_inside(*_, **__):
        try:
            stopped()
        except BaseException:
            raise RuntimeError("unexpected pos") from None

    with monkeypatch.context() as patch:
        where = "os.fsync" if moment == "in a flush" else "mibench.attacks.mi_face.MiFace.reconstruct"
        patch.setattr(where, stopped_inside if moment == "in a callback" else stopped)
        assert main(words) == STOPS[number][1]
    err = capsys.readouterr().err
    assert "what was finished is kept" in err and "Traceback" not in err
    left = [path.name for folder in (tmp_path, store) for path in folder.rglob("*")]
    assert not [name for name in left if "tmp" in name or name.startswith(".") or name.endswith(".parquet")]
    assert main(words) == 0
