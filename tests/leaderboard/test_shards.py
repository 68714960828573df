import pandas as pd
import pytest

from mibench.errors import UserError
from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.rows import ADDED, COLUMNS, CellFacts, make_row
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import read_shard, schema, shard_path, write_shard

FACTS = CellFacts(
    cell_id="c0ffee", group_id="g", dataset="digits", modality="image", setting="central", target="cnn", attack="gmi",
    attack_family="generative", task="class", access="white_box", knowledge="public", defense="none", defense_hooks="",
    seed=0, budget="smoke", fidelity="official",
)  # fmt: skip
ROW = make_row(FACTS, Score(metric="attack_accuracy", value=0.5, higher_is_leakier=True))


def test_the_schema_is_the_designs():
    assert schema().names == list(COLUMNS)
    assert str(schema().field("value").type) == "double" and str(schema().field("higher_is_leakier").type) == "bool"


def test_rows_come_back_as_written(tmp_path):
    path = write_shard(
        tmp_path, "c0ffee", [ROW, make_row(FACTS, Score(metric="lpips", status="skipped", reason="no weights"))]
    )
    frame = read_shard(path)
    assert frame["value"].tolist()[0] == 0.5 and pd.isna(frame["value"].tolist()[1])
    assert frame["reason"].tolist() == ["", "no weights"]
    assert frame["higher_is_leakier"].tolist() == [True, None]


def test_a_shard_of_empty_values_keeps_its_types(tmp_path):
    import pyarrow.parquet as pq

    path = write_shard(tmp_path, "c0ffee", [make_row(FACTS, Score(metric=""))])
    assert pq.read_schema(path).equals(schema())


def test_a_shard_of_an_earlier_version_is_read_with_what_it_lacks_unknown(tmp_path):
    import pyarrow.parquet as pq

    path = write_shard(tmp_path, "c0ffee", [{**ROW, "config": "{}"}])
    today = pq.read_table(path)
    pq.write_table(today.drop_columns(list(ADDED)), path)
    frame = read_shard(path)
    assert list(frame.columns) == list(COLUMNS) and frame["null"].isna().all() and frame["value"].tolist() == [0.5]
    first = frame.iloc[0]
    assert (first["schema_version"], first["evidence"], list(first["per_target"])) == (1, "", [])
    assert first["share"], "what the card of the metric says"
    collected = collect_shards(tmp_path)
    assert not collected.set_aside and collected.table.schema.names == list(COLUMNS)
    pq.write_table(today.drop_columns(["value"]), path)
    with pytest.raises(UserError, match="another schema"):
        read_shard(path)


def test_writing_again_replaces_and_leaves_no_temporary_file(tmp_path):
    write_shard(tmp_path, "c0ffee", [ROW, ROW])
    path = write_shard(tmp_path, "c0ffee", [ROW])
    assert len(read_shard(path)) == 1
    assert [file.name for file in path.parent.iterdir()] == ["c0ffee.parquet"]


def test_a_truncated_or_foreign_shard_is_named(tmp_path):
    path = write_shard(tmp_path, "c0ffee", [ROW])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"c0ffee\.parquet is not a readable shard"):
        read_shard(path)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(UserError, match="another schema"):
        read_shard(path)


def score_row(metric, status="ok", value=0.5, variant=""):
    reason = "" if status == "ok" else "no weights"
    return {
        **make_row(FACTS, Score(metric=metric, variant=variant, value=value, status=status, reason=reason)),
        "config": "{}",
    }


def numbers_in(tmp_path):
    frame = read_shard(shard_path(tmp_path, "c0ffee"))
    return {(row.metric, row.variant): (row.status, row.value) for row in frame.itertuples()}


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_measured_rows_are_never_replaced_by_a_row_that_was_not_measured(tmp_path, status):
    path = write_shard(tmp_path, "c0ffee", [score_row("psnr"), score_row("lpips", "skipped")])
    before = path.read_bytes()
    assert write_shard(tmp_path, "c0ffee", [score_row("", status)]) == path and path.read_bytes() == before
    write_shard(tmp_path, "c0ffee", [score_row("psnr", value=0.7)])
    assert numbers_in(tmp_path) == {("psnr", ""): ("ok", 0.7)}, "other measured rows do replace them"


def test_a_number_that_is_not_measured_again_keeps_its_row(tmp_path, caplog):
    write_shard(
        tmp_path, "c0ffee", [score_row("psnr"), score_row("lpips", variant="alex"), score_row("fid", variant="a")]
    )
    write_shard(
        tmp_path,
        "c0ffee",
        [score_row("psnr", value=0.7), score_row("lpips", "skipped"), score_row("fid", value=0.9, variant="b"),
         score_row("fid", "skipped", variant="a")],
    )  # fmt: skip
    assert numbers_in(tmp_path) == {
        ("psnr", ""): ("ok", 0.7), ("lpips", "alex"): ("ok", 0.5), ("fid", "b"): ("ok", 0.9), ("fid", "a"): ("ok", 0.5),
    }  # fmt: skip
    assert "lpips: not measured now (no weights); the row measured before is kept." in caplog.messages


def test_a_failed_row_gives_way_to_any(tmp_path):
    write_shard(tmp_path, "c0ffee", [score_row("", "failed")])
    write_shard(tmp_path, "c0ffee", [score_row("", "skipped")])
    assert numbers_in(tmp_path)[("", "")][0] == "skipped"


def test_the_shard_of_another_cell_is_no_shard_of_this_one(tmp_path):
    write_shard(tmp_path, "c0ffee", [score_row("psnr")]).rename(shard_path(tmp_path, "decaf"))
    with pytest.raises(UserError, match="it holds the rows of c0ffee"):
        read_shard(shard_path(tmp_path, "decaf"))


@pytest.mark.parametrize("spoil", ["cut", "dangling", "folder"])
def test_an_unreadable_shard_is_set_aside_by_name_and_written_anew(tmp_path, spoil, caplog):
    path = write_shard(tmp_path, "c0ffee", [score_row("psnr")])
    if spoil == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        path.unlink()
        path.mkdir() if spoil == "folder" else path.symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="not a readable shard"):
        read_shard(path)
    write_shard(tmp_path, "c0ffee", [score_row("psnr", value=0.9)])
    assert numbers_in(tmp_path) == {("psnr", ""): ("ok", 0.9)}
    aside = [] if spoil == "dangling" else [tmp_path / "damaged" / "c0ffee.parquet"]
    assert list(path.parent.iterdir()) == [path] and list(tmp_path.glob("damaged/*")) == aside
    assert bool(aside) == any("it is set aside as" in one for one in caplog.messages)


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, monkeypatch):
    path = write_shard(tmp_path, "c0ffee", [score_row("psnr")])
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); free some space"):
        write_shard(tmp_path, "c0ffee", [score_row("psnr", value=0.7)])
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
