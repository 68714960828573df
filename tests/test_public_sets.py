"""FFHQ and MetFaces in small: official layouts, found by name, checked image by image."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from mibench.cli.main import main
from mibench.datasets.families.people import public_folder
from mibench.errors import DatasetNotFoundError, FetchError
from mibench.planning.identity import content_of
from mibench.storage.public_sets import FFHQ, METFACES, PUBLIC_SETS, fetch_set


def write_image(file, seed):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(file)
    return hashlib.md5(file.read_bytes()).hexdigest()


@pytest.fixture
def ffhq(tmp_path, monkeypatch):
    """Three thumbnails with their index, as the official script leaves them."""
    names = [f"thumbnails128x128/00000/0000{number}.png" for number in range(3)]
    index = {
        str(number): {"thumbnail": {"file_path": name, "file_md5": write_image(tmp_path / "ffhq" / name, number)}}
        for number, name in enumerate(names)
    }
    file = tmp_path / "ffhq" / "ffhq-dataset-v2.json"
    file.write_text(json.dumps(index))
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    small = dataclasses.replace(FFHQ, count=3, index=dataclasses.replace(FFHQ.index, md5=md5))
    monkeypatch.setitem(PUBLIC_SETS, "ffhq", small)
    return small


@pytest.fixture
def metfaces(tmp_path, monkeypatch):
    """Two works of art with their index, which is a list."""
    names = ["images/11713-00.png", "images/11713-01.png"]
    index = [
        {"image_path": name, "image_md5": write_image(tmp_path / "metfaces" / name, number)}
        for number, name in enumerate(names)
    ]
    (tmp_path / "metfaces" / "metfaces.json").write_text(json.dumps(index))
    small = dataclasses.replace(METFACES, count=2)
    monkeypatch.setitem(PUBLIC_SETS, "metfaces", small)
    return small


@pytest.mark.parametrize("name", ["ffhq", "metfaces"])
def test_what_to_get_by_hand_is_said(name, tmp_path, capsys):
    assert main(["fetch", name, f"paths.data={tmp_path}"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "by hand" in said and str(tmp_path) in said
    assert f"https://github.com/NVlabs/{name}-dataset" in said and "images" in said and ".json" in said


def test_every_image_is_checked(ffhq, metfaces, tmp_path, capsys):
    for name, count in (("ffhq", 3), ("metfaces", 2)):
        assert main(["fetch", name, f"paths.data={tmp_path}"]) == 0
        assert f"all {count} images are there, and their MD5 are the published ones" in capsys.readouterr().out
    assert main(["fetch", f"paths.data={tmp_path}"]) == 0
    assert f"public    ffhq                there, below {tmp_path}" in capsys.readouterr().out


def test_an_image_that_is_missing_or_another_is_named(ffhq, tmp_path):
    last = tmp_path / "ffhq" / "thumbnails128x128" / "00000" / "00002.png"
    write_image(last, 99)
    with pytest.raises(FetchError, match=r"1 of 3 images of ffhq are not the published ones, such as .*00002\.png"):
        fetch_set(ffhq, tmp_path)
    last.unlink()
    with pytest.raises(FetchError, match=r"1 of 3 images of ffhq are missing, such as .*00002\.png"):
        fetch_set(ffhq, tmp_path)


def test_an_index_that_is_none_is_refused(ffhq, metfaces, tmp_path):
    index = tmp_path / "metfaces" / "metfaces.json"
    for text, said in (
        ("{", "is not the index"),
        ("[{}]", "is not the index"),
        ("[]", "lists 0 images instead of the 2"),
    ):
        index.write_text(text)
        with pytest.raises(FetchError, match=said):
            fetch_set(metfaces, tmp_path)
    (tmp_path / "ffhq" / "ffhq-dataset-v2.json").write_text("{}")
    with pytest.raises(FetchError, match="its MD5 is"):
        fetch_set(ffhq, tmp_path)


def test_a_dataset_of_people_finds_them_by_name(ffhq, tmp_path, monkeypatch):
    assert public_folder("ffhq", tmp_path) == tmp_path / "ffhq" / "thumbnails128x128"
    assert public_folder(str(tmp_path / "own"), tmp_path) == tmp_path / "own"
    with pytest.raises(DatasetNotFoundError, match="python -m mibench fetch metfaces"):
        public_folder("metfaces", tmp_path)
    monkeypatch.chdir(tmp_path)  # a folder that happens to bear the name
    assert content_of({"public_root": "ffhq"}) == {"public_root": "ffhq"}
