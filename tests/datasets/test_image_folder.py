import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mibench.datasets.families.pixels import read_image
from mibench.datasets.image_folder import ImageFolder
from mibench.errors import UserError
from mibench.planning.composition import compose
from mibench.planning.identity import content_of, folder_digest
from mibench.planning.plan import plan_cell
from mibench.storage.image_files import ENDINGS, images_of

TARGET = "mibench.datasets.image_folder.ImageFolder"


def write(file, levels):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(levels, np.uint8)).save(file)
    return file


def write_classes(root, names, count=4, start=0, shape=(8, 8)):
    """Writes ``count`` grey images per class; those of the k-th class have the levels start + 10 k + 0, 1, 2 ..."""
    for number, name in enumerate(names):
        for index in range(count):
            write(root / name / f"{index}.png", np.full(shape, start + 10 * number + index))
    return root


def levels(examples):
    return set((examples.x[:, 0, 0, 0] * 255).round().long().tolist())


def everything(population):
    return levels(population.train) | levels(population.test)


@pytest.fixture
def people(tmp_path):
    return write_classes(tmp_path / "people", ["dora", "anna", "carl", "ben"])  # levels 0-3, 10-13, 20-23, 30-33


@pytest.fixture
def strangers(tmp_path):
    return write_classes(tmp_path / "strangers", ["xeno", "yuri"], start=100)


def test_classes_are_the_folders_by_name(people):
    split = ImageFolder(root=people).load()
    assert split.class_names == ("anna", "ben", "carl", "dora")
    assert split.spec.classes == 4
    assert levels(split.private.train[split.private.train.y == 0]) < {10, 11, 12, 13}, "anna is class 0"
    assert everything(split.private) == {0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23, 30, 31, 32, 33}


def test_alone_there_is_neither_public_data_nor_control(people):
    split = ImageFolder(root=people).load()
    assert split.public is None
    assert split.held_out is None
    assert not split.held_out_is_public
    assert any("no control" in note for note in split.notes)


def test_the_last_classes_can_be_set_aside(people):
    split = ImageFolder(root=people, public_classes=2).load()
    assert split.class_names == ("anna", "ben")
    assert levels(split.public) == {20, 21, 22, 23, 0, 1, 2, 3} == everything(split.held_out)
    assert split.held_out_is_public
    assert any("coincide" in note for note in split.notes)


def test_a_single_public_class_is_no_control(people):
    split = ImageFolder(root=people, public_classes=1).load()
    assert levels(split.public) == {0, 1, 2, 3}
    assert split.held_out is None
    assert not split.held_out_is_public


def test_the_attackers_own_folder(people, strangers):
    split = ImageFolder(root=people, public_root=strangers).load()
    assert split.spec.classes == 4
    assert levels(split.public) == {100, 101, 102, 103, 110, 111, 112, 113}
    assert split.held_out_is_public


def test_the_controls_own_folder(people, strangers, tmp_path):
    others = write_classes(tmp_path / "others", ["otto", "paul"], start=200)
    split = ImageFolder(root=people, public_root=strangers, held_out_root=others).load()
    assert everything(split.held_out) == {200, 201, 202, 203, 210, 211, 212, 213}
    assert levels(split.public) == {100, 101, 102, 103, 110, 111, 112, 113}
    assert not split.held_out_is_public
    assert not split.notes


def test_the_test_share_and_the_limit_are_per_class(people):
    split = ImageFolder(root=people, test_fraction=0.5).load()
    assert split.private.test.y.bincount().tolist() == [2, 2, 2, 2]
    limited = ImageFolder(root=people, max_per_class=2).load()
    assert everything(limited.private) == {0, 1, 10, 11, 20, 21, 30, 31}, "the first by name"


def test_the_seed_decides_the_parting(people):
    def digest(seed):
        return ImageFolder(root=people, test_fraction=0.5, seed=seed).load().private.digest()

    assert digest(0) == digest(0) != digest(1)


