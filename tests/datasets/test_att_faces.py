import numpy as np
import pytest
import torch
from PIL import Image

from mibench.datasets.att_faces import AttFaces
from mibench.errors import DatasetNotFoundError, UserError


def write_people(folder, people=6, pictures=10, size=(92, 112)):
    """Writes the official layout; picture k of person n has level 10 n + k, and a white column at its left edge."""
    for person in range(1, people + 1):
        (folder / f"s{person}").mkdir(parents=True)
        for number in range(1, pictures + 1):
            levels = np.full((size[1], size[0]), 10 * person + number, np.uint8)
            levels[:, 0] = 255
            Image.fromarray(levels).save(folder / f"s{person}" / f"{number}.pgm")
    (folder / "README").write_text("not a person")


@pytest.fixture
def six_people(tmp_path):
    write_people(tmp_path / "att_faces")
    return tmp_path


def load(root, **options):
    return AttFaces(data_root=root, **{"private_people": 2, "held_out_people": 3, **options}).load()


def people_of(examples, offset=0):
    """Returns the person of every picture, read from its level."""
    levels = (examples.x.mean((1, 2, 3)) * 255 - 0.5) / 10
    return levels.floor().long().tolist()


def test_people_are_parted_in_the_order_of_their_numbers(tmp_path):
    write_people(tmp_path / "att_faces", people=11)  # s10 and s11 would stand before s2 in the order of names
    split = load(tmp_path, crop=50, size=None)
    assert split.class_names == ("s1", "s2")
    assert set(people_of(split.private.train)) == {1, 2}
    assert set(people_of(split.held_out.train)) == {3, 4, 5}
    assert set(people_of(split.public)) == {6, 7, 8, 9, 10, 11}
    assert not split.held_out_is_public


def test_ids_follow_the_names(six_people):
    train = load(six_people, crop=50, size=None).private.train
    assert (torch.tensor(people_of(train)) - 1).tolist() == train.y.tolist()


def test_the_test_share_is_taken_per_person(six_people):
    split = load(six_people, test_fraction=0.3)
    assert split.private.test.y.bincount().tolist() == [3, 3]
    assert split.private.train.y.bincount().tolist() == [7, 7]


@pytest.mark.parametrize(
    ("crop", "size", "shape"),
    [(92, 32, (1, 32, 32)), (92, None, (1, 92, 92)), (None, None, (1, 112, 92)), (None, 64, (1, 64, 64))],
)
def test_crop_and_size(six_people, crop, size, shape):
    split = load(six_people, crop=crop, size=size)
    assert split.spec.shape == shape == tuple(split.private.train.x.shape[1:])


def test_the_crop_is_central(six_people):
    """The white edge stays at the full width and is gone from a narrower crop."""
    full, narrow = load(six_people, crop=92, size=None), load(six_people, crop=90, size=None)
    assert bool((full.private.train.x[..., 0] == 1).all())
    assert float(narrow.private.train.x.max()) < 0.5


def test_the_other_folder_name_is_found_too(tmp_path):
    write_people(tmp_path / "orl_faces")
    assert load(tmp_path).spec.classes == 2


def test_missing_data_name_both_places(tmp_path):
    with pytest.raises(DatasetNotFoundError) as error:
        load(tmp_path)
    assert str(tmp_path / "att_faces") in str(error.value)
    assert str(tmp_path / "orl_faces") in str(error.value)


def test_more_people_than_there_are(six_people):
    with pytest.raises(UserError, match="ask for 8 people, but there are 6"):
        load(six_people, private_people=5)


def test_a_broken_picture_is_named(six_people):
    broken = six_people / "att_faces" / "s2" / "3.pgm"
    broken.write_bytes(b"P5\n92 112\n255\n too short")
    with pytest.raises(UserError, match=r"s2/3\.pgm"):
        load(six_people)


def test_a_picture_of_another_size_is_named(tmp_path):
    write_people(tmp_path / "att_faces", size=(64, 64))
    with pytest.raises(UserError, match=r"s1/1\.pgm has 64x64 pixels"):
        load(tmp_path)


@pytest.mark.parametrize("options", [{"crop": 93}, {"crop": 0}, {"private_people": 1}, {"held_out_people": -1}])
def test_options_are_checked(six_people, options):
    with pytest.raises(UserError, match=f"dataset.{next(iter(options))}"):
        load(six_people, **options)


def test_the_real_faces(data_root):
    split = AttFaces(data_root=data_root).load()
    assert split.private.train.x.shape == (14 * 8, 1, 32, 32)
    assert (len(split.private.test), len(split.held_out.train), len(split.public)) == (28, 112, 120)
    assert split.class_names == tuple(f"s{number}" for number in range(1, 15))
    assert 0.35 < float(split.private.train.x.mean()) < 0.55, "grey faces on a grey background"
