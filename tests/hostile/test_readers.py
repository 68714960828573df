"""A contract: every reader of files answers damaged and hostile ones with a sentence, or sets them aside by name."""

from __future__ import annotations

import gzip
import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

from mibench.cli.reproduction import Commands
from mibench.data import InputSpec
from mibench.datasets.att_faces import _picture
from mibench.datasets.captured_update import read_tensors
from mibench.datasets.families.cifar import read_pickle
from mibench.datasets.families.columns import schema_of
from mibench.datasets.families.pixels import read_image
from mibench.datasets.families.planetoid import read_arrays
from mibench.datasets.fsdd import read_wave
from mibench.datasets.mnist import read_idx
from mibench.datasets.table import Table
from mibench.errors import MibenchError
from mibench.leaderboard.claims import read_claim
from mibench.leaderboard.collect import checked, collect_shards, collect_studies
from mibench.leaderboard.pictures import small
from mibench.leaderboard.reference import collect_reference
from mibench.leaderboard.shards import read_shard, schema
from mibench.nn.foreign import load
from mibench.pictures import layout_of
from mibench.priors.stylegan2_ada import read as read_generator
from mibench.storage.checkpoints import Checkpoints
from mibench.storage.fetching import Download, fetch
from mibench.storage.public_sets import METFACES
from mibench.targets.mlp import Mlp

KINDS = (
    "empty", "one byte", "truncated", "random bytes", "a folder", "dangling", "a loop", "endless", "a pipe",
    "unreadable",
    "foreign format", "giant header", "large header", "deep nesting", "deep nesting in a header",
    "a pickle that runs code", "a zip that runs code", "a zip bomb", "a climbing archive", "a picture bomb",
    "nan and inf", "scripts", "null bytes", "another version", "another byte at the head", "other JSON",
)  # fmt: skip

#: What a file's name may hold: no reader or message stumbles over it.
NAME = "a'b <script> \x1b[2J\u202e é ${oc.env:HOME}"

#: MiB that a reader may need for any of the files, and seconds.
MEMORY, SECONDS = 400, 5


def saved(write) -> bytes:
    held = io.BytesIO()
    write(held)
    return held.getvalue()


def parquet(**columns) -> bytes:
    return saved(lambda file: pq.write_table(pa.table(columns), file))


def shard() -> bytes:
    empty = {"string": "", "int64": 0, "double": 0.5, "bool": True}
    row = {field.name: empty.get(str(field.type), []) for field in schema()}
    row |= {"cell_id": "c", "status": "ok", "config": "{}"}
    return saved(lambda file: pq.write_table(pa.Table.from_pylist([row], schema=schema()), file))


def in_results(collect, folder):
    """A reader of a whole folder of files: what is set aside is its answer."""

    def read(path: Path):
        results = path.parent / "results"
        (results / folder).mkdir(parents=True)
        path.rename(results / folder / f"c{path.suffix}") if not path.is_symlink() else (
            results / folder / f"c{path.suffix}"
        ).symlink_to(os.readlink(path))
        found = collect(results)
        aside = found[1] if isinstance(found, tuple) else found.set_aside
        if not aside:
            return found
        raise MibenchError(next(iter(aside.values())))

    return read


def table(path: Path):
    return Table(data_root="", file=path, response="y", sensitive="x")._read("file", path)


def unpacked(kind):
    def read(path: Path):
        root = path.parent / "root"
        root.mkdir()
        return fetch(Download(path="a/b", url=path.absolute().as_uri(), unpack=kind), root)

    return read


def restored(path: Path):
    """A checkpoint that cannot be used is removed, and the training begins anew."""
    model = nn.Linear(2, 2)
    steps = list(Checkpoints(path).steps(2, "label", model=model))
    assert steps == [0, 1]
    raise MibenchError("begins anew")


def index(path: Path):
    root = path.parent / "root"
    (root / "metfaces").mkdir(parents=True)
    (root / METFACES.index.path).symlink_to(path)
    return METFACES.checksums(root)


SPEC = InputSpec("image", (1, 8, 8), 2)
PICTURE = saved(lambda file: Image.new("L", (92, 112)).save(file, "PNG"))
NPZ = saved(lambda file: np.savez(file, x=np.zeros(3)))

#: Parquet is read from its end.
HEADLESS = ("another byte at the head",)

