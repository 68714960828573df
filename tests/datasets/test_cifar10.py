"""CIFAR-10 and CIFAR-100 in both layouts, written small; the archive's pickles are those that Python 2 wrote."""

import dataclasses
import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from mibench.datasets.cifar10 import Cifar10
from mibench.datasets.cifar100 import Cifar100
from mibench.datasets.families.cifar import read_pickle
from mibench.errors import DatasetNotFoundError, FetchError, UserError
from mibench.storage.fetching import fetch

NAMES = {
    Cifar10: ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    Cifar100: [f"thing {number:02}" for number in range(100)],
}
BOTH = pytest.mark.parametrize("cls", [Cifar10, Cifar100])


class Python2(pickle._Pickler):
    """Writes text and bytes alike as Python 2's ``str``, and numpy's name as it was then."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_str(self, text):
        raw = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_str


def python2(content):
    buffer = io.BytesIO()
    Python2(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(b"numpy._core", b"numpy.core")


def pictures(cls, count, level):
    """Returns images and labels; picture n is of class n mod classes, its red says so, its green is ``level`` + n //
    classes, and its blue grows to the right and, twice as fast, downwards."""
    labels = np.arange(count) % cls.classes
    images = np.zeros((count, 3, 32, 32), np.uint8)
    images[:, 0] = labels[:, None, None]
    images[:, 1] = (level + np.arange(count) // cls.classes)[:, None, None]
    images[:, 2] = np.arange(32)[None, None] + 2 * np.arange(32)[None, :, None]
    return images, labels


def write_archive(cls, root, each=3):
    """Writes ``each`` pictures per class and training file (green from 100 on), and two test pictures (from 200 on)."""
    folder = root / cls.folder
    folder.mkdir(parents=True)
    (folder / cls.names_file).write_bytes(python2({cls.names_key: NAMES[cls]}))
    for number, name in enumerate([*cls.train_files, *cls.test_files]):
        test = name in cls.test_files
        images, labels = pictures(cls, (2 if test else each) * cls.classes, 200 if test else 100 + each * number)
        batch = {"batch_label": name, "data": images.reshape(-1, 3072), cls.labels_key: labels.tolist()}
        (folder / name).write_bytes(python2(batch))
    return root


def write_folders(cls, root, each=3):
    """Writes the same pictures as class folders."""
    for part, per_class, level in (("train", each * len(cls.train_files), 100), ("test", 2, 200)):
        images, labels = pictures(cls, per_class * cls.classes, level)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            file = root / cls.card.name / part / NAMES[cls][label] / f"{number:05}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(file)
    return root


@pytest.fixture
def archive(tmp_path):
    return write_archive(Cifar10, tmp_path / "archive")


@pytest.fixture
def folders(tmp_path):
    return write_folders(Cifar10, tmp_path / "folders")


def levels(examples, channel):
    return (examples.x[:, channel, 0, 0] * 255).round().long()


def contents(examples):
    rows = zip(examples.x, examples.y.tolist(), strict=True)
    return sorted((label, hashlib.sha256(image.numpy().tobytes()).hexdigest()) for image, label in rows)


@BOTH
def test_both_layouts_hold_the_same_pictures(cls, tmp_path):
    write_archive(cls, tmp_path / "a")
    write_folders(cls, tmp_path / "b")
    one, other = (cls(data_root=tmp_path / name).load() for name in "ab")
    assert one.class_names == other.class_names == tuple(NAMES[cls][: cls.classes // 2])
    assert one.spec == other.spec and one.spec.shape == (3, 32, 32) and one.spec.mirrored
    for part in ("private.train", "private.test", "public", "held_out.train", "held_out.test"):
        ours, theirs = one, other
        for name in part.split("."):
            ours, theirs = getattr(ours, name), getattr(theirs, name)
        assert contents(ours) == contents(theirs), part


def test_an_image_is_colour_planes_by_rows(archive):
    x = Cifar10(data_root=archive).load().private.train.x[0] * 255
    assert x[2, 0, 1] - x[2, 0, 0] == 1 and x[2, 1, 0] - x[2, 0, 0] == 2


@BOTH
def test_classes_are_parted_and_training_and_test_data_are_the_official_ones(cls, tmp_path):
    split = cls(data_root=write_archive(cls, tmp_path)).load()
    half = cls.classes // 2
    assert torch.equal(levels(split.private.train, 0), split.private.train.y)
    assert levels(split.public, 0).unique().tolist() == list(range(half, cls.classes))
    assert torch.equal(levels(split.held_out.test, 0), split.held_out.test.y + half)
    assert split.held_out_is_public and any("coincide" in note for note in split.notes)
    for examples in (split.private.train, split.public, split.held_out.train):
        assert int(levels(examples, 1).max()) < 200
        assert examples.y.bincount().tolist() == [3 * len(cls.train_files)] * half
    for examples in (split.private.test, split.held_out.test):
        assert int(levels(examples, 1).min()) >= 200 and len(examples) == 2 * half


def test_all_classes_can_be_private(archive):
    split = Cifar10(data_root=archive, public_classes=0).load()
    assert split.spec.classes == 10 == len(split.class_names)
    assert split.public is None and split.held_out is None and not split.held_out_is_public
    assert len(split.private.train) == 150 and len(split.private.test) == 20
    assert any("no control classes" in note for note in split.notes)


def test_one_public_class_is_no_control(archive):
    split = Cifar10(data_root=archive, public_classes=1).load()
    assert split.spec.classes == 9 and len(split.public) == 15 and split.held_out is None


def test_the_limit_is_per_class_seeded_and_spares_the_test_data(archive, folders):
    split = Cifar10(data_root=archive, limit=4).load()
    assert split.private.train.y.bincount().tolist() == [4] * 5
    assert len(split.public) == 20 and len(split.private.test) == 10
    assert split.private.digest() == Cifar10(data_root=archive, limit=4).load().private.digest()
    assert split.private.digest() != Cifar10(data_root=archive, limit=4, seed=1).load().private.digest()
    assert Cifar10(data_root=folders, limit=4).load().private.train.y.bincount().tolist() == [4] * 5


def test_a_subset_says_so_and_sizes_are_options(folders):
    split = Cifar10(data_root=folders, size=16).load()
    assert "Of the 60,000 official pictures 170 are there." in split.notes
    assert split.spec.shape == (3, 16, 16) == tuple(split.public.x.shape[1:])


def test_a_private_picture_among_the_public_ones_is_left_out(archive):
    file = archive / Cifar10.folder / "data_batch_1"
    batch = read_pickle(file)
    batch["data"][5] = batch["data"][0]  # a dog that is the airplane
    file.write_bytes(python2(batch))
    split = Cifar10(data_root=archive).load()
    assert len(split.public) == 74 and any("left out" in note and note.endswith(": 1.") for note in split.notes)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps(Evil()), r"mkdir, which is no part of a table"),
        (pickle.dumps({"data": np.array([Evil()], dtype=object)}), r"mkdir, which is no part of a table"),
        (b"", "Ran out of input"),
        (b"<html>not found</html>", "cannot be read"),
        (python2({"data": np.zeros((9, 3072), np.uint8)})[:-400], "cannot be read"),
        (python2([1, 2]), "no mapping"),
        (python2({"labels": [1]}), "no batch of CIFAR-10"),
        (python2({"data": np.zeros((2, 3072)), "labels": [0, 1]}), "no batch of CIFAR-10"),
        (python2({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "no batch of CIFAR-10"),
        (python2({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}), "no batch of CIFAR-10"),
    ],
)
def test_a_file_that_is_no_batch_is_named_and_runs_nothing(archive, content, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (archive / Cifar10.folder / "data_batch_3").write_bytes(content)
    with pytest.raises(UserError, match=f"data_batch_3.*{said}"):
        Cifar10(data_root=archive).load()
    assert not (tmp_path / "evil").exists()


def test_the_evil_pickle_is_one(tmp_path, monkeypatch):
    """A plain unpickler obeys it."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "evil").exists()


