import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load, save

from mibench.cli.main import main
from mibench.errors import StoreError, UserError
from mibench.storage.artifact import _being_read
from mibench.storage.store import STALE, Payload, Store, digest_of

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


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def edited(path, **changes):
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    kept = {name: value for name, value in manifest.items() if value is not None}
    (path / "manifest.json").write_text(json.dumps(kept))


def as_before(path, **changes):
    """Turn an artifact into one of the first form: no checksum but the tensors' own."""
    content = save(load((path / "tensors.safetensors").read_bytes()))
    (path / "tensors.safetensors").write_bytes(content)
    first = {"form": None, "digest": None, "bytes": None, "checksum": None}
    edited(path, sha256=hashlib.sha256(content).hexdigest(), **first, **changes)


def replaced_by(path, make_it):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make_it(path)


#: What can happen to the folder of an artifact, by name.
HARMS = {
    "a flipped bit in the tensors": lambda path: flipped(path / "tensors.safetensors"),
    "cut tensors": lambda path: os.truncate(path / "tensors.safetensors", 40),
    "empty tensors": lambda path: os.truncate(path / "tensors.safetensors", 0),
    "no tensors": lambda path: (path / "tensors.safetensors").unlink(),
    "an empty manifest": lambda path: os.truncate(path / "manifest.json", 0),
    "a cut manifest": lambda path: os.truncate(path / "manifest.json", 40),
    "a manifest of zeros": lambda path: (path / "manifest.json").write_bytes(bytes(300)),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "a list for a manifest": lambda path: (path / "manifest.json").write_text("[]"),
    "a deep manifest": lambda path: (path / "manifest.json").write_text("[" * 100_000),
    "a manifest without its sums": lambda path: (path / "manifest.json").write_text('{"key": {}, "facts": {}}'),
    "a folder for a manifest": lambda path: replaced_by(path / "manifest.json", os.mkdir),
    "a dangling manifest": lambda path: ((path / "manifest.json").unlink(), (path / "manifest.json").symlink_to("x")),
    "a pipe for tensors": lambda path: (
        (path / "tensors.safetensors").unlink(),
        os.mkfifo(path / "tensors.safetensors"),
    ),
    "an empty folder": lambda path: replaced_by(path, os.mkdir),
    "a file in its place": lambda path: replaced_by(path, lambda one: one.write_text("x")),
    "a dangling link in its place": lambda path: replaced_by(path, lambda one: one.symlink_to("nowhere")),
    "an edited fact": lambda path: edited(path, facts={"seconds": 3.0, "words": ["a"]}),
    "an edited key": lambda path: edited(path, key={"other": 1}),
    "a manifest cut down to the first form": lambda path: edited(
        path, form=None, digest=None, bytes=None, checksum=None
    ),
    "a lost checksum": lambda path: edited(path, checksum=None),
    "another form": lambda path: edited(path, form=7),
    "the first form with other tensors": lambda path: (as_before(path), flipped(path / "tensors.safetensors")),
    "the first form of another key": lambda path: as_before(path, key={"other": 1}),
}


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_is_damaged_is_set_aside_and_built_again(harm, tmp_path, caplog):
    """By every reader: the one that builds, the one that looks, and the list of artifacts."""
    store = Store(tmp_path)
    path = store.path("victim", KEY)
    for number, read in enumerate((lambda: store.get("victim", KEY, make), lambda: store.find("victim", KEY))):
        store.get("victim", KEY, make)
        HARMS[harm](path)
        caplog.clear()
        found = read()
        assert (found is None) == bool(number)
        (said,) = caplog.messages
        assert said.count(". ") == 0 and str(path) in said and "damaged" in said and "is kept as .damaged-" in said
    assert torch.equal(store.get("victim", KEY, make).tensors["w"], torch.ones(3))
    assert len(list(store.damaged())) == 2, "both are kept, under names of their own"
    HARMS[harm](path)
    listed, aside = list(store.artifacts()), len(list(store.damaged()))
    assert (listed == [], aside) in [(True, 3), (False, 2)], "what is listed may be damaged in its tensors alone"
    assert store.get("victim", KEY, make).facts == make().facts
    assert store.collect({digest_of(KEY)}, damaged=True) > 0 or harm == "an empty folder"
    assert list(store.damaged()) == [] and store.find("victim", KEY) is not None


def test_an_artifact_in_the_place_of_another_is_set_aside(tmp_path, caplog):
    store, other = Store(tmp_path), {"other": 1}
    store.get("victim", KEY, make)
    shutil.copytree(store.path("victim", KEY), store.path("victim", other))
    shutil.copytree(tmp_path / "victim", tmp_path / "prior", ignore=shutil.ignore_patterns("*.lock"))
    assert [one.digest for one in store.artifacts()] == [digest_of(KEY)] and len(list(store.damaged())) == 3
    assert store.get("victim", other, lambda: make(2.0)).tensors["w"][0] == 2


