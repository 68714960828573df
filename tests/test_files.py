"""A file appears whole or not at all, and a folder that cannot be written is said in one sentence."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mibench.errors import UserError, outside
from mibench.files import refuse_unwritable, remove_leftovers, write_bytes, write_text, written_safely
from mibench.planning.choices import quoted
from mibench.planning.composition import compose_paths, default_results

FULL = OSError(errno.ENOSPC, "No space left on device")


def failing(error):
    def fail(*_arguments, **_named):
        raise error

    return fail


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_what_stood_there_stays_and_nothing_else_is_left(tmp_path, monkeypatch, broken, error):
    file = tmp_path / "rows"
    write_text(file, "before")
    monkeypatch.setattr(os, broken, failing(error))
    with pytest.raises(type(error)):
        write_bytes(file, b"after")
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


def test_a_file_is_flushed_before_it_is_renamed_and_its_name_after(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda one: (done.append("flush"), fsync(one))[1])
    monkeypatch.setattr(os, "replace", lambda *both: (done.append("rename"), replace(*both))[1])
    write_text(tmp_path / "new" / "rows", "é")
    assert done == ["flush", "rename", "flush"] and (tmp_path / "new" / "rows").read_bytes() == "é".encode()


def test_a_block_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="cut"), written_safely(tmp_path / "rows") as temporary:
        temporary.write_text("half")
        raise ValueError("cut")
    assert not list(tmp_path.iterdir())


def test_a_link_to_nothing_is_replaced_by_the_file(tmp_path):
    (tmp_path / "rows").symlink_to(tmp_path / "gone" / "rows")
    write_text(tmp_path / "rows", "here")
    assert (tmp_path / "rows").read_text() == "here" and not (tmp_path / "rows").is_symlink()


def test_what_killed_processes_left_is_removed(tmp_path):
    for name in (".tmp-a.png-17-ab12cd", ".tmp-ab.png-17-ab12cd", "a.png"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a.png")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".tmp-ab.png-17-ab12cd", "a.png"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FULL, r"\(No space left on device\); free some space, or set paths\.store"),
        (OSError(errno.EROFS, "Read-only file system"), r"\(Read-only file system\); set paths\.store"),
    ],
)
def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(tmp_path, monkeypatch, error, said):
    refuse_unwritable("store", tmp_path / "made", "paths.store")
    assert not list((tmp_path / "made").iterdir())
    monkeypatch.setattr(tempfile, "TemporaryFile", failing(error))
    with pytest.raises(UserError, match=rf"The store {tmp_path} cannot be written {said}"):
        refuse_unwritable("store", tmp_path, "paths.store")


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(UserError, match="cannot be written"):
        refuse_unwritable("results folder", tmp_path / "results", "paths.results")


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "o'brien",
        '"',
        "a\\b",
        "a\\",
        "\\'",
        "\\\\'x'\\",
        "é ☃",
        "a=b,c",
        "[x]{y}",
        "${paths.data}",
        "a\\${b}",
        "",
    ],
)
def test_hydra_reads_a_quoted_text_as_that_text(text):
    value = OverridesParser.create().parse_override(f"k={quoted(text)}").value()
    assert OmegaConf.create({"k": getattr(value, "text", value)}).k == text


def test_folders_follow_the_environment(monkeypatch):
    monkeypatch.setenv("MIBENCH_RESULTS", "/there/o'brien")
    monkeypatch.setenv("MIBENCH_STORE", "/there/store")
    paths = compose_paths([])
    assert (paths.results, paths.store) == ("/there/o'brien", "/there/store")
    assert default_results() == Path("/there/o'brien")
    assert compose_paths(["paths.results=mine"]).results == "mine"


def test_a_python_outside_the_environment_is_told_how_to_enter_it():
    said = outside(ModuleNotFoundError("No module named 'hydra'", name="hydra.core"))
    assert said is not None and "cannot import hydra" in said and ".venv/bin/activate" in said
    assert outside(ModuleNotFoundError("No module named 'theirs'", name="theirs")) is None