#: By name: the ending of a file, what an honest one holds, the reader, and the kinds that it may take for its own.
READERS = {
    "shard": (".parquet", shard(), read_shard, HEADLESS),
    "checked shard": (".parquet", shard(), checked, HEADLESS),
    "shards": (".parquet", shard(), in_results(collect_shards, "shards"), HEADLESS),
    "studies": (".parquet", shard(), in_results(collect_studies, "studies"), HEADLESS),
    "weights": (".pt", saved(lambda file: torch.save(nn.Linear(2, 2).state_dict(), file)),
                lambda path: load(nn.Linear(2, 2), str(path)), ()),
    "safetensors": (".safetensors", save({"weight": torch.ones(2, 2), "bias": torch.ones(2)}),
                    lambda path: load(nn.Linear(2, 2), str(path)), ()),
    "finished target": (".safetensors", save({"a": torch.ones(2)}),
                        lambda path: Mlp(spec=SPEC).take(path, "target.weights", "0" * 64), ()),
    "update": (".safetensors", save({"a": torch.ones(2)}), lambda path: read_tensors(path, "dataset.file"), ()),
    "columns": (".safetensors", save({"a": torch.ones(2)}, {"columns": "[{}]"}), schema_of, ()),
    "generator": (".safetensors", save({"a": torch.ones(2)}), lambda path: read_generator(str(path)), ()),
    "picture": (".png", PICTURE, lambda path: read_image(path, None), ()),
    "face": (".pgm", PICTURE, _picture, ()),
    "sheet": (".png", PICTURE, small, ()),
    "layout": (".png", PICTURE, layout_of, ()),
    "cifar": ("", b"\x80\x02}q\x00U\x04dataq\x01K\x01s.", read_pickle, ()),
    "graph": (".npz", NPZ, read_arrays, ()),
    "digits": ("", b"\0\0\x08\x01\0\0\0\x02ab", read_idx, ()),
    "zipped digits": (".gz", gzip.compress(b"\0\0\x08\x01\0\0\0\x02ab"), read_idx, ()),
    "recording": (".wav", b"RIFF" + bytes(40), read_wave, ()),
    "csv": (".csv", b"x,y\n1,2\n", table, ("one byte", "nan and inf", "scripts", "random bytes", "truncated",
            "deep nesting", "null bytes", "another version", "other JSON", "another byte at the head",
            "giant header", "large header", "foreign format", "deep nesting in a header", "a pickle that runs code",
            "a zip that runs code", "a climbing archive", "a picture bomb", "a zip bomb")),
    "parquet": (".parquet", parquet(x=[1], y=[2]), table, HEADLESS),
    "claim": (".yaml", b"statement: a\n", read_claim, ()),
    "reference": (".csv", b"a,b\n", in_results(collect_reference, "reference"), ()),
    "zip": ("", b"PK", unpacked("zip"), ("foreign format",)),
    "tar": ("", b"\x1f\x8b", unpacked("tar"), ()),
    "checkpoint": (".tmp", bytes(64), restored, ("dangling",)),
    "index": (".json", b"[]", index, ()),
    "compositions": (".json", b"{}", lambda path: Commands(path), KINDS),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_hostile_files_are_answered(reader, kind, place, peak, hostile_bytes, tmp_path, monkeypatch):
    if kind == "unreadable" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    if kind in ("a pipe", "endless") and reader in ("zip", "tar"):
        pytest.skip("an address gives neither")
    monkeypatch.chdir(tmp_path)
    ending, good, read, takes = READERS[reader]
    path = place(kind, tmp_path / "here" / f"{NAME if kind == 'scripts' else 'file'}{ending}", good)
    began = time.process_time()
    found, grown = peak(lambda: read(path))
    assert not hostile_bytes[0].exists(), "the file ran code"
    assert not (tmp_path / "climbed").exists() and not (tmp_path / "here" / "climbed").exists()
    if not (isinstance(found, MibenchError) or kind in takes):
        raise AssertionError(f"{reader} answers {kind} with {found!r}") from (
            found if isinstance(found, Exception) else None
        )
    assert not isinstance(found, Exception) or isinstance(found, MibenchError)
    assert not isinstance(found, Exception) or len(str(found)) < 1200
    assert grown < MEMORY and time.process_time() - began < SECONDS


@pytest.mark.parametrize("reader", [name for name in READERS if name not in ("zip", "tar", "checkpoint", "claim")])
def test_a_reader_reads_an_honest_file(reader, tmp_path):
    """Or says what is missing in it, where only a part of an honest one stands here."""
    ending, good, read, _ = READERS[reader]
    path = tmp_path / f"c{ending}"
    path.write_bytes(good)
    partial = ("finished target", "columns", "generator", "graph", "recording", "reference")
    if reader in partial:
        with pytest.raises(MibenchError):
            read(path)
    else:
        read(path)


def test_rows_that_inflate_are_not_decoded(tmp_path, peak):
    few, many = tmp_path / "few.parquet", tmp_path / "many.parquet"
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(50_000, np.int32)), pa.array(["x" * 4_000_000]))
    pq.write_table(pa.table({"a": long}), few, dictionary_pagesize_limit=1 << 30)
    assert few.stat().st_size < 1 << 20, "200 GB in less than a megabyte"
    pq.write_table(pa.table({"a": pa.array(np.zeros(6_000_000, np.int8))}), many)
    for path, said in ((few, "another schema"), (many, "6,000,000 rows")):
        found, grown = peak(lambda path=path: read_shard(path))
        assert said in str(found) and isinstance(found, MibenchError)
        assert grown < 6000


@pytest.mark.parametrize("change", ["nulls", "types", "no row", "infinite", "config", "deep config", "lists"])
def test_rows_of_another_shape_are_named_and_set_aside(change, tmp_path):
    rows = pq.read_table(io.BytesIO(shard())).to_pylist()
    whole = schema()
    if change == "nulls":
        rows[0]["attack"] = None
    if change == "types":
        whole = pa.schema([field.with_type(pa.string()) if field.name == "value" else field for field in whole])
        rows[0]["value"] = "<b>"
    if change == "no row":
        rows = []
    if change == "infinite":
        rows[0]["value"] = float("inf")
    if change == "config":
        rows[0]["config"] = "[1]"
    if change == "deep config":
        rows[0]["config"] = "[" * 100_000
    if change == "lists":
        rows[0]["per_target"] = [float("nan")] * 1000
    (tmp_path / "shards").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=whole), tmp_path / "shards" / "c.parquet")
    found = collect_shards(tmp_path)
    assert bool(found.set_aside) == (change not in ("infinite", "lists")), found.set_aside


def test_a_layout_that_lies_is_none(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    lies = {"caption": "", "verdict": "", "number": "", "headings": ["a"], "lefts": [0], "titles": ["t"], "tops": [0],
            "heights": [10], "cells": [[10**9]], "pixels": 10**9}  # fmt: skip
    for number, said in enumerate((lies, {**lies, "cells": [[1]], "pixels": 8, "tops": [-5]}, {"caption": 1}, [1])):
        info = PngInfo()
        info.add_text("mibench", json.dumps(said))
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (300, 300)).save(path, pnginfo=info)
        assert layout_of(path) is None
