import os
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mibench.cli.reproduction import Commands
from mibench.errors import UserError
from mibench.leaderboard import collect
from mibench.leaderboard.build import build, write_study
from mibench.leaderboard.collect import collect_shards, collect_studies, combined
from mibench.leaderboard.groups import groups_of
from mibench.leaderboard.pictures import may_show
from mibench.leaderboard.rows import COLUMNS
from mibench.leaderboard.shards import read_shard, shard_path
from mibench.leaderboard.tables import write_table


@pytest.fixture
def three(tmp_path, add_cell):
    return [add_cell(tmp_path, "attack=gmi", f"seed={seed}", lift=0.5 + seed / 10) for seed in range(3)]


def written(tmp_path, collected):
    write_table(tmp_path / "written.parquet", collected.table)
    return (tmp_path / "written.parquet").read_bytes()


def test_rows_are_those_of_the_shards_in_order(tmp_path, three):
    written(tmp_path, collect_shards(tmp_path))
    frame = pd.read_parquet(tmp_path / "written.parquet")
    shards = pd.concat([read_shard(shard_path(tmp_path, plan.cell_id)) for plan in three])
    order = ["cell_id", "metric", "variant", "evaluator"]
    pd.testing.assert_frame_equal(frame, shards.sort_values(order, ignore_index=True))
    assert tuple(frame.columns) == COLUMNS
    assert {str(pq.read_schema(tmp_path / "written.parquet").field(name).type) for name in order} == {"string"}


def test_a_rebuild_has_the_bytes_of_a_full_build(tmp_path, three, add_cell):
    """After a shard was added, changed and taken away, reading from the cache gives what reading everything gives."""
    collect_shards(tmp_path)
    add_cell(tmp_path, "attack=mi_face", lift=0.1)
    add_cell(tmp_path, "attack=gmi", "seed=1", lift=0.9)
    shard_path(tmp_path, three[2].cell_id).unlink()
    incremental = written(tmp_path, collect_shards(tmp_path))
    shutil.rmtree(tmp_path / "local")
    assert written(tmp_path, collect_shards(tmp_path)) == incremental
    (tmp_path / "local" / "cache" / "shards.arrow").write_bytes(b"damaged")
    assert written(tmp_path, collect_shards(tmp_path)) == incremental
    assert len(pd.read_parquet(tmp_path / "written.parquet")["cell_id"].unique()) == 3


def test_unchanged_shards_are_not_read_again(tmp_path, three):
    """A shard of the same name, size and time is taken from the cache, whatever stands in it now."""
    before = written(tmp_path, collect_shards(tmp_path))
    path = shard_path(tmp_path, three[0].cell_id)
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert written(tmp_path, collect_shards(tmp_path)) == before
    os.utime(path)
    assert list(collect_shards(tmp_path).set_aside) == [path.name]


def truncated(path):
    path.write_bytes(path.read_bytes()[:500])


def foreign(path):
    pd.DataFrame({"a": [1]}).to_parquet(path)


def older(path):
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["notes"]), path)


def drifting(path):
    table = pq.read_table(path)
    place = table.schema.get_field_index("seed")
    pq.write_table(table.set_column(place, "seed", table["seed"].cast("int32")), path)


def of_another_cell(path):
    shutil.copy(next(other for other in path.parent.iterdir() if other != path), path)


def with_a_broken_config(path):
    table = pq.read_table(path)
    place = table.schema.get_field_index("config")
    pq.write_table(table.set_column(place, "config", [["{"] * len(table)]).cast(table.schema), path)


def doubled(path):
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)


def of_a_later_version(path):
    in_column(path, "schema_version", lambda _value: 3)


def without_an_id(path):
    in_column(path, "cell_id", lambda _value: None)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


def a_link_to_nothing(path):
    path.unlink()
    path.symlink_to(path.with_name("gone"))