def test_an_artifact_of_an_earlier_version_is_read(tmp_path, caplog):
    store = Store(tmp_path)
    store.get("victim", KEY, make)
    as_before(store.path("victim", KEY))
    found = store.get("victim", KEY, lambda: pytest.fail("built again"))
    assert found.facts == make().facts and torch.equal(found.tensors["w"], torch.ones(3)) and not caplog.text
    assert [one.key for one in store.artifacts()] == [KEY]


def test_an_artifact_of_a_later_version_is_left_alone(tmp_path):
    from mibench.storage.manifest import checksum_of

    store = Store(tmp_path)
    store.get("victim", KEY, make)
    file = store.path("victim", KEY) / "manifest.json"
    manifest = json.loads(file.read_text()) | {"form": 3}
    file.write_text(json.dumps(manifest | {"checksum": checksum_of(manifest)}))
    with pytest.raises(StoreError, match="a later version of mibench wrote"):
        store.get("victim", KEY, make)
    assert list(store.artifacts()) == [] and file.exists()


def test_keys_and_facts_come_back_as_they_were_read_first(tmp_path):
    """Numbers as keys of mappings, tuples, no number at all: what a manifest cannot hold is no damage."""
    store, key = Store(tmp_path), {"a": {10: (1, 2), 9: float("nan")}}
    store.get("victim", key, lambda: Payload({}, {"b": {10: 1, 9: (2.5, float("inf"))}}))
    found = store.get("victim", key, lambda: pytest.fail("built again"))
    assert found.facts == {"b": {"10": 1, "9": [2.5, float("inf")]}} and len(list(store.artifacts())) == 1