def test_other_files_are_passed_over(people):
    (people / "notes.txt").write_text("a file beside the classes")
    (people / "anna" / "notes.txt").write_text("no image")
    (people / "anna" / ".hidden.png").write_text("no image")
    (people / "anna" / "folder.png").mkdir()
    (people / ".cache").mkdir()
    assert len(ImageFolder(root=people).load().private.train) == 12


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_read(tmp_path, ending):
    for name in ("a", "b"):
        for index in range(2):
            write(tmp_path / name / f"{index}{ending.upper()}", np.full((8, 8, 3), 100 * (name == "b") + 50))
    train = ImageFolder(root=tmp_path, channels=3).load().private.train
    assert (train.x.mean((1, 2, 3)) * 255 - 50 - 100 * train.y).abs().max() < 3, "within the loss of the format"


def test_channels_and_size_are_those_of_the_files_unless_given(people, tmp_path):
    assert ImageFolder(root=people).load().spec.shape == (1, 8, 8)
    assert ImageFolder(root=people, channels=3, size=16).load().spec.shape == (3, 16, 16)
    colour = write_classes(tmp_path / "colour", ["a", "b"], shape=(6, 9, 3))
    assert ImageFolder(root=colour).load().spec.shape == (3, 6, 9)
    split = ImageFolder(root=colour, channels=1, size=8).load()
    assert split.spec.shape == tuple(split.private.train.x.shape[1:]) == (1, 8, 8)


def test_files_of_several_sizes_or_channels_are_named(people, strangers):
    one = people / "anna" / "0.png"
    other = write(people / "ben" / "2.png", np.zeros((8, 10)))
    with pytest.raises(UserError, match=r"set dataset\.size=PIXELS") as error:
        ImageFolder(root=people).load()
    assert str(one) in str(error.value)
    assert str(other) in str(error.value)
    assert "8x8" in str(error.value)
    assert "10x8" in str(error.value)
    assert ImageFolder(root=people, size=8).load().spec.shape == (1, 8, 8)

    write(other, np.zeros((8, 8, 3)))
    with pytest.raises(UserError, match=r"set dataset\.channels=1 or 3"):
        ImageFolder(root=people).load()
    assert ImageFolder(root=people, channels=1).load().spec.shape == (1, 8, 8)


def test_public_images_must_fit_the_private_ones(people, tmp_path):
    larger = write_classes(tmp_path / "larger", ["x", "y"], shape=(9, 9))
    with pytest.raises(UserError, match=r"x/0\.png"):
        ImageFolder(root=people, public_root=larger).load()


def test_an_unreadable_image_is_named(people):
    (people / "carl" / "2.png").write_text("not an image")
    with pytest.raises(UserError, match=r"carl/2\.png cannot be read as an image"):
        ImageFolder(root=people).load()


def test_a_truncated_image_is_named(tmp_path):
    file = write(tmp_path / "image.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3)))
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"image\.jpg"):
        read_image(file, None)


@pytest.mark.parametrize("count", [0, 1])
def test_a_class_of_fewer_than_two_images_is_named(people, count):
    write_classes(people, ["emil"], count=count) if count else (people / "emil").mkdir()
    with pytest.raises(UserError, match="emil holds fewer than 2 images"):
        ImageFolder(root=people).load()


@pytest.mark.parametrize("role", ["public_root", "held_out_root"])
def test_a_shared_name_is_a_shared_identity(people, tmp_path, role):
    other = write_classes(tmp_path / "other", ["zoe", "carl"], start=100)
    with pytest.raises(UserError, match="bear the same name") as error:
        ImageFolder(root=people, **{role: other}).load()
    assert str(people / "carl") in str(error.value)
    assert str(other / "carl") in str(error.value)


