import json
import multiprocessing
import os
import time

import pytest
import torch

from mibench.errors import UserError
from mibench.storage.store import Payload, Store, digest_of

KEY = {"b": [1, 2], "a": {"x": 1.5, "y": None}}


def make(value=1.0):
    return Payload({"w": torch.full((3,), value)}, {"seconds": 2.0, "words": ["a"]})


def test_the_digest_ignores_order_and_nothing_else():
    assert digest_of(KEY) == digest_of({"a": {"y": None, "x": 1.5}, "b": [1, 2]})
    assert digest_of(KEY) != digest_of({**KEY, "b": [2, 1]})


def test_an_artifact_is_built_once_and_read_back_equal(tmp_path):
    store, calls = Store(tmp_path), []

    def build():
        calls.append(1)
        return make()

    first, second = store.get("victim", KEY, build), store.get("victim", KEY, build)
    assert len(calls) == 1
    assert torch.equal(first.tensors["w"], second.tensors["w"]) and first.facts == second.facts == make().facts


def test_rebuild_replaces(tmp_path):
    store = Store(tmp_path)
    store.get("victim", KEY, make)
    assert store.get("victim", KEY, lambda: make(2.0), rebuild=True).tensors["w"][0] == 2
    assert store.get("victim", KEY, make).tensors["w"][0] == 2


def test_a_damaged_artifact_is_set_aside_and_built_again(tmp_path, caplog):
    store = Store(tmp_path)
    store.get("victim", KEY, make)
    file = store.path("victim", KEY) / "tensors.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert torch.equal(store.get("victim", KEY, make).tensors["w"], torch.ones(3))
    assert "damaged" in caplog.text
    assert [one.digest for one in store.artifacts()] == [digest_of(KEY)]


def test_a_build_that_breaks_leaves_nothing(tmp_path):
    store = Store(tmp_path)

    def broken():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.get("victim", KEY, broken)
    assert list(store.artifacts()) == []
    assert store.get("victim", KEY, make).tensors["w"][0] == 1


def _slow_build(root, log):
    def build():
        with open(log, "a") as file:
            file.write("built\n")
        time.sleep(0.3)
        return make()

    Store(root).get("victim", KEY, build)


def test_processes_that_need_the_same_artifact_build_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_slow_build, args=(tmp_path / "store", tmp_path / "log")) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert (tmp_path / "log").read_text() == "built\n"


def test_collect_keeps_what_it_is_told_to(tmp_path):
    store = Store(tmp_path)
    store.get("victim", KEY, make)
    store.get("prior", {"other": 1}, make)
    assert store.collect({digest_of(KEY)}) > 0
    assert [one.kind for one in store.artifacts()] == ["victim"]


def test_the_manifest_says_what_it_is(tmp_path):
    store = Store(tmp_path)
    store.get("victim", KEY, make)
    manifest = json.loads((store.path("victim", KEY) / "manifest.json").read_text())
    assert manifest["key"] == KEY and manifest["kind"] == "victim" and len(manifest["sha256"]) == 64


@pytest.mark.skipif(os.name != "posix", reason="needs a device file")
def test_a_store_that_cannot_be_written_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"paths\.store"):
        Store(tmp_path / "file").get("victim", KEY, make)