def an_empty_file(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncated, "not a readable shard"), (foreign, "columns that differ"), (older, "columns that differ: notes"),
        (drifting, "types that differ: seed"), (of_another_cell, "not the shard of one cell of its name"),
        (with_a_broken_config, "no JSON object"), (an_empty_file, "not a readable shard"),
        (doubled, "doubled rows"), (of_a_later_version, "version 3"), (without_an_id, "rows without cell_id"),
        (a_pipe, "is not a file"), (a_folder, "is not a file"), (a_link_to_nothing, "a link to a file that is not"),
    ],
)  # fmt: skip
def test_a_bad_shard_is_set_aside_by_name_and_the_others_stand(tmp_path, three, spoil, said):
    collect_shards(tmp_path)
    path = shard_path(tmp_path, three[1].cell_id)
    spoil(path)
    for _ in range(2):  # read, then from the cache
        collected = collect_shards(tmp_path)
        assert list(collected.set_aside) == [path.name] and said in collected.set_aside[path.name]
        assert set(collected.table["cell_id"].to_pylist()) == {three[0].cell_id, three[2].cell_id}
    assert os.path.lexists(path)


def in_column(path, name, change):
    table = pq.read_table(path)
    column = pa.array([change(value) for value in table[name].to_pylist()], table.schema.field(name).type)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, column), path)


@pytest.mark.filterwarnings("error")
def test_infinite_values_are_read_as_they_are(tmp_path, three):
    for name in ("value", "ci_high", "control", "lift", "null", "seconds", "training_seconds"):
        in_column(shard_path(tmp_path, three[1].cell_id), name, lambda _value: float("inf"))
    in_column(shard_path(tmp_path, three[1].cell_id), "lift_low", lambda _value: float("-inf"))
    collected = collect_shards(tmp_path)
    assert not collected.set_aside
    (group,) = groups_of(collected.table)
    assert len(group.cells) == 3 and group.measured
    (built,) = build(tmp_path, Commands())
    assert built.cells == 3 and "Infinity" not in (tmp_path / "local" / "page" / "numbers.js").read_text()


def test_a_shard_removed_since_the_last_build_is_gone_and_the_rest_stands(tmp_path, three):
    for gone in (0, 1):
        collect_shards(tmp_path)
        shard_path(tmp_path, three[gone].cell_id).unlink()
        (group,) = groups_of(collect_shards(tmp_path).table)
        assert len(group.cells) == 2 - gone


def flipped(cache):
    content = bytearray(cache.read_bytes())
    content[len(content) // 2] ^= 1
    cache.write_bytes(content)


def cut(cache):
    cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2])


def another_arrow_file(cache):
    with pa.ipc.new_file(str(cache), pa.schema([("a", pa.int64())])):
        pass


def in_the_way(cache):
    cache.unlink()
    cache.mkdir()


@pytest.mark.parametrize("spoil", [flipped, cut, another_arrow_file, in_the_way, an_empty_file])
def test_a_spoiled_cache_is_made_anew(tmp_path, three, spoil):
    before = written(tmp_path, collect_shards(tmp_path))
    cache = tmp_path / "local" / "cache" / "shards.arrow"
    spoil(cache)
    assert written(tmp_path, collect_shards(tmp_path)) == before
    assert collect._cached(cache, collect._stats(tmp_path / "shards"))[1] is not None, "it heals"


def test_a_cache_of_another_version_is_made_anew(tmp_path, three, monkeypatch):
    before = written(tmp_path, collect_shards(tmp_path))
    monkeypatch.setattr(collect, "_fingerprint", lambda: "another")
    assert written(tmp_path, collect_shards(tmp_path)) == before


def test_rows_are_read_where_no_cache_can_be_written(tmp_path, three, monkeypatch):
    before = written(tmp_path, collect_shards(tmp_path))
    shutil.rmtree(tmp_path / "local")
    (tmp_path / "local").touch()
    assert written(tmp_path, collect_shards(tmp_path)) == before


def test_who_compares_is_told_what_was_set_aside(tmp_path, three, caplog):
    a_link_to_nothing(shard_path(tmp_path, three[0].cell_id))
    assert len(collect.everything(tmp_path).table) and f"set aside {three[0].cell_id}.parquet: not a" in caplog.text


def test_a_study_that_cannot_be_read_is_set_aside_and_the_others_stand(tmp_path, three, add_cell):
    for name, plan in zip(("a", "b", "c"), three, strict=True):
        write_study(tmp_path, name, [plan.cell_id])
    a_link_to_nothing(tmp_path / "studies" / "a.parquet")
    doubled(tmp_path / "studies" / "b.parquet")
    found = collect_studies(tmp_path)
    assert list(found.set_aside) == ["a.parquet", "b.parquet"]
    assert set(found.table["cell_id"].to_pylist()) == {three[2].cell_id}


