import numpy as np
import pytest
from PIL import Image

from mibench.cli.fetch_command import state
from mibench.datasets.celeba import Celeba
from mibench.errors import DatasetNotFoundError, FetchError, UserError
from mibench.planning.catalogue import entry
from mibench.storage.fetching import fetch

COUNTS = {2880: 6, 7: 5, 10177: 4, 41: 3, 5: 2, 1: 1}


def write_celeba(root, counts=COUNTS):
    """Writes the official layout; pictures of one person stand apart in the list, each filled with the person's level.

    The person of rank k has the level 20 k + 20 within the central 108x108 and white around; the ranks 0 to 3 are of
    the official training part, the rest of the test part.
    """
    folder = root / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    shots = [(rank, person) for turn in range(6) for rank, person in enumerate(counts) if turn < counts[person]]
    for number, (rank, _) in enumerate(shots, 1):
        levels = np.full((218, 178, 3), 255, np.uint8)
        levels[55:163, 35:143] = 20 * rank + 20
        levels[109, 89] = number
        Image.fromarray(levels).save(folder / f"{number:06d}.jpg", quality=95)
    names = [f"{number:06d}.jpg" for number in range(1, len(shots) + 1)]
    lines = [f"{name} {person}" for name, (_, person) in zip(names, shots, strict=True)]
    parts = [f"{name} {0 if rank < 4 else 2}" for name, (rank, _) in zip(names, shots, strict=True)]
    (root / "celeba" / "identity_CelebA.txt").write_text("\n".join(lines) + "\n")
    (root / "celeba" / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return root


@pytest.fixture(scope="module")
def six_people(tmp_path_factory):
    return write_celeba(tmp_path_factory.mktemp("data"))


def load(root, **options):
    return Celeba(data_root=root, **{"private_people": 2, "held_out_people": 2, "size": 16, **options}).load()


def ranks(*parts):
    return {rank for part in parts for rank in ((part.x[:, 0, 0, 0] * 255 - 20) / 20).round().int().tolist()}


def test_the_most_frequent_identities_are_private(six_people):
    split = load(six_people)
    assert split.class_names == ("celebrity 2880", "celebrity 7")
    assert ranks(split.private.train, split.private.test) == {0, 1}
    assert ranks(split.held_out.train, split.held_out.test) == {2, 3}
    assert ranks(split.public) == {4, 5} and len(split.public) == 3


def test_pictures_belong_to_whom_the_list_says(six_people):
    train = load(six_people).private.train
    assert (((train.x[:, 0, 0, 0] * 255 - 20) / 20).round().long() == train.y).all()


def test_the_crop_of_the_protocol_is_the_central_108(six_people):
    """Nothing of the white surroundings is left, and at 110 there is."""
    assert float(load(six_people, size=64).public.x.max()) < 0.6
    assert float(load(six_people, size=110, crop=114).public.x[:, :, 0, 0].min()) > 0.9
    assert load(six_people, size=112, crop=None).spec.shape == (3, 112, 112)


def test_a_tenth_of_every_persons_pictures_and_at_least_one_is_tested(six_people):
    split = load(six_people)
    assert split.private.train.y.bincount().tolist() == [5, 4]
    assert split.private.test.y.bincount().tolist() == [1, 1]


def test_an_official_part_leaves_out_everybody_else(six_people):
    split = load(six_people, part="train")
    assert split.public is None and ranks(split.held_out.train) == {2, 3}
    with pytest.raises(UserError, match="ask for 4 people, but 1 have"):
        load(six_people, part="test")


@pytest.mark.parametrize("missing", ["identity_CelebA.txt", "list_eval_partition.txt"])
def test_a_missing_list_says_where_to_get_it(missing, tmp_path):
    write_celeba(tmp_path)
    (tmp_path / "celeba" / missing).unlink()
    with pytest.raises(DatasetNotFoundError, match=r"mmlab\.ie\.cuhk\.edu\.hk") as error:
        load(tmp_path, part="train")
    assert str(tmp_path / "celeba" / missing) in str(error.value)


def test_a_damaged_list_or_a_missing_picture_is_named(tmp_path):
    identities = write_celeba(tmp_path) / "celeba" / "identity_CelebA.txt"
    good = identities.read_text()
    for damage, said in (
        ("<html>no such file</html>\n", "Line 1 of .*identity_CelebA.txt does not hold a file name and a number"),
        (good + "000001.jpg 9\n", "lists a picture twice"),
        (good + "000999.jpg 9\n", r"names 000999\.jpg, which .*img_align_celeba does not hold"),
    ):
        identities.write_text(damage)
        with pytest.raises(UserError, match=said):
            load(tmp_path)


def test_fetching_says_what_is_done_by_hand_and_checks_what_is_there(tmp_path):
    assert "by hand: ask for the identities" in state(entry("dataset", "celeba"), tmp_path)
    write_celeba(tmp_path)
    assert "there, below" in state(entry("dataset", "celeba"), tmp_path)
    identities, pictures, _ = Celeba.downloads
    with pytest.raises(FetchError, match="not the published file"):
        fetch(identities, tmp_path)
    assert "not checked" in fetch(pictures, tmp_path)
    (tmp_path / "celeba" / "img_align_celeba.zip").write_bytes(b"half of it")
    with pytest.raises(FetchError, match="not the published file"):
        fetch(pictures, tmp_path)


def test_the_real_celebrities(real_people):
    dataset, people = real_people(Celeba, max_per_class=2, public_limit=100)
    assert len(people) == 10177 and sum(map(len, people.values())) == 202599
    assert dataset.load().spec.classes == 1000
