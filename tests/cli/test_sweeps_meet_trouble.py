"""Sweeps below odd paths, beside damaged shards and on a full disk."""

import pytest

from mibench.leaderboard.shards import read_shard

TINY = ["attack=dlg", "budget=smoke", "dataset.size=8", "attack.iterations=2", "attack.restarts=1", "threads=1",
        "device=cpu", "metric=[psnr]"]  # fmt: skip
GRID = ["seed=0,1", "defense=none,rounding"]


@pytest.fixture
def sweep(mibench, tmp_path, monkeypatch):
    """Sweeps two cells, and two that cannot be run, from a folder in which nothing can be written."""
    here, there = tmp_path / "here", tmp_path / "o'brien ☃ a=b"
    here.mkdir()
    there.mkdir()
    for name in ("results", "store"):
        (here / name).touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv("MIBENCH_RESULTS", str(there / "results"))
    monkeypatch.setenv("MIBENCH_STORE", str(there / "store"))

    def run(*words):
        status, _, err = mibench("-m", *TINY, *GRID, *words)
        assert sorted(one.name for one in here.iterdir()) == ["results", "store"]
        return status, err, there / "results"

    return run


def measured(results):
    shards = [one for one in (results / "shards").glob("*.parquet") if "ok" in set(read_shard(one)["status"])]
    return sorted(shards)


def test_a_sweep_heals_what_is_cut_or_missing(sweep):
    status, err, results = sweep()
    assert status == 0 and "2 measured, 0 failed, 2 skipped" in err, err
    cut, whole = measured(results)
    numbers = read_shard(cut)["value"].tolist()
    cut.write_bytes(cut.read_bytes()[:3000])
    (results / "pictures" / f"{whole.stem}.png").unlink()
    status, err, _ = sweep()
    assert status == 0 and "1 cells to run" in err and "1 that stand already, 1 of them without their picture" in err
    assert measured(results) == [cut, whole] and read_shard(cut)["value"].tolist() == numbers
    assert f"set aside as {results}/damaged/{cut.name}" in err and (results / "pictures" / f"{whole.stem}.png").exists()


def test_a_sweep_whose_disk_is_full_says_so_and_exits_with_1(sweep, monkeypatch):
    def full(*_arguments, **_named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mibench.running.sheet.draw_sheet", full)
        status, err, results = sweep()
    assert status == 1 and "2 measured, 0 failed" in err and "2 measured without a picture" in err
    assert "The picture was not drawn (No space left on device)" in err and len(measured(results)) == 2
    with monkeypatch.context() as patch:
        patch.setattr("mibench.leaderboard.shards.write_bytes", full)
        status, err, _ = sweep("overwrite=always")
    assert status == 1 and "No space left on device" in err and "Traceback" not in err
    assert len(measured(results)) == 2 and not list(results.rglob(".tmp-*"))
    assert sweep()[0] == 0 and len(list((results / "pictures").iterdir())) == 2