def test_what_cannot_be_a_dataset_is_refused_by_key(people, tmp_path):
    def message(**options):
        with pytest.raises(UserError) as error:
            ImageFolder(**options).load()
        return str(error.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    single = write_classes(tmp_path / "single", ["solo"])
    assert "set dataset.root=FOLDER" in message()
    assert "dataset.root=" in message(root=tmp_path / "absent")
    assert "dataset.public_root=" in message(root=people, public_root=tmp_path / "absent")
    assert "holds no class folders" in message(root=empty)
    assert "leaves 1 private" in message(root=single)
    assert "dataset.public_classes=3" in message(root=people, public_classes=3)
    assert "dataset.held_out_root=" in message(root=people, held_out_root=single)
    assert "dataset.public_classes" in message(root=people, public_classes=-1)
    assert "dataset.public_classes" in message(root=people, public_classes=1, public_root=single)
    assert "dataset.channels" in message(root=people, channels=2)
    assert "dataset.size" in message(root=people, size=0)
    assert "dataset.max_per_class" in message(root=people, max_per_class=1)


def test_pixels_keep_their_values(tmp_path):
    """Grey, colour, 16-bit grey, palette and transparent files, each with its own channels and range."""
    colour = np.stack([np.full((4, 5), level, np.uint8) for level in (10, 20, 30)], -1)
    shares = [10 / 255, 20 / 255, 30 / 255]
    cases = {
        "grey.png": (Image.fromarray(np.full((4, 5), 51, np.uint8)), [51 / 255]),
        "colour.png": (Image.fromarray(colour), shares),
        "palette.png": (Image.fromarray(colour).quantize(4), shares),
        "deep.png": (Image.fromarray(np.full((4, 5), 13107, np.uint16)), [0.2]),
        "clear.png": (Image.fromarray(np.dstack([colour, colour[..., 0]])), shares),
        "bits.png": (Image.fromarray(np.full((4, 5), True)), [1.0]),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        pixels = read_image(tmp_path / name, None)
        assert pixels.shape == (len(expected), 4, 5), name
        assert torch.allclose(pixels.mean((1, 2)), torch.tensor(expected), atol=1e-6), name


def test_colour_becomes_grey_by_luma_and_grey_becomes_equal_channels(tmp_path):
    red = write(tmp_path / "red.png", np.full((2, 2, 3), [255, 0, 0]))
    grey = write(tmp_path / "grey.png", np.full((2, 2), 51))
    assert torch.allclose(read_image(red, 1), torch.full((1, 2, 2), 0.299))
    assert torch.equal(read_image(grey, 3), torch.full((3, 2, 2), 0.2))


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (0, 255)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert float(read_image(tmp_path / "two.gif", 1).max()) == 0


def test_photographs_are_turned_upright(tmp_path):
    image = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg", None).shape == (3, 8, 4)


@pytest.mark.parametrize("pixels", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70000, np.int32)])
def test_pixels_of_unknown_range_are_refused(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "scan.tif")
    with pytest.raises(UserError, match=r"scan\.tif .*no known range"):
        read_image(tmp_path / "scan.tif", None)


def test_a_private_image_among_the_public_ones_is_refused_by_name(people, strangers):
    Image.open(people / "carl" / "2.png").save(strangers / "yuri" / "copy.bmp")  # the same pixels in another file
    with pytest.raises(UserError, match=r"yuri/copy\.bmp is the same picture as .*carl/2\.png, which is private"):
        ImageFolder(root=people, public_root=strangers).load()
    with pytest.raises(UserError, match=r"carl/2\.png is the same picture as .*anna/0\.png"):
        Image.open(people / "carl" / "2.png").save(people / "anna" / "0.png")
        ImageFolder(root=people, public_classes=2).load()


def refused(**options):
    with pytest.raises(UserError) as error:
        ImageFolder(**options).load()
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?"))
    return str(error.value)


# Depth


def write_deep(root, low, high, kind, ending="tif"):
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        for index in range(2):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(draws.integers(low, high, (8, 8)).astype(kind)).save(root / name / f"{index}.{ending}")
    return root


def test_negative_levels_are_refused_and_a_sign_too(tmp_path):
    assert "levels from -" in refused(root=write_deep(tmp_path / "signed", -1000, 2000, np.int32))
    tifffile.imwrite(tmp_path / "signed" / "a" / "0.tif", np.full((8, 8), 2000, np.int16))
    said = refused(root=tmp_path / "signed")
    assert "16 bits with a sign" in said and "no known range" in said and "dataset.white" in said
    assert "no known range" in refused(root=write_deep(tmp_path / "wide", 0, 200000, np.int32))
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "wide" / "a" / "0.tif")
    assert "NaN or infinite" in refused(root=tmp_path / "wide", white=1.0)


@pytest.mark.parametrize(("high", "kind", "ending"), [(4096, np.uint16, "png"), (256, np.int32, "tif"),
                                                       (16, np.uint8, "png")])  # fmt: skip
