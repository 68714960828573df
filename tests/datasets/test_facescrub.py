import numpy as np
import pytest
from PIL import Image

from mibench.cli.fetch_command import state
from mibench.datasets.facescrub import FaceScrub
from mibench.errors import DatasetNotFoundError
from mibench.planning.catalogue import entry
from mibench.storage.fetching import fetch


def write_faces(root, actors=4, actresses=4, count=5):
    """Writes faces of unlike sizes; the k-th person has the level 20 k + 20, actors before actresses."""
    names = [("actors", f"Actor_{k}") for k in range(actors)] + [
        ("actresses", f"Actress_{k}") for k in range(actresses)
    ]
    for number, (group, name) in enumerate(names):
        folder = root / "facescrub" / group / "faces" / name
        folder.mkdir(parents=True)
        for index in range(count):
            levels = np.full((30 + index, 24 + number, 3), 20 * number + 20, np.uint8)
            levels[15, 12] = index
            Image.fromarray(levels).save(folder / f"{name}_{index}.jpeg", quality=95)
        (folder / "list.txt").write_text("no face")
    return root


def load(root, **options):
    return FaceScrub(data_root=root, **{"private_people": 3, "held_out_people": 3, "size": 8, **options}).load()


def people_of(*parts):
    return {one for part in parts for one in ((part.x[:, 0, 0, 0] * 255 - 20) / 20).round().int().tolist()}


def test_actors_and_actresses_are_parted_without_sharing_anybody(tmp_path):
    split = load(write_faces(tmp_path))
    private = people_of(split.private.train, split.private.test)
    held_out = people_of(split.held_out.train, split.held_out.test)
    assert (len(private), len(held_out), len(people_of(split.public))) == (3, 3, 2)
    assert len(private | held_out | people_of(split.public)) == 8
    assert split.spec.shape == (3, 8, 8) and split.notes == ()


def test_the_published_protocol_has_no_control(tmp_path):
    split = load(write_faces(tmp_path), private_people=8, held_out_people=0)
    assert split.spec.classes == 8 and split.public is None and split.held_out is None


def test_missing_faces_are_said_where_they_belong(tmp_path):
    with pytest.raises(DatasetNotFoundError) as error:
        load(tmp_path)
    for group in ("actors", "actresses"):
        assert str(tmp_path / "facescrub" / group / "faces") in str(error.value)
    assert "missing below" in state(entry("dataset", "facescrub"), tmp_path)
    write_faces(tmp_path)
    assert "not checked" in fetch(FaceScrub.downloads[0], tmp_path)


def test_the_real_faces(real_people):
    dataset, people = real_people(FaceScrub, max_per_class=2, public_limit=100)
    assert 400 < len(people) <= 530
    assert dataset.load().spec.classes == 200
