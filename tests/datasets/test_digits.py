import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mibench.datasets.digits import FILE, Digits
from mibench.errors import UserError


def test_the_embedded_file_is_the_one_of_scikit_learn():
    original = load_digits()
    with np.load(FILE) as arrays:
        assert np.array_equal(arrays["images"], original.images)
        assert np.array_equal(arrays["labels"], original.target)


def test_private_and_public_digits_are_disjoint():
    """The pictures themselves are looked up in the original, not their new ids."""
    original = load_digits()
    digit_of = {image.tobytes(): int(label) for image, label in zip(original.images, original.target, strict=True)}

    def digits_of(x):
        return {digit_of[(image[0] * 16).double().numpy().tobytes()] for image in x}

    split = Digits(size=8).load()
    assert digits_of(split.private.train.x) == digits_of(split.private.test.x) == {0, 1, 2, 3, 4}
    assert digits_of(split.public.x) == digits_of(split.held_out.train.x) == {5, 6, 7, 8, 9}


def test_the_digest_is_stable():
    """Everything that is stored under these data hangs on it: a new digest makes all victims train again."""
    assert Digits(size=8).load().private.digest()[:16] == "95f2b7fa00cb66de"


def test_the_seed_decides_the_parting():
    def private(seed):
        return Digits(size=8, seed=seed).load().private

    assert private(0).digest() == private(0).digest() != private(1).digest()
    both = [torch.cat([part.train.x, part.test.x]).flatten(1).double().sum(0) for part in (private(0), private(1))]
    assert torch.equal(*both), "another seed parts the same pictures"


def test_a_digit_cannot_be_private_and_public():
    with pytest.raises(UserError, match=r"\[4\]"):
        Digits(public=[4, 5]).load()