def test_a_study_holds_the_cells_of_its_plan(tmp_path, three):
    path, statuses = write_study(tmp_path, "first", [three[0].cell_id, three[1].cell_id, "of-another-machine"])
    assert statuses == {three[0].cell_id: "ok", three[1].cell_id: "ok"}
    assert path == tmp_path / "studies" / "first.parquet"
    assert set(pd.read_parquet(path)["cell_id"]) == {three[0].cell_id, three[1].cell_id}
    before = path.read_bytes()
    assert write_study(tmp_path, "first", [three[1].cell_id, three[0].cell_id])[0].read_bytes() == before
    with pytest.raises(UserError, match="No shard"):
        write_study(tmp_path, "first", ["of-another-machine"])
    with pytest.raises(UserError, match="name of letters"):
        write_study(tmp_path, "../first", [three[0].cell_id])


def test_a_study_does_not_tell_whose_machine_it_was(tmp_path, add_cell):
    cell = add_cell(tmp_path, status="skipped", reason=f"Not found in {Path.home()}/.cache/torch.")
    path, _ = write_study(tmp_path, "first", [cell.cell_id])
    assert pd.read_parquet(path)["reason"].tolist() == ["Not found in ~/.cache/torch."]


def test_a_study_does_not_tell_where_weights_were_looked_for(tmp_path, add_cell, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", "/somebody/weights")
    cell = add_cell(tmp_path, status="skipped", reason="Not found in /somebody/weights/hub.")
    path, _ = write_study(tmp_path, "first", [cell.cell_id])
    assert pd.read_parquet(path)["reason"].tolist() == ["Not found in $TORCH_HOME/hub."]


def test_a_study_does_not_tell_where_the_log_of_a_failed_cell_lies(tmp_path, add_cell):
    cell = add_cell(tmp_path, status="failed", reason="It failed. (log: /somebody/results/logs/a.log)")
    path, _ = write_study(tmp_path, "mine", [cell.cell_id])
    assert pd.read_parquet(path)["reason"].tolist() == ["It failed."]


def test_a_cell_of_two_studies_stands_once_and_ones_own_shard_wins(tmp_path, three, add_cell):
    write_study(tmp_path, "a", [three[0].cell_id])
    add_cell(tmp_path, "attack=gmi", "seed=0", lift=0.75)
    write_study(tmp_path, "b", [cell.cell_id for cell in three])
    (tmp_path / "studies" / "c.parquet").write_bytes(b"PAR1")
    studies, own = collect_studies(tmp_path), collect_shards(tmp_path)
    assert list(studies.set_aside) == ["c.parquet"]

    def lift(collected):
        frame = collected.table.to_pandas()
        chosen = frame[(frame["cell_id"] == three[0].cell_id) & (frame["evaluator"] == "vote")]
        return chosen["lift"].item()

    assert lift(studies) == 0.5 and lift(combined(studies, own)) == 0.75
    assert len(studies.table) == len(own.table) == len(combined(studies, own).table)


def test_only_what_may_be_shown_leaves_a_picture_in_a_study(tmp_path, add_cell):
    shown = [add_cell(tmp_path, f"seed={seed}", picture=True) for seed in (1, 2)]
    faces = add_cell(tmp_path, "dataset=att_faces", picture=True)
    write_study(tmp_path, "first", [cell.cell_id for cell in (*shown, faces)])
    left = [path.stem for path in (tmp_path / "studies" / "first").iterdir()]
    assert left == [shown[0].cell_id], "one seed of a group, and no face"
    from PIL import Image

    with Image.open(tmp_path / "studies" / "first" / f"{left[0]}.png") as picture:
        assert picture.width <= 360
    assert not may_show(faces.description) and may_show(shown[0].description)
    assert not may_show({"dataset": {"_target_": "not.here.Dataset"}}) and not may_show({})
    write_study(tmp_path, "first", [faces.cell_id])
    assert not list((tmp_path / "studies" / "first").iterdir()), "a picture of a cell that left goes with it"