def test_a_set_far_below_white_is_warned_of_and_white_can_be_said(high, kind, ending, tmp_path, caplog):
    root = write_deep(tmp_path / "dark", 0, high, kind, ending)
    dark = ImageFolder(root=root).load()
    assert "The brightest pixel of 4 pictures is" in caplog.text and f"white ({high - 1}?)" in caplog.text
    assert float(dark.private.train.x.max()) < 0.07 and any("brightest" in one for one in dark.reading)
    caplog.clear()
    bright = ImageFolder(root=root, white=high - 1).load()
    assert 0.9 < float(bright.private.train.x.max()) <= 1 and not bright.reading and not caplog.records
    assert "outside 0 to 10" in refused(root=root, white=10)


def test_numbers_with_a_fraction_have_the_range_that_is_said(tmp_path):
    for name in ("a", "b"):
        for index in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(np.full((4, 4), index / 2, np.float32)).save(tmp_path / name / f"{index}.tif")
    assert "numbers with a fraction" in refused(root=tmp_path)
    population = ImageFolder(root=tmp_path, white=0.5).load().private
    assert set(torch.cat([population.train.x, population.test.x]).unique().tolist()) == {0.0, 1.0}


# Orientation


def test_orientation_is_an_option_and_noted(tmp_path, caplog):
    """The default turns; torchvision's loader does not, and a folder without such files needs no note."""
    caplog.set_level("INFO")
    for name in ("a", "b"):
        for index in range(2):
            image = Image.fromarray(np.full((4, 8, 3), 200, np.uint8))
            exif = image.getexif()
            exif[0x0112] = 6 if (name, index) != ("b", 1) else 1
            (tmp_path / name).mkdir(exist_ok=True)
            image.save(tmp_path / name / f"{index}.jpg", exif=exif)
    assert "differ in pixels" in refused(root=tmp_path), "of three files that are turned and one that is not"
    turned, stored = (ImageFolder(root=tmp_path, upright=upright, size=8).load() for upright in (True, False))
    assert any("3 of 4 pictures carry an EXIF orientation and were turned" in one for one in turned.reading)
    assert any("read as stored (dataset.upright=false)" in one for one in stored.reading)
    assert "torchvision's ImageFolder reads them as stored" in caplog.text
    assert ImageFolder(root=tmp_path, upright=False).load().spec.shape == (3, 4, 8)
    plain = write_classes(tmp_path / "plain", ["a", "b"], start=200)
    assert not ImageFolder(root=plain).load().reading


# Folders


def test_sub_folders_are_read_as_torchvision_reads_them(people, tmp_path):
    """Files of a class at any depth, in its order, links followed and a link that leads back met once."""
    from torchvision.datasets import ImageFolder as Theirs

    write(people / "anna" / "b" / "7.png", np.full((8, 8), 61))
    write(people / "anna" / "a" / "z" / "1.png", np.full((8, 8), 62))
    write(people / "anna" / "a-b" / "1.png", np.full((8, 8), 63))
    write(tmp_path / "elsewhere" / "1.png", np.full((8, 8), 64))
    (people / "ben" / "linked").symlink_to(tmp_path / "elsewhere")
    own = [file for name in ("anna", "ben", "carl", "dora") for file in images_of(people / name)]
    assert own == [Path(file) for file, _ in Theirs(people).samples]
    assert everything(ImageFolder(root=people).load().private) >= {61, 62, 63, 64}
    (people / "ben" / "linked" / "back").symlink_to(people / "ben")
    assert len(list(images_of(people / "ben"))) == 5


def test_files_passed_over_are_counted(people, caplog):
    caplog.set_level("INFO")
    (people / "anna" / "notes.txt").write_text("no image")
    (people / "anna" / "film.mp4").write_text("no image")
    (people / "ben" / "more").mkdir()
    (people / "ben" / "more" / "list.TXT").write_text("no image")
    (people / "carl" / ".DS_Store").write_text("hidden")
    split = ImageFolder(root=people).load()
    (said,) = [one for one in split.reading if "passed over" in one]
    assert said.startswith("4 files") and "3 that are no images by their ending (.txt, .mp4)" in said
    assert said.endswith("and 1 hidden.") and said in caplog.text


@pytest.mark.parametrize(("parts", "named"), [(["train", "val"], "train"), (["Training", "Test", "extra"], "Training")])
def test_parts_of_a_data_set_are_recognised(parts, named, tmp_path):
    for part in parts:
        write_classes(tmp_path / part, ["anna", "ben"])
    said = refused(root=tmp_path)
    assert "are parts of a data set and no classes" in said and f"dataset.root={tmp_path / named}." in said
    assert ImageFolder(root=tmp_path / named).load().class_names == ("anna", "ben")


