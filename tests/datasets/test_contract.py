"""What every dataset of the catalogue keeps to; those whose files are missing under the data root are skipped."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from mibench.errors import DatasetNotFoundError, UserError
from mibench.planning.catalogue import entries
from mibench.planning.composition import build, compose, plain

ENTRIES = {one.name: one for one in entries("dataset")}
NEEDS_FOLDER = [name for name, one in ENTRIES.items() if "root" in one.node]
NEEDS_TABLE = [name for name, one in ENTRIES.items() if "public_file" in one.node]
NEEDS_TEXTS = [name for name, one in ENTRIES.items() if "label_column" in one.node]
OWN = [*NEEDS_FOLDER, *NEEDS_TABLE, *NEEDS_TEXTS, "captured_update"]
NEEDS_FILES = [name for name, one in ENTRIES.items() if not one.card.embedded and name not in OWN]


def made(name, *overrides):
    return build(plain(compose([f"dataset={name}", *overrides]).dataset))


def folder_of_images(root):
    """Writes a folder of five classes with three images of noise each."""
    draw = np.random.default_rng(0)
    for label in range(5):
        (root / f"class {label}").mkdir()
        for index in range(3):
            noise = draw.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(root / f"class {label}" / f"{index}.png")
    return root


def file_of_records(root):
    """Writes a table of 60 records, all different."""
    lines = [f"{n},{'abc'[n % 3]},{'xy'[n // 2 % 2]}" for n in range(60)]
    (root / "records.csv").write_text("\n".join(["number,letter,answer", *lines]) + "\n")
    return root / "records.csv"


def file_of_texts(root):
    """Writes 60 texts of two classes, all different."""
    lines = [f"this is text {n} of all,{'xy'[n % 2]}" for n in range(60)]
    (root / "texts.csv").write_text("\n".join(["text,answer", *lines]) + "\n")
    return root / "texts.csv"


#: What loads a part of the large ones; all of them are loaded in the slow run.
PART = {
    "cifar10": ["dataset.limit=40"],
    "mnist": ["dataset.limit=500"],
    "lfw": ["dataset.private_people=8", "dataset.held_out_people=8", "dataset.public_limit=500"],
}

#: One that has no private data has a test of its own.
WITH_DATA = [
    *(name for name in ENTRIES if name != "captured_update"),
    *(pytest.param(f"{name} whole", marks=pytest.mark.slow) for name in PART),
]


@pytest.fixture(scope="module", params=WITH_DATA)
def split(request, tmp_path_factory):
    name, _, whole = request.param.partition(" ")
    if ENTRIES[name].card.embedded:
        return made(name).load()
    if name in NEEDS_FOLDER:
        root = folder_of_images(tmp_path_factory.mktemp("images"))
        return made(name, f"dataset.root={root}", "dataset.public_classes=2").load()
    if name in NEEDS_TABLE:
        file = file_of_records(tmp_path_factory.mktemp("records"))
        words = [f"dataset.file={file}", "dataset.response=answer", "dataset.sensitive=letter"]
        return made(name, *words, "dataset.public_fraction=0.3").load()
    if name in NEEDS_TEXTS:
        file = file_of_texts(tmp_path_factory.mktemp("texts"))
        words = [f"dataset.file={file}", "dataset.label_column=answer", "dataset.held_out=8"]
        sizes = [
            f"dataset.{part}={size}" for part, size in (("public", 24), ("private_train", 20), ("private_test", 8))
        ]
        return made(name, *words, *sizes).load()
    root = request.getfixturevalue("data_root")
    try:
        return made(name, f"paths.data={root}", *([] if whole else PART.get(name, []))).load()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))


def parts(split):
    """Returns all examples by role."""
    found = {"train": split.private.train, "test": split.private.test}
    if split.public is not None:
        found["public"] = split.public
    if split.held_out is not None:
        found |= {"held-out train": split.held_out.train, "held-out test": split.held_out.test}
    return found


def contents(examples):
    return [hashlib.sha256(row.tobytes()).digest() for row in examples.x.numpy()]


def test_the_facts_are_those_of_the_tensors(split):
    for role, examples in parts(split).items():
        assert len(examples) == len(examples.x) > 0, role
        assert tuple(examples.x.shape[1:]) == split.spec.shape, role
        assert examples.x.dtype == (torch.int64 if split.spec.vocabulary else torch.float32), role
        assert examples.y.dtype == torch.int64, role
    for examples in (split.private.train, split.private.test):
        assert examples.y.unique().tolist() == list(range(split.spec.classes)), "every class, from 0 on"
    assert len(split.class_names) == split.spec.classes


def test_ids_are_dense(split):
    """A victim's classes are counted by the largest id of its training data."""
    if split.held_out is not None:
        classes = split.held_out.train.y.unique()
        assert classes.tolist() == list(range(len(classes)))
        assert set(split.held_out.test.y.tolist()) <= set(classes.tolist())


