"""The harness strikes where it says, and sees a loss where there is one."""

import contextlib
import errno
import json
import os
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.harness import _waited
from faults.injection import Disk
from faults.state import State, state_of

TABLE = pa.table({"a": list(range(1000))})


def carefully(folder):
    """Write a folder's file as it should be done."""
    (folder / "sub").mkdir()
    with (folder / ".x.tmp").open("wb") as file:
        file.write(b"0123456789")
        file.flush()
        os.fsync(file.fileno())
    os.replace(folder / ".x.tmp", folder / "x")
    (folder / "old").unlink()
    pq.write_table(TABLE, folder / "table.parquet")


@pytest.fixture
def struck(tmp_path):
    """Writes in a forked process with a fault; gives the status, the operations and the folder."""

    def run(fault, at, write=carefully):
        folder, journal = tmp_path / f"{fault}{at}", tmp_path / "journal"
        folder.mkdir()
        (folder / "old").write_bytes(b"old")
        if not (child := os.fork()):
            status = 99
            disk = Disk(folder, journal, fault, at)
            try:
                disk.install()
                write(folder)
                status = 0
            except OSError as error:
                status = error.errno
            finally:
                disk.write_journal()
                os._exit(status)
        return _waited(child, float("inf")), [tuple(one[:2]) for one in json.loads(journal.read_text())], folder

    return run


OPERATIONS = [
    ("create", "sub"), ("write", ".x.tmp"), ("flush", ".x.tmp"), ("rename", "x"), ("unlink", "old"),
    ("write", "table.parquet"),
]  # fmt: skip


def test_every_operation_is_counted_and_nothing_is_changed_without_a_fault(struck):
    status, done, folder = struck("", 0)
    assert (status, done) == (0, OPERATIONS)
    assert (folder / "x").read_bytes() == b"0123456789" and pq.read_table(folder / "table.parquet") == TABLE


@pytest.mark.parametrize("at", range(1, len(OPERATIONS) + 1))
@pytest.mark.parametrize(
    ("fault", "status"), [("full", errno.ENOSPC), ("broken", errno.EIO), ("kill", -signal.SIGKILL)]
)
def test_a_fault_strikes_at_its_operation(struck, fault, status, at):
    ended, done, _ = struck(fault, at)
    assert (ended, done[:at]) == (status, OPERATIONS[:at])  # Python tries a write again when it closes the file


def test_half_of_a_write_is_on_disk_and_of_native_writes_too(struck):
    assert (struck("kill", 2)[2] / ".x.tmp").read_bytes() == b"01234"
    half = (struck("kill", 6)[2] / "table.parquet").stat().st_size
    assert 0 < half < (struck("", 0)[2] / "table.parquet").stat().st_size


def test_after_a_power_cut_what_was_not_flushed_is_empty(struck):
    def carelessly(folder):
        (folder / ".y.tmp").write_bytes(b"0123456789")
        os.replace(folder / ".y.tmp", folder / "y")
        carefully(folder)

    folder = struck("power", 8, carelessly)[2]
    assert (folder / "y").read_bytes() == b"" == (folder / "table.parquet").read_bytes()
    assert (folder / "x").read_bytes() == b"0123456789"


def test_a_full_disk_stays_full(struck):
    def stubbornly(folder):
        for name in "abc":
            with contextlib.suppress(OSError):
                (folder / name).write_bytes(b"xx")

    status, done, folder = struck("full", 2, stubbornly)
    assert (status, len(done)) == (0, 3)
    assert {name: (folder / name).read_bytes() for name in "abc"} == {"a": b"xx", "b": b"x", "c": b""}


def test_lost_and_weaker_rows_are_told(tmp_path):
    ok, failed = {"status": "ok", "value": 1.0}, {"status": "failed", "value": None}
    start, end = State(rows={"a": [ok], "b": [ok]}), State(rows={"a": [ok], "b": [ok, ok]}, pictures={"p"})
    there = State(rows={"a": [failed], "b": [ok, ok]})
    assert [one[:8] for one in start.rows_lost_in(there, end)] == ["a is now"]
    assert [one.split(":")[0] for one in end.missing_in(there)] == ["the rows of a differ", "picture p is missing"]
    shards = tmp_path / "r" / "shards"
    shards.mkdir(parents=True)
    (shards / "x.parquet").write_bytes(b"PAR1")
    (shards / ".x.1.tmp").write_bytes(b"PAR1")
    state = state_of(tmp_path)
    assert len(state.broken) == 1 and state.leftovers == ["r/shards/.x.1.tmp"]
