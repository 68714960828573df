"""``mibench.results`` and what a notebook shows of a cell."""

import numpy as np
import pandas as pd
import pytest

import mibench
from mibench.errors import UserError
from mibench.leaderboard.collect import collect_shards
from mibench.leaderboard.compare import groups_in
from mibench.leaderboard.shards import read_shard, shard_path
from mibench.reporting.result import Result

SPANS = ("value", "ci_low", "ci_high", "lift", "lift_low", "lift_high")
GAINS = np.linspace(0.1, 0.6, 6).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, add_cell):
    """One group of two seeds, one of one with another level, and a skipped cell."""
    folder = tmp_path_factory.mktemp("frame")
    for seed in (0, 1):
        add_cell(folder, "attack=gmi", f"seed={seed}", gains=GAINS, lift=0.3 + seed / 10, picture=seed == 1)
    add_cell(folder, "attack=gmi", "defense=bido", "defense.a1=2", gains=GAINS)
    add_cell(folder, "attack=gmi", "defense=rounding", status="skipped", reason="Vacuous.")
    return folder


def test_a_row_is_one_number_of_one_group(folder):
    frame = mibench.results(folder)
    groups = {one.group_id: one for one in groups_in(folder)}
    assert len(frame) == sum(max(1, len(one.numbers)) for one in groups.values())
    for row in frame.to_dict("records"):
        group = groups[row["group_id"]]
        assert (row["attack"], row["defense"]) == (group.facts["attack"], group.facts["defense"])
        if group.numbers:
            number = group.number(row["metric"], row["variant"], row["evaluator"])
            told = [row[name] for name in SPANS]
            assert np.array_equal(told, [getattr(number.score, name) for name in SPANS], equal_nan=True)
            assert (row["verdict"], row["seeds"]) == (number.verdict, number.seeds)
    levels = frame[frame["defense"] == "bido"]
    assert set(levels["defense_options"]) == {"a1=2"} and set(frame[frame["defense"] == "none"]["options"]) == {""}
    skipped = frame[frame["defense"] == "rounding"]
    assert skipped[["status", "reason", "seeds"]].values.tolist() == [["skipped", "Vacuous.", 0]]
    pictures = set(frame[frame["defense"] == "none"]["picture"])
    assert len(pictures) == 1 and next(iter(pictures)).startswith(str(folder / "pictures"))
    assert set(levels["picture"]) == {""}


def test_cells_are_told_apart_and_keep_their_own_numbers(folder):
    cells = mibench.results(folder, rows="cells", attack="gmi", defense="none")
    assert set(cells["seed"]) == {0, 1} and cells["group_id"].nunique() == 1 and cells["cell_id"].nunique() == 2
    votes = cells[(cells["evaluator"] == "vote") & (cells["variant"] == "top1")].set_index("seed")
    assert votes["lift"].to_dict() == {0: 0.3, 1: 0.4} and set(votes["seeds"]) == {1}
    assert (votes["picture"] != "").to_dict() == {0: False, 1: True}
    assert "cell_id" not in mibench.results(folder)


def test_what_is_no_fact_is_said(folder):
    with pytest.raises(UserError, match="picked by"):
        mibench.results(folder, colour="red")
    with pytest.raises(UserError, match="groups or cells"):
        mibench.results(folder, rows="seeds")
    assert mibench.results(folder, dataset="mnist").empty


@pytest.fixture
def rows(folder):
    cell = collect_shards(folder).table["cell_id"].to_pylist()
    pictured = next(one for one in dict.fromkeys(cell) if (folder / "pictures" / f"{one}.png").exists())
    return read_shard(shard_path(folder, pictured))


def test_a_notebook_shows_verdict_numbers_picture_and_command(rows, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = rows["cell_id"].iloc[0]
    rows["evidence"] = ["leak" if one == "vote" else "" for one in rows["evaluator"]]
    made = Result.of(rows, folder, {cell: f"python -m mibench dataset.root='{tmp_path}/x <b>'"})
    page = made._repr_html_()
    assert "● leak" in page and "+0.4 [0.3, 0.5]" in page and 'src="data:image/png;base64,' in page
    assert "<b>&#x27;" not in page and "dataset.root=&#x27;x &lt;b&gt;" in page and str(tmp_path) not in page
    assert "</script>" not in page, "the reason of a skipped number is escaped"
    assert made.picture == folder / "pictures" / f"{cell}.png" and made.pictures == {cell: made.picture}
    bundle = made._repr_mimebundle_()
    assert bundle["text/html"] == page and "2026-01-01" not in str(bundle)
    assert made.equals(rows) and type(made[["value"]]) is pd.DataFrame and type(made.head()) is pd.DataFrame


def test_a_picture_that_may_not_be_shown_stays_a_file(rows, folder):
    rows["config"] = rows["config"].str.replace("mibench.datasets.digits.Digits", "mibench.datasets.lfw.Lfw")
    made = Result.of(rows, folder, {})
    assert "data:image" not in made._repr_html_() and "<img" not in made._repr_html_()
    assert f"{made.picture}: the picture shows private data" in made._repr_html_()


def test_a_skipped_cell_says_why(folder):
    frame = mibench.results(folder, rows="cells", defense="rounding")
    rows = read_shard(shard_path(folder, frame["cell_id"].iloc[0]))
    page = Result.of(rows, folder, {})._repr_html_()
    assert "skipped: Vacuous." in page and "<table" not in page and Result.of(rows, folder, {}).picture is None