def test_values_are_in_their_range(split):
    for role, examples in parts(split).items():
        split.spec.check(examples.x)
        if split.spec.ranged:
            low, high = split.spec.low, split.spec.high
            assert float(examples.x.min()) >= low, role
            assert float(examples.x.max()) <= high, role
            assert float(examples.x.max()) > (low + high) / 2, f"{role} are scaled to [{low}, {high}], not to less"
        for index, column in enumerate(split.spec.columns):
            if column.categorical:
                codes = examples.x[:, index]
                assert bool((codes == codes.round()).all()), column.name
                assert 0 <= float(codes.min()) <= float(codes.max()) < len(column.values), column.name


def test_roles_share_no_example(split):
    """By content; the control may be the attacker's own data, and then the split says so."""
    found = {role: set(contents(examples)) for role, examples in parts(split).items()}
    private = found["train"] | found["test"]
    assert not found["train"] & found["test"]
    if split.private.graph is not None:
        return  # its nodes are public, and what is private are the links
    for role in found.keys() - {"train", "test"}:
        assert not private & found[role], role
    if split.held_out is not None:
        held_out = found["held-out train"] | found["held-out test"]
        assert not found["held-out train"] & found["held-out test"]
        assert bool(held_out & found.get("public", set())) == split.held_out_is_public
        assert not split.held_out_is_public or any("coincide" in note for note in split.notes)
    else:
        assert not split.held_out_is_public


def test_a_graph_fits_its_facts_and_the_control_has_none_of_its_links(split):
    graph = split.private.graph
    assert (graph is not None) == (split.spec.modality == "graph")
    if graph is None:
        return
    assert tuple(graph.features.shape) == (split.spec.vocabulary, split.spec.features)
    assert graph.features.dtype == torch.float32 and bool(graph.features.isfinite().all())
    first, second = graph.edges
    assert bool((first < second).all()) and int(second.max()) < split.spec.vocabulary
    assert len(graph.edges.unique(dim=1)[0]) == len(first) > 0
    if split.held_out is not None:
        assert split.held_out.graph.edges.shape == (2, 0)
        assert split.held_out.graph.features.shape == graph.features.shape


@pytest.mark.parametrize("name", NEEDS_FILES)
def test_missing_files_are_named_with_every_place(name, tmp_path):
    with pytest.raises(DatasetNotFoundError) as error:
        made(name, f"paths.data={tmp_path}").load()
    assert str(tmp_path) in str(error.value)
    assert "MIBENCH_DATA" in str(error.value)


@pytest.mark.parametrize("name", NEEDS_FOLDER)
def test_a_missing_folder_is_named(name, tmp_path):
    with pytest.raises(UserError, match="absent"):
        made(name, f"dataset.root={tmp_path}/absent").load()


@pytest.mark.parametrize("name", NEEDS_TEXTS)
def test_a_missing_file_of_texts_is_named(name, tmp_path):
    with pytest.raises(UserError, match="absent"):
        made(name, f"dataset.file={tmp_path}/absent.txt").load()


@pytest.mark.parametrize("name", NEEDS_TABLE)
def test_a_missing_table_is_named(name, tmp_path):
    with pytest.raises(UserError, match="absent"):
        made(name, f"dataset.file={tmp_path}/absent.csv", "dataset.response=answer", "dataset.sensitive=letter").load()