def test_arrays_of_python_3_are_read_too(tmp_path):
    for protocol in (3, 4):
        (tmp_path / "file").write_bytes(pickle.dumps({"data": np.arange(5, dtype=np.uint8)}, protocol))
        assert read_pickle(tmp_path / "file")["data"].tolist() == [0, 1, 2, 3, 4]


def test_what_is_missing_is_named(archive, folders):
    (archive / Cifar10.folder / "data_batch_4").unlink()
    with pytest.raises(DatasetNotFoundError, match=r"data_batch_4: get it with python -m mibench fetch cifar10"):
        Cifar10(data_root=archive).load()
    with pytest.raises(DatasetNotFoundError, match=r"cifar-100-python and .*cifar100/train"):
        Cifar100(data_root=archive).load()
    for file in (folders / "cifar10" / "test" / "ship").iterdir():
        file.unlink()
    with pytest.raises(UserError, match="test/ship holds no PNG files"):
        Cifar10(data_root=folders).load()
    (folders / "cifar10" / "test" / "ship").rmdir()
    with pytest.raises(UserError, match="the same 10 class folders"):
        Cifar10(data_root=folders).load()


def test_pictures_of_another_size_are_named(folders):
    file = folders / "cifar10" / "train" / "cat" / "00003.png"
    Image.new("RGB", (32, 31)).save(file)
    with pytest.raises(UserError, match=r"00003\.png has 32x31 pixels"):
        Cifar10(data_root=folders).load()


def test_two_classes_stay_private(tmp_path):
    with pytest.raises(UserError, match=r"public_classes to leave at least 2 of 10 classes private, but got 9"):
        Cifar10(data_root=tmp_path, public_classes=9)


@BOTH
def test_the_archive_is_fetched_unpacked_and_loaded(cls, tmp_path):
    write_archive(cls, tmp_path / "made")
    with tarfile.open(tmp_path / "archive.tar.gz", "w:gz") as pack:
        pack.add(tmp_path / "made" / cls.folder, cls.folder)
    (published,) = cls.downloads
    served = dataclasses.replace(published, url=(tmp_path / "archive.tar.gz").as_uri())
    with pytest.raises(FetchError, match="is not the published file: its SHA-256 is"):
        fetch(served, tmp_path / "data")
    assert not (tmp_path / "data" / cls.folder / "test").exists()
    checksum = hashlib.sha256((tmp_path / "archive.tar.gz").read_bytes()).hexdigest()
    fetch(dataclasses.replace(served, sha256=checksum), tmp_path / "data")
    assert cls(data_root=tmp_path / "data").load().spec.classes == cls.classes // 2


@BOTH
def test_class_folders_need_no_fetching(cls, tmp_path):
    write_folders(cls, tmp_path, each=1)
    assert "is there" in fetch(cls.downloads[0], tmp_path)


@pytest.mark.slow  # it reads 60,000 pictures
@BOTH
def test_the_real_pictures(cls, data_root):
    try:
        split = cls(data_root=data_root, public_classes=0).load()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    assert split.class_names == tuple(sorted(split.class_names)), "classes are ordered by name in both layouts"
    mean = split.private.train.x.mean((0, 2, 3))
    known = torch.tensor([0.4914, 0.4822, 0.4465] if cls is Cifar10 else [0.5071, 0.4865, 0.4409])
    assert float((mean - known).abs().max()) < 0.01, "the well-known mean colour"