def test_classes_called_train_and_test_are_classes(tmp_path):
    write_classes(tmp_path, ["test", "train"])
    assert ImageFolder(root=tmp_path).load().class_names == ("test", "train")


def test_a_folder_too_high_by_one_is_told(people):
    assert f"is it dataset.root={people}, which holds 4 folders?" in refused(root=people.parent)


def test_the_order_of_labels_can_be_said(people):
    split = ImageFolder(root=people, order=["dora", "anna"], public_classes=1).load()
    assert split.class_names == ("dora", "anna", "ben")
    assert levels(split.private.train[split.private.train.y == 0]) < {0, 1, 2, 3}, "dora is class 0"
    assert levels(split.public) == {20, 21, 22, 23}, "carl, the last one"
    assert "did you mean anna?" in refused(root=people, order=["ana"])
    assert "every folder once" in refused(root=people, order=["anna", "anna"])


# What a cell is


def cell_id(root, *words):
    return plan_cell(compose(["attack=mi_face", "dataset=image_folder", f"dataset.root={root}", *words])).cell_id


def test_a_root_without_class_folders_of_images_is_refused_before_it_is_read(people, tmp_path, monkeypatch):
    """As ``/usr`` is, whose folders hold no images; nothing of it is hashed."""
    monkeypatch.setattr("mibench.planning.identity.folder_digest", lambda root: pytest.fail("it is read"))
    high = tmp_path / "high"
    for name in ("bin", "lib"):
        (high / name / "deep").mkdir(parents=True)
        (high / name / "deep" / "file.so").write_text("no image")
    with pytest.raises(UserError, match=r"dataset\.root=.*high holds the folder 'bin', in which no image"):
        _ = cell_id(high)
    write_classes(tmp_path / "parts" / "train", ["a"])
    write_classes(tmp_path / "parts" / "val", ["a"])
    with pytest.raises(UserError, match="parts of a data set"):
        _ = cell_id(tmp_path / "parts")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"public_root=.*in which no image"):
        _ = cell_id(people, f"dataset.public_root={high}")


def test_much_that_is_read_is_said(people, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr("mibench.planning.identity.MANY", (10, 10**9))
    folder_digest.cache_clear()
    assert (
        cell_id(people) and f"16 files (0.0 GB) below {people}" in caplog.text and "more than 10 files" in caplog.text
    )


def test_images_in_sub_folders_and_behind_links_are_part_of_the_cell(people, tmp_path):
    """They were passed over once, so such folders are other data now; all other folders are the cells they were."""
    (people / "notes.txt").write_text("a file beside the classes")
    folder_digest.cache_clear()
    sha = hashlib.sha256()
    for file in sorted(path for path in people.rglob("*") if path.is_file()):
        sha.update(str(file.relative_to(people)).encode() + hashlib.sha256(file.read_bytes()).digest())
    assert content_of({"_target_": TARGET, "root": str(people)})["root"] == sha.hexdigest()
    seen = {cell_id(people)}
    write(people / "anna" / "deep" / "1.png", np.full((8, 8), 77))
    folder_digest.cache_clear()
    assert content_of({"_target_": TARGET, "root": str(people)})["root"][1] == "sub-folders"
    seen.add(cell_id(people))
    elsewhere = write(tmp_path / "elsewhere" / "1.png", np.full((8, 8), 78))
    (people / "anna" / "linked").symlink_to(elsewhere.parent)
    for level in (78, 79):
        write(elsewhere, np.full((8, 8), level))
        folder_digest.cache_clear()
        seen.add(cell_id(people))
    assert len(seen) == 4


def test_options_at_their_default_move_no_id(people):
    plain = cell_id(people)
    assert cell_id(people, "dataset.upright=true", "dataset.white=null", "dataset.order=null") == plain
    changed = {cell_id(people, word) for word in ("dataset.upright=false", "dataset.white=200", "dataset.order=[ben]")}
    assert len({plain, *changed}) == 4


def test_a_file_that_cannot_be_read_is_named_before_anything_runs(people, monkeypatch):
    folder_digest.cache_clear()
    opened = Path.open

    def denied(path, *words, **more):
        if path.name == "2.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *words, **more)

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(UserError, match=r"2\.png cannot be read \(Permission denied\)"):
        _ = cell_id(people)
