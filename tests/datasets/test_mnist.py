import gzip

import numpy as np
import pytest
import torch

from mibench.datasets.mnist import Mnist, read_idx
from mibench.errors import DatasetNotFoundError, UserError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_mnist(root, zipped=False):
    """Writes 100 training and 50 test pictures; every digit's are filled with 20 + digit, the test ones 10 higher."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count, level in (("train", 100, 20), ("t10k", 50, 30)):
        labels = np.arange(count) % 10
        images = np.broadcast_to((labels + level)[:, None, None], (count, 28, 28))
        for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            data = idx(array)
            file = raw / f"{part}-{name}"
            if zipped:
                file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(data))
            else:
                file.write_bytes(data)


@pytest.fixture
def fake(tmp_path):
    write_mnist(tmp_path)
    return tmp_path


def levels(examples):
    return (examples.x[:, 0, 14, 14] * 255).round().long()


def test_training_and_test_data_are_those_of_the_official_files(fake):
    split = Mnist(data_root=fake).load()
    assert torch.equal(levels(split.private.train), split.private.train.y + 20)
    assert torch.equal(levels(split.private.test), split.private.test.y + 30)
    assert torch.equal(levels(split.held_out.train), split.held_out.train.y + 25)
    assert (len(split.private.train), len(split.private.test)) == (50, 25)


def test_the_attacker_owns_the_other_digits_and_so_does_the_control(fake):
    split = Mnist(data_root=fake).load()
    assert torch.equal(levels(split.public).unique(), torch.arange(25, 30))
    assert split.held_out_is_public
    assert split.notes
    assert split.class_names == ("digit 0", "digit 1", "digit 2", "digit 3", "digit 4")


def test_digits_are_options(fake):
    split = Mnist(data_root=fake, private=[7, 3], public=[1]).load()
    assert torch.equal(levels(split.private.train[split.private.train.y == 0]).unique(), torch.tensor([27]))
    assert split.class_names == ("digit 7", "digit 3")


def test_zipped_files_are_read_too(fake, tmp_path_factory):
    zipped = tmp_path_factory.mktemp("zipped")
    write_mnist(zipped, zipped=True)
    one, other = Mnist(data_root=fake).load(), Mnist(data_root=zipped).load()
    assert one.private.digest() == other.private.digest()


def test_sizes(fake):
    """28 keeps the pixels, 32 adds a black border around the same pixels, 16 resizes the bordered picture."""
    original = Mnist(data_root=fake, size=28).load().private.train.x
    bordered = Mnist(data_root=fake).load().private.train.x
    assert torch.equal(bordered[:, :, 2:-2, 2:-2], original)
    assert float(bordered[:, :, :2].max()) == 0 == float(bordered[..., -2:].max())
    small = Mnist(data_root=fake, size=16).load()
    assert small.private.train.x.shape[1:] == small.spec.shape == (1, 16, 16)


def test_the_limit_is_per_digit_seeded_and_spares_the_test_data(fake):
    split = Mnist(data_root=fake, limit=3).load()
    assert split.private.train.y.bincount().tolist() == [3] * 5
    assert len(split.public) == 15
    assert len(split.private.test) == 25


def test_the_seed_chooses_what_the_limit_keeps(data_root):
    def kept(seed):
        return Mnist(data_root=data_root, limit=5, seed=seed).load().private.train.digest()

    assert kept(0) == kept(0) != kept(1)


@pytest.mark.parametrize("missing", NAMES)
def test_missing_data_name_both_places(fake, missing):
    file = fake / "MNIST" / "raw" / missing
    file.unlink()
    with pytest.raises(DatasetNotFoundError) as error:
        Mnist(data_root=fake).load()
    assert str(file) in str(error.value)
    assert f"{file}.gz" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", idx(np.zeros((3, 28, 28)))[:-1]])
def test_a_broken_file_is_named(fake, content):
    file = fake / "MNIST" / "raw" / NAMES[0]
    file.write_bytes(content)
    with pytest.raises(UserError, match=NAMES[0]):
        Mnist(data_root=fake).load()


def test_a_broken_archive_is_named(tmp_path):
    file = tmp_path / "labels.gz"
    file.write_bytes(gzip.compress(idx(np.zeros(1000)))[:-12])
    with pytest.raises(UserError, match=r"labels\.gz"):
        read_idx(file)


def test_options_are_checked(fake):
    with pytest.raises(UserError, match=r"dataset\.limit"):
        Mnist(data_root=fake, limit=0)
    with pytest.raises(UserError, match=r"\[4\]"):
        Mnist(data_root=fake, public=[4, 5])


def test_the_real_digits(data_root):
    split = Mnist(data_root=data_root).load()
    assert (len(split.private.train), len(split.private.test)) == (30596, 5139)
    assert len(split.public) == 60000 - 30596
    assert split.private.train.y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842]
    assert abs(float(split.private.train.x[..., 2:-2, 2:-2].mean()) - 0.1307) < 0.01, "the well-known mean of MNIST"
