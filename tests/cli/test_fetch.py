"""``python -m mibench fetch`` over the whole catalogue; nothing here leaves the machine."""

import gzip
from pathlib import Path

import pytest
from hydra.utils import get_class

from mibench.cli.fetch_command import downloads
from mibench.cli.main import main
from mibench.errors import FetchError
from mibench.planning.catalogue import entries
from mibench.storage.judge_files import JUDGE_FILES

ROOT = Path(__file__).parent.parent.parent
DATASETS = list(entries("dataset"))
WITH_FILES = [one for axis in ("dataset", "metric") for one in entries(axis) if downloads(one)]


@pytest.mark.parametrize("one", WITH_FILES, ids=lambda one: one.name)
def test_what_is_read_is_what_the_class_holds(one):
    files = downloads(one)
    assert files == tuple(get_class(one.node["_target_"]).downloads)
    for file in files:
        assert file.url.startswith("https://") or file.by_hand, f"{file.path}: neither an address nor a way by hand"
        assert not Path(file.path).is_absolute() and not file.by_hand.endswith(".")
    assert not (getattr(one.card, "embedded", False)), "what travels with mibench needs no download"


def test_the_list_says_of_every_dataset_what_is_there(tmp_path, capsys):
    assert main(["fetch", f"paths.data={tmp_path}", f"paths.weights={tmp_path}/weights"]) == 0
    said = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert {one.name for one in DATASETS} <= set(said) and "lpips" in said and "psnr" not in said
    assert "nothing to fetch" in said["digits"] and "your own" in said["image_folder"]
    assert f"missing below {tmp_path}: python -m mibench fetch mnist" in said["mnist"]
    assert "by hand" in said["att_faces"] and f"{tmp_path}/weights" in said["lpips"]
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").touch()
    main(["fetch", f"paths.data={tmp_path}"])
    assert f"mnist               there, below {tmp_path}" in capsys.readouterr().out


@pytest.fixture
def no_network(monkeypatch):
    """No address and no package manager answers."""

    def nothing(*_):
        raise FetchError("the network is down.")

    for name in ("_stream", "_packed"):
        monkeypatch.setattr(f"mibench.storage.fetching.{name}", nothing)


def test_the_files_of_judges_are_listed_and_found_there(tmp_path, capsys, no_network):
    words = [f"paths.data={tmp_path}", f"paths.weights={tmp_path}"]
    main(["fetch", *words])
    assert (
        f"face_judges         missing below {tmp_path}: python -m mibench fetch face_judges" in capsys.readouterr().out
    )
    for one in JUDGE_FILES["face_judges"]:
        assert one.sha256 and one.source.startswith(("https://", "npm:"))
        file = tmp_path / one.path
        file.parent.mkdir(exist_ok=True)
        file.touch()
    main(["fetch", *words])
    assert f"face_judges         there, below {tmp_path}" in capsys.readouterr().out
    assert main(["fetch", "face_judges", *words]) == 1
    assert "not the published file" in capsys.readouterr().err


def test_the_folder_is_that_of_the_environment_unless_it_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MIBENCH_DATA", str(tmp_path / "elsewhere"))
    assert main(["fetch", "att_faces"]) == 1
    assert str(tmp_path / "elsewhere") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["fetch", "digits"], 0, "travels with mibench"),
        (["fetch", "att_faces"], 1, "https://cam-orl.co.uk/facedatabase.html"),
        (["fetch", "mnits"], 2, "did you mean mnist"),
        (["fetch", "mnist", "lpips"], 2, "one name at a time"),
        (["fetch", "mnist", "seed=1"], 2, "paths.data=DIR"),
    ],
)
def test_every_answer_is_one_sentence(tmp_path, capsys, words, status, said):
    assert main([*words, f"paths.data={tmp_path}"]) == status
    out, err = capsys.readouterr()
    assert said in out + err and (out + err).count("\n") == 1


def test_another_file_than_the_published_one_is_said_and_kept(tmp_path, capsys, no_network):
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"not MNIST"))
    assert main(["fetch", "mnist", f"paths.data={tmp_path}"]) == 1
    assert "f68b3c2dcbeaaa9fbdd348bbdeb94873" in capsys.readouterr().err and file.exists()


def test_the_table_of_the_bank_is_the_published_one(data_root, capsys):
    if not (data_root / "bank-full.csv").is_file():
        pytest.skip("bank-full.csv is not there")
    assert main(["fetch", "bank_marketing", f"paths.data={data_root}"]) == 0
    assert "is there, and its SHA-256 is the published one" in capsys.readouterr().out


def test_fetching_does_not_import_torch(light_commands):
    status, _, modules = light_commands["fetch"]
    assert status == 0 and "torch" not in modules
