"""LFW, and what it shares with the other datasets of people: roles, crops, the attacker's own folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mibench.datasets.lfw import FOLDERS, Lfw
from mibench.errors import DatasetNotFoundError, UserError

COUNTS = {"Ann_A": 9, "Bob": 8, "Cem_C": 7, "Dee": 6, "Eve": 5, "Flo_F": 4, "Gus": 1, "Hal": 1}


def write_people(folder, counts=COUNTS, size=(250, 250)):
    """Writes the official layout: the k-th person has the level 20 k + 10, within a white frame outside the crop."""
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(1, count + 1):
            levels = np.full((size[1], size[0], 3), 20 * number + 10, np.uint8)
            if size == (250, 250):
                levels[:64] = levels[176:] = 255
                levels[:, :69] = levels[:, 181:] = 255
            middle = (slice(size[1] // 2, size[1] // 2 + 8), slice(size[0] // 2, size[0] // 2 + 8))
            levels[middle] = [20 * index, 0, 0]  # so that no two pictures are alike
            Image.fromarray(levels).save(folder / name / f"{name}_{index:04d}.jpg", quality=95)


@pytest.fixture(scope="module")
def eight_people(tmp_path_factory):
    root = tmp_path_factory.mktemp("lfw")
    write_people(root / "lfw-deepfunneled")
    (root / "lfw-deepfunneled" / ".hidden").mkdir()
    (root / "lfw-deepfunneled" / "README").write_text("no person")
    return root


def load(root, **options):
    few = {"private_people": 2, "held_out_people": 2, "min_images": 4, "size": 8, "parting": "most", **options}
    return Lfw(data_root=root, **few).load()


def people_of(examples):
    """Returns the number of every picture's person, read from the level of its corner."""
    return ((examples.x[:, :, 0, 0].mean(1) * 255 - 10) / 20).round().long().tolist()


def roles_of(split):
    held_out = split.held_out and {*people_of(split.held_out.train), *people_of(split.held_out.test)}
    return {*people_of(split.private.train), *people_of(split.private.test)}, held_out, {*people_of(split.public)}


def test_the_people_with_most_pictures_are_private_and_the_next_ones_held_out(eight_people):
    split = load(eight_people)
    assert roles_of(split) == ({0, 1}, {2, 3}, {4, 5, 6, 7})
    assert split.class_names == ("Ann_A", "Bob") and not split.held_out_is_public
    assert people_of(split.private.train) == split.private.train.y.tolist()
    assert len(split.public) == 5 + 4 + 1 + 1, "whoever has too few pictures is public"


def test_seeded_roles_share_nobody_and_people_with_few_pictures_are_public(eight_people):
    found = set()
    for seed in range(8):
        private, held_out, public = roles_of(load(eight_people, parting="seeded", seed=seed))
        assert not private & held_out and not (private | held_out) & public
        assert private | held_out <= {0, 1, 2, 3, 4, 5} and {6, 7} <= public
        found.add(frozenset(private))
    assert len(found) > 2
    again = load(eight_people, parting="seeded").private.digest()
    assert again == load(eight_people, parting="seeded").private.digest()


def test_the_crop_is_central_and_the_whole_picture_an_option(eight_people):
    split = load(eight_people, size=16)
    assert split.spec.shape == (3, 16, 16) and split.spec.mirrored
    assert float(split.public.x.max()) < 0.75, "the white frame lies outside of the 112 pixels around the face"
    assert float(load(eight_people, crop=None).public.x[0, 0, 0, 0]) > 0.9
    assert load(eight_people, channels=1).spec.shape == (1, 8, 8)


def test_pictures_of_a_person_can_be_capped_and_those_left_are_nobodys(eight_people):
    split = load(eight_people, max_per_class=5, test_fraction=0.2)
    assert split.private.train.y.bincount().tolist() == [4, 4]
    assert split.private.test.y.bincount().tolist() == [1, 1]
    assert roles_of(split)[2] == {4, 5, 6, 7}


def test_copies_that_were_cropped_before_are_kept_whole_and_said_so(tmp_path):
    write_people(tmp_path / "lfw-deepfunneled", size=(64, 64))
    split = load(tmp_path)
    assert any("copies of 64x64" in note for note in split.notes)
    with pytest.raises(UserError, match=r"has 64x64 pixels, neither the 250x250"):
        load(tmp_path, crop=60)


def test_a_picture_that_is_no_square_copy_is_named(tmp_path):
    write_people(tmp_path / "lfw-deepfunneled", size=(60, 64))
    with pytest.raises(UserError, match=r"Ann_A_0001\.jpg has 60x64 pixels"):
        load(tmp_path)


@pytest.mark.parametrize("images", FOLDERS)
def test_each_alignment_has_its_folder(images, tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"dataset\.images=funneled"):
        load(tmp_path, images=images)
    write_people(tmp_path / FOLDERS[images])
    assert load(tmp_path, images=images).spec.classes == 2


def write_public(root, count=6, size=(40, 60), folder="00000"):
    for index in range(count):
        levels = np.full((size[1], size[0], 3), 200 + index, np.uint8)
        levels[:20] = levels[-20:] = 0
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).save(root / folder / f"{index:05d}.png")
    return root