def test_files_and_folders_are_flushed_before_they_get_their_name(tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    monkeypatch.setattr(os, "rename", lambda one, other: (done.append((str(one), str(other))), rename(one, other)))
    Store(tmp_path).get("victim", KEY, make)
    path = str(Store(tmp_path).path("victim", KEY))
    temporary = done[-2][0]
    files = [f"{temporary}/{name}" for name in ("tensors.safetensors", "manifest.json")]
    assert done == [*files, temporary, (temporary, path), str(tmp_path / "victim")]


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


def test_collect_takes_the_kinds_that_it_is_told(tmp_path):
    store = Store(tmp_path)
    store.get("victim", KEY, make)
    store.get("prior", {"other": 1}, make)
    assert store.collect(set(), kinds={"prior"}) > 0
    assert [one.kind for one in store.artifacts()] == ["victim"]


def test_collect_leaves_alone_what_is_read_locked_or_written(tmp_path):
    store = Store(tmp_path)
    store.get("victim", KEY, make)
    path = store.path("victim", KEY)
    being_written = path.with_name(f".tmp-{path.name}-1-abc")
    of_before = [path.with_name(name) for name in (".tmp-x7_ab1cd", f".tmp-old-{path.name}-17", ".tmp-old")]
    for folder in (being_written, *of_before):
        folder.mkdir()
    for lock in (FileLock(f"{path}.lock"), _being_read(path)):
        with lock:
            assert store.collect(set()) == 0 and store.find("victim", KEY) is not None and being_written.exists()
    os.utime(of_before[2], (0, time.time() - STALE - 9))
    store.collect({path.name})
    assert [one for one in (being_written, *of_before) if one.exists()] == of_before[:1]
    assert store.collect(set()) > 0 and not path.exists()


def killed_in(work, operation):
    """Do ``work`` in a process that is killed before its n-th operation on a file; return whether it was."""
    child = os.fork()
    if not child:
        count = 0

        def watch(event, said):
            nonlocal count
            written = event == "open" and said[2] & (os.O_WRONLY | os.O_RDWR)
            if written or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"):
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

        with contextlib.suppress(BaseException):
            sys.addaudithook(watch)
            work()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


def every_kill(template, folder, work):
    """Yield a copy of a store for every operation before which a process that does ``work`` to it was killed."""
    for operation in range(1, 200):
        store = Store(folder / str(operation))
        shutil.copytree(template, store.root)
        if not killed_in(lambda store=store: work(store), operation):
            assert operation > 5, "nothing was killed"
            return
        yield store
    pytest.fail("it has no end")


def test_a_kill_anywhere_in_collect_loses_nothing(tmp_path, caplog):
    made = Store(tmp_path / "template")
    for kind in ("victim", "prior"):
        made.get(kind, KEY, make)
    (made.root / "prior" / f".tmp-{digest_of(KEY)}-1-abc").mkdir()
    made.unfinished_path("prior", {"b": 1}).write_bytes(b"half")
    for store in every_kill(made.root, tmp_path, lambda store: store.collect(set(), kinds={"prior"})):
        assert store.find("victim", KEY).facts == make().facts
        kinds = [one.kind for one in store.artifacts()]
        assert kinds in (["prior", "victim"], ["victim"]) and (store.find("prior", KEY) is not None) == (
            len(kinds) == 2
        )
        store.collect(set(), kinds={"prior"})
        left = [one.name for one in store.root.rglob("*") if one.suffix != ".lock"]
        assert sorted(left) == sorted(["victim", "prior", digest_of(KEY), "manifest.json", "tensors.safetensors"])
    assert "damaged" not in caplog.text


def test_a_kill_anywhere_in_a_replacement_leaves_the_old_or_the_new(tmp_path, caplog):
    made = Store(tmp_path / "template")
    made.get("victim", KEY, make)
    found = []
    for store in every_kill(made.root, tmp_path, lambda one: one.get("victim", KEY, lambda: make(2.0), rebuild=True)):
        assert len(list(store.artifacts())) == 1
        found.append(store.get("victim", KEY, lambda: pytest.fail("lost")).tensors["w"][0].item())
        assert store.get("victim", KEY, lambda: make(3.0), rebuild=True).tensors["w"][0] == 3
        store.collect({digest_of(KEY)})
        assert len(list((store.root / "victim").iterdir())) == 2, "the artifact and its lock"
    assert set(found) == {1.0, 2.0} and "damaged" not in caplog.text


def _uses(root, seed, told):
    """Build, replace, look for, list and delete at random, and write down what goes wrong."""
    draws, store = random.Random(seed), Store(root)
    while True:
        key = {"number": draws.randrange(3)}
        try:
            roll = draws.random()
            if roll < 0.7:
                found = store.get("victim", key, lambda key=key: make(key["number"]), rebuild=roll < 0.2)
                assert found.tensors["w"][0] == key["number"] and found.facts == make().facts
            elif roll < 0.85:
                list(store.artifacts())
            else:
                store.collect(set(), kinds={"victim"})
        except BaseException as error:
            told.write_text(repr(error))


def test_processes_that_use_a_store_at_once_and_are_killed_disturb_nobody(tmp_path):
    """Twenty kills of four processes, after random times."""
    draws, told = random.Random(0), tmp_path / "told"
    context = multiprocessing.get_context("fork")
    workers = []
    for number in range(24):
        workers.append(context.Process(target=_uses, args=(tmp_path / "store", number, told)))
        workers[-1].start()
        if number >= 4:
            time.sleep(0.05 * draws.random())
            workers.pop(draws.randrange(4)).kill()
    for worker in workers:
        worker.kill()
        worker.join(10)
    store = Store(tmp_path / "store")
    assert not told.exists(), told.read_text()
    assert list(store.damaged()) == []
    for one in list(store.artifacts()):
        assert store.find(one.kind, one.key).tensors["w"][0] == one.key["number"]
    store.collect(set())
    assert {path.suffix for path in (store.root / "victim").iterdir()} == {".lock"}


def test_a_write_that_breaks_leaves_what_was_there(tmp_path, monkeypatch):
    store, rename = Store(tmp_path), os.rename
    store.get("victim", KEY, make)
    for which in (1, 2):
        count = iter(range(9))

        def breaks(one, other, count=count, which=which):
            if next(count) == which - 1:
                raise OSError(28, "No space left on device")
            rename(one, other)

        with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left on device"):
            patch.setattr(os, "rename", breaks)
            store.get("victim", KEY, lambda: make(2.0), rebuild=True)
        assert store.find("victim", KEY).tensors["w"][0] == 1
        assert len(list((tmp_path / "victim").iterdir())) == 2


@pytest.mark.parametrize("call", [FileLock.acquire, os.fsync, os.mkdir])
def test_what_the_disk_refuses_is_one_sentence(call, tmp_path, monkeypatch):
    def refuses(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(FileLock if call is FileLock.acquire else os, call.__name__, refuses)
    with pytest.raises(UserError, match=r"The store .* cannot be written \(Read-only file system\); set paths\.store"):
        Store(tmp_path).get("victim", KEY, make)


def test_the_command_lists_and_deletes_what_was_set_aside(tmp_path, capsys):
    store = Store(tmp_path)
    for kind in ("victim", "prior"):
        store.get(kind, KEY, make)
    HARMS["a cut manifest"](store.path("victim", KEY))
    assert main(["store", f"paths.store={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 3 and f"victim          {digest_of(KEY)}" in out and "set aside as damaged" in out
    assert main(["store", "collect", f"paths.store={tmp_path}"]) == 2
    assert "(there are: prior, damaged)" in capsys.readouterr().err
    assert main(["store", "collect", "kinds=damaged", f"paths.store={tmp_path}"]) == 0
    assert not list(store.damaged()) and [one.kind for one in store.artifacts()] == ["prior"]
    assert main(["store", "collect", "kinds=prior", f"paths.store={tmp_path}"]) == 0
    assert not list(store.artifacts())


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
