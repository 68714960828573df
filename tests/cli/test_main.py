"""The command line as a person meets it: exit status, table, and one sentence for every mistake.

Cells, sweeps and mistakes have a process of their own once each; what else is asked of them needs none.
"""

import forking
import pytest

from mibench.leaderboard.shards import read_shard

TINY = [
    "budget=smoke", "device=cpu", "threads=1", "prior.iterations=2", "attack.iterations=2",
    "target.recipe.epochs=1", "target.recipe.min_steps=0", "dataset.size=8", "evaluation.min_steps=20",
    "evaluation.models=[mlp,lenet]",
]  # fmt: skip
ONE_JUDGE = "evaluation.models=[mlp]"


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """Runs a command in a process of its own, and returns its status, output and errors."""
    with forking.forks(tmp_path_factory.mktemp("said")) as run:
        yield run


@pytest.fixture(scope="module")
def ran(process, places, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    return folder, process("attack=gmi", "metric=[attack_accuracy]", *TINY, *places(folder))


def test_help_imports_neither_torch_nor_hydra(light_commands):
    status, out, modules = light_commands["--help"]
    assert status == 0 and "mibench" in out and not modules & {"torch", "hydra"}


def test_a_cell_ends_with_its_table_and_paths(ran):
    folder, (status, out, err) = ran
    assert status == 0, err
    assert (
        "attack_accuracy top1 vote" in out
        and "control" in out
        and "verdict   · too few targets: Fewer than five" in out
    )
    (shard,) = (folder / "results" / "shards").glob("*.parquet")
    assert str(shard) in out and str(folder / "results" / "pictures") in out
    assert set(read_shard(shard)["metric"]) == {"attack_accuracy"}


def test_a_finished_cell_is_not_run_again(mibench, places, ran):
    folder, _ = ran
    (shard,) = (folder / "results" / "shards").glob("*.parquet")
    before = shard.stat().st_mtime_ns
    status, out, err = mibench("attack=gmi", *TINY, *places(folder))
    assert status == 0 and shard.stat().st_mtime_ns == before
    assert "attack_accuracy" in out and "overwrite=always" in err
    assert "Public and control classes coincide" in out


def test_score_adds_metrics_to_the_stored_reconstruction(mibench, places, ran):
    folder, _ = ran
    (shard,) = (folder / "results" / "shards").glob("*.parquet")
    status, out, err = mibench("score", shard.stem[:6], "metric=[knn_distance]", *places(folder))
    assert status == 0, err
    assert set(read_shard(shard)["metric"]) == {"attack_accuracy", "knn_distance"} and "knn_distance" in out


def test_show_prints_a_stored_cell(mibench, places, ran):
    folder, _ = ran
    (shard,) = (folder / "results" / "shards").glob("*.parquet")
    status, out, err = mibench("show", shard.stem, *places(folder))
    assert status == 0, err
    assert "attack_accuracy top1 vote" in out and "queries" in out and ".png" in out
    status, _, err = mibench("show", "zzz", *places(folder))
    assert status == 2 and "zzz" in err and "Traceback" not in err


def test_store_lists_and_collects(mibench, places, ran):
    folder, _ = ran
    status, out, _ = mibench("store", *places(folder))
    assert status == 0 and "prior" in out and "reconstruction" in out and "MiB" in out
    status, _, err = mibench("store", "collect", *places(folder))
    assert status == 2 and "kinds=" in err


def test_a_sweep_leaves_a_row_for_what_cannot_be_run(process, places, tmp_path):
    status, _, err = process("-m", "attack=random_prior", "defense=none,rounding", *TINY[:3], "prior.iterations=2",
                             *TINY[5:-1], ONE_JUDGE, *places(tmp_path))  # fmt: skip
    assert status == 0, err
    frames = [read_shard(path) for path in (tmp_path / "results" / "shards").glob("*.parquet")]
    skipped = [frame for frame in frames if set(frame["status"]) == {"skipped"}]
    assert len(frames) == 2 and len(skipped) == 1
    assert skipped[0]["reason"].item().startswith("Vacuous: defense 'rounding'")


def test_a_sweep_skips_an_attack_that_needs_what_the_cell_does_not_grant(mibench, places, tmp_path):
    words = ["attack=dlg", "attack.iterations=2", "attack.restarts=1", "setting.batch_size=2", "setting.local_epochs=2"]
    words += [*TINY[:3], "dataset.size=8"]
    status, _, err = mibench("-m", *words, "knowledge.local_training=true,false", *places(tmp_path))
    assert status == 0, err
    frames = [read_shard(path) for path in (tmp_path / "results" / "shards").glob("*.parquet")]
    skipped = [frame for frame in frames if set(frame["status"]) == {"skipped"}]
    assert len(frames) == 2 and len(skipped) == 1 and "knowledge.local_training=true" in skipped[0]["reason"].item()


def test_a_mistake_in_a_sweep_leaves_a_failed_row_and_the_others_run(mibench, places, tmp_path):
    words = ["-m", "attack=mi_face", "attack.start=0.1,2", *TINY[:3], *TINY[4:-1], ONE_JUDGE]
    status, _, err = mibench(*words, *places(tmp_path))
    assert status == 1, err
    frames = [read_shard(path) for path in (tmp_path / "results" / "shards").glob("*.parquet")]
    reasons = [frame["reason"].item() for frame in frames if set(frame["status"]) == {"failed"}]
    assert len(frames) == 2 and len(reasons) == 1 and "attack.start" in reasons[0]


def test_a_broken_cell_leaves_a_failed_row_and_status_1(mibench, places, tmp_path):
    words = ["attack=gmi", *TINY, "attack.identity_weight=nan"]
    status, _, err = mibench(*words, *places(tmp_path))
    assert status == 1 and "The cell failed" in err
    (shard,) = (tmp_path / "results" / "shards").glob("*.parquet")
    frame = read_shard(shard)
    assert frame["status"].tolist() == ["failed"] and "NaN" in frame["reason"].item()
    status, _, err = mibench(*words, *places(tmp_path))
    assert status == 1 and "overwrite=failed" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lst"], "did you mean list"),
        (["list", "atacks"], "did you mean attacks"),
        (["attack=gmy"], "gmi"),
        (["attack.foo=3"], "attack.foo"),
        (["attack=gmi", "attack.iterations=many"], "iterations"),
        (["attack=gmi", "defense=rounding"], "Vacuous"),
        (["attack=gmi", "dataset=att_faces", "paths.data=/nowhere"], "/nowhere"),
        (["attack=gmi", "overwrite=maybe"], "never, failed or always"),
        (["attack.base=3=4", "attack"], "attack"),
        (["seed=abc"], "seed"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(process, mibench, places, words, said, tmp_path):
    own = words in (["lst"], ["attack=gmi", "defense=rounding"])  # one before Hydra, and one after it
    where = [] if words[0] in ("lst", "list") else places(tmp_path)
    status, _, err = (process if own else mibench)(*words, *where)
    assert status == 2, err
    assert said in err and "Traceback" not in err


def test_a_read_only_results_folder_is_said_so(mibench, places, tmp_path):
    (tmp_path / "results").write_text("a file, no folder")
    status, _, err = mibench("attack=gmi", *TINY, *places(tmp_path))
    assert status == 2 and "Traceback" not in err and "results" in err


def test_help_and_list_in_processes_of_their_own(process):
    status, out, _ = process("--help")
    assert status == 0 and "python -m mibench attack=gmi" in out
    status, out, _ = process("list", "attacks")
    assert status == 0 and "gmi" in out and "white_box" in out
