"""``leaderboard.parquet``: rows of cells and of groups."""

import pandas as pd
import pytest

from mibench.leaderboard.build import build, write_study
from mibench.leaderboard.page import Reproduction
from mibench.leaderboard.rows import LISTS


def command(config):
    return Reproduction("", ("attack.steps=7", "attack.lr=2", f"defense.a1={config['defense'].get('a1', 0)}"))


@pytest.fixture
def frame(tmp_path, add_cell):
    for seed, lift in ((0, 0.5), (1, 0.7)):
        add_cell(tmp_path, "defense=bido", f"seed={seed}", lift=lift, gains=[lift] * 6)
    cells = [path.stem for path in (tmp_path / "shards").iterdir()]
    write_study(tmp_path, "first", cells)
    build(tmp_path, command)
    return pd.read_parquet(tmp_path / "leaderboard.parquet")


def test_a_group_has_a_row_of_every_number_with_the_mean_over_its_seeds(frame):
    own = frame[(frame["metric"] == "attack_accuracy") & (frame["evaluator"] == "vote")]
    assert sorted(own["row"]) == ["cell", "cell", "group"]
    group = own[own["row"] == "group"].iloc[0]
    assert group["lift"] == pytest.approx(0.6) and (group["seeds"], group["n"]) == (2, 6)
    assert group["cell_id"] == "" and pd.isna(group["seed"]) and group["evidence"] == "no evidence"
    assert set(frame["seeds"][frame["row"] == "cell"]) == {1}


def test_options_that_differ_from_the_defaults_are_columns(frame):
    assert set(frame["attack_options"]) == {"steps=7, lr=2"} and set(frame["defense_options"]) == {"a1=0.05"}


def test_lists_stay_in_shards_and_studies(frame, tmp_path):
    assert not set(LISTS) & set(frame.columns)
    study = pd.read_parquet(tmp_path / "studies" / "first.parquet")
    kept = study[(study["metric"] == "attack_accuracy") & (study["evaluator"] == "vote")]["per_target"]
    assert {len(one) for one in kept} == {6}
