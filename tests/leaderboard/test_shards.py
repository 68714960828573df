import pandas as pd
import pytest

from mibench.errors import UserError
from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.rows import ADDED, COLUMNS, CellFacts, make_row
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import read_shard, schema, write_shard

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
