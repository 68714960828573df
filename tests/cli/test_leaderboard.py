"""``leaderboard`` and ``reproduce`` on a cell that was really run, and the commands they print."""

import json
import shlex

import pytest

from mibench.cli.main import main
from mibench.cli.reproduction import Commands, written
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell

TINY = ["attack=mi_face", "budget=smoke", "device=cpu", "attack.iterations=3", "dataset.size=8",
        "target.recipe.epochs=1", "target.recipe.min_steps=0", "evaluation.models=[mlp]"]  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaderboard")
    where = [f"paths.store={folder}/store", f"paths.results={folder}/results"]
    assert main([*TINY, *where]) == 0
    (shard,) = (folder / "results" / "shards").glob("*.parquet")
    return folder / "results", shard


def test_study_then_pages(ran, capsys, tmp_path):
    results, shard = ran
    other = results / "shards" / "0123.parquet"
    other.write_bytes(shard.read_bytes())  # another cell's shard is not of the study
    (tmp_path / "grid").mkdir()
    grid = (
        f"name: tiny\naxes: {{attack: [mi_face], defense: [none, dgc], seed: [0, 1]}}\nfixed: {json.dumps(TINY[1:])}\n"
    )
    (tmp_path / "grid" / "tiny.yaml").write_text(grid)
    assert main(["leaderboard", "study=tiny", "--config-dir", str(tmp_path), f"paths.results={results}"]) == 0
    said = capsys.readouterr()
    assert f"{results / 'studies' / 'tiny.parquet'}   1 cells: 1 ok" in said.out
    assert "1 cells have no rows yet" in said.err and "-m grid=tiny" in said.err
    other.unlink()
    assert main(["leaderboard", f"paths.results={results}"]) == 0
    said = capsys.readouterr().out
    assert str(results / "index.html") in said and str(results / "local" / "index.html") in said
    assert (results / "leaderboard.parquet").exists() and (results / "README.md").exists()
    assert shard.stem in (results / "page" / "numbers.js").read_text()


def test_a_study_does_not_publish_where_ones_own_files_lie(tmp_path, capsys):
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "own.yaml").write_text(
        "name: own\naxes: {attack: [mi_face]}\nfixed: [dataset=image_folder, dataset.root=/home/me/secret]\n"
    )
    assert main(["leaderboard", "study=own", "--config-dir", str(tmp_path), f"paths.results={tmp_path}"]) == 2
    assert "cells of your own files (dataset.root=/home/me/secret)" in capsys.readouterr().err


def test_a_bad_shard_is_named_and_the_status_is_0(ran, capsys):
    results, _ = ran
    bad = results / "shards" / "bad.parquet"
    bad.write_bytes(b"PAR1")
    try:
        assert main(["leaderboard", f"paths.results={results}"]) == 0
        assert "set aside bad.parquet: not a readable shard" in capsys.readouterr().err
    finally:
        bad.unlink()


def test_reproduce_prints_a_command_that_makes_the_same_cell(ran, capsys):
    results, shard = ran
    assert main(["reproduce", shard.stem[:8], f"paths.results={results}"]) == 0
    command = capsys.readouterr().out.strip()
    assert "attack.iterations=3" in command and "target.recipe.epochs=1" in command and "attack.lr" not in command
    assert plan_cell(compose(shlex.split(command)[3:])).cell_id == shard.stem


def test_reproduce_says_what_is_another_today(ran, capsys):
    import pyarrow.parquet as pq

    from mibench.leaderboard.shards import write_shard

    results, shard = ran
    rows = pq.ParquetFile(shard).read().to_pylist()
    config = json.loads(rows[0]["config"])
    config["revisions"][3] += 1
    config["attack"]["momentous"] = 3
    elsewhere = results.parent / "elsewhere"
    write_shard(elsewhere, "c0ffee", [{**row, "cell_id": "c0ffee", "config": json.dumps(config)} for row in rows])
    assert main(["reproduce", "c0ffee", f"paths.results={elsewhere}"]) == 1
    said = capsys.readouterr()
    assert "attack 'mi_face' is at revision" in said.err and "attack.momentous was 3" in said.err
    assert said.out.startswith("python -m mibench attack=mi_face")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["attack=dlg", "defense=dgc", "seed=3", "setting.batch_size=2"],
        ["attack=fredrikson_map", "dataset=bank_marketing", "defense=rounding", "knowledge.known_columns=[age,job]"],
        ["attack=gmi", "prior=none", "budget=paper", "budget.targets=3", "query_budget=100"],
        ["defense=bido", "defense.layers=[0,2]", "defense.a1=1e-05", "evaluation.models=[mlp,cnn]"],
        ["attack=ppa", "evaluation.min_steps=900"],
        ["attack=mi_face", "setting=federated", "target=lenet", "budget=smoke", "prior=wgan_gp", "prior.seed=4"],
        ["dataset=image_folder", "dataset.root='some where/it''s, here'", "dataset.mirrored=true"],
    ],
)
def test_commands_compose_to_the_same_cell(overrides):
    """Whatever a cell changes, its command brings back, and nothing that is the default anyway."""
    plan = plan_cell(compose([word.replace("''", "\\'") for word in overrides]))
    made = Commands()(plan.description)
    again = plan_cell(compose(shlex.split(made.command)[3:]))
    assert again.cell_id == plan.cell_id and not made.changed
    assert len(made.options) <= len(overrides)


def test_compositions_are_kept_until_the_configuration_changes(tmp_path, monkeypatch):
    file = tmp_path / "defaults.json"
    first = Commands(file)
    description = plan_cell(compose([])).description
    command = first(description).command
    first.save()
    from mibench.cli import reproduction

    def refuse(*_):
        raise AssertionError("composed again")

    monkeypatch.setattr(reproduction, "compose", refuse)
    assert Commands(file)(description).command == command
    monkeypatch.setattr(reproduction, "folder_stamp", lambda: "another")
    with pytest.raises(AssertionError, match="composed again"):
        Commands(file)(description)


@pytest.mark.parametrize("value", ["plain", "a b", "it's", "true", "null", "3", "1e5", "a,b", "", "x\\y", "[x]", "a=b"])
def test_strings_come_back_as_strings(value):
    cfg = compose(["dataset=image_folder", f"dataset.root={written(value)}"])
    assert cfg.dataset.root == value


@pytest.mark.parametrize(
    ("words", "said"),
    [(["leaderboard"], "Neither studies nor shards"),
     (["leaderboard", "study=first", "dataset=digits", "attack=dlg", "seed=0"], "No shard"),
     (["leaderboard", "study=fist"], "did you mean first"),
     (["leaderboard", "first"], "study=GRID"), (["reproduce"], "one cell id"), (["reproduce", "zzz"], "zzz")],
)  # fmt: skip
def test_mistakes_are_one_sentence(tmp_path, capsys, words, said):
    assert main([*words, f"paths.results={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