def test_the_attacker_may_own_a_public_set_by_its_name(eight_people):
    write_public(eight_people / "ffhq" / "thumbnails128x128")
    assert len(load(eight_people, public_root="ffhq").public) == 6


def test_the_attacker_may_own_a_folder_of_unlike_people_instead(eight_people, tmp_path):
    own = write_public(tmp_path / "thumbnails128x128")
    split = load(eight_people, public_root=own, public_crop=20)
    assert split.public.x.shape == (6, 3, 8, 8)
    assert (split.public.x[:, 0, 0, 0] * 255).round().int().tolist() == [200, 201, 202, 203, 204, 205]
    assert split.private.digest() == load(eight_people).private.digest()
    assert any("The public images are a folder's" in note for note in split.notes)
    assert float(load(eight_people, public_root=own).public.x[0, 0, 0, 0]) < 0.5, "the largest square has the border"
    with pytest.raises(UserError, match=r"00000\.png has 40x60 pixels, fewer than dataset\.public_crop=41"):
        load(eight_people, public_root=own, public_crop=41)


def test_a_person_in_two_roles_is_refused_by_name_and_by_content(eight_people, tmp_path):
    by_name = write_public(tmp_path / "by_name", folder="Cem_C")
    with pytest.raises(UserError, match=r"folder named as the private or held-out person 'Cem_C'"):
        load(eight_people, public_root=by_name)
    renamed = write_public(tmp_path / "renamed")
    private = eight_people / "lfw-deepfunneled" / "Bob" / "Bob_0002.jpg"
    (renamed / "00000" / "someone.jpg").write_bytes(private.read_bytes())
    with pytest.raises(UserError, match=r"someone\.jpg is the same picture as .*Bob_0002\.jpg"):
        load(eight_people, public_root=renamed)
    assert load(eight_people, public_root=write_public(tmp_path / "public", folder="Eve")).spec.classes == 2


def test_a_limit_chooses_public_images_by_seed(eight_people):
    first, again, other = (load(eight_people, public_limit=3, seed=seed).public for seed in (0, 0, 1))
    assert len(first) == 3 and first.digest() == again.digest() != other.digest()
    assert len(load(eight_people, public_limit=99).public) == 11


def test_no_control_is_said_so(eight_people):
    split = load(eight_people, private_people=6, held_out_people=0)
    assert split.held_out is None and any("no control people" in note for note in split.notes)
    assert roles_of(split)[2] == {6, 7}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"private_people": 5}, "ask for 7 people, but 6 have at least dataset.min_images=4 pictures"),
        ({"private_people": 1}, "dataset.private_people"),
        ({"held_out_people": 1}, "dataset.held_out_people"),
        ({"channels": 2}, "dataset.channels"),
        ({"crop": 251}, "dataset.crop to be at most 250"),
        ({"min_images": 1}, "dataset.min_images"),
        ({"max_per_class": 1}, "dataset.max_per_class"),
        ({"public_crop": 88}, "dataset.public_root, which is not set"),
        ({"public_root": "absent"}, "dataset.public_root=absent is not a folder"),
    ],
)
def test_mistakes_are_named(options, said, eight_people):
    with pytest.raises(UserError, match=said):
        load(eight_people, **options)


def test_an_empty_public_folder_is_named(eight_people, tmp_path):
    with pytest.raises(UserError, match="holds no images"):
        load(eight_people, public_root=tmp_path)


def test_a_picture_of_two_people_is_refused(eight_people, monkeypatch):
    people = dict(Lfw(data_root=eight_people).people())
    monkeypatch.setattr(Lfw, "people", lambda self: {**people, "Zoe": people["Ann_A"]})
    with pytest.raises(UserError, match=r"Ann_A_0001\.jpg is listed under two people"):
        load(eight_people)


def test_the_real_people(real_people):
    dataset, people = real_people(Lfw, public_limit=200)
    assert len(people) == 5749 and sum(map(len, people.values())) == 13233
    assert sum(len(files) >= 20 for files in people.values()) == 62
    split = dataset.load()
    assert split.spec.classes == 31 and int(split.held_out.train.y.max()) == 30
    assert torch.bincount(torch.cat([split.private.train.y, split.private.test.y])).tolist() == [
        min(50, len(people[name])) for name in split.class_names
    ]
    assert 0.3 < float(split.private.train.x.mean()) < 0.6


def test_a_private_picture_under_another_name_is_not_the_attackers(tmp_path):
    """The official list has such pictures; a user's own folder with one is refused, whatever the file."""
    write_people(tmp_path / "lfw-deepfunneled")
    before = load(tmp_path)
    private = Image.open(tmp_path / "lfw-deepfunneled" / "Ann_A" / "Ann_A_0001.jpg")
    (tmp_path / "lfw-deepfunneled" / "Gus" / "Gus_0002.jpg").write_bytes(Path(private.filename).read_bytes())
    split = load(tmp_path)
    assert torch.equal(split.public.x, before.public.x) and len(split.public) == len(split.public.y)
    assert any(note == "Public pictures left out as private ones under another name: 1." for note in split.notes)
    assert not any("left out" in note for note in before.notes)
    own = tmp_path / "own"
    own.mkdir()
    private.crop((69, 64, 181, 176)).save(own / "copy.png")
    with pytest.raises(UserError, match=r"copy\.png shows, pixel for pixel, a private picture"):
        load(tmp_path, public_root=own)
