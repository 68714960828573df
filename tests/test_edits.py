"""The list of edits that tests must notice fits the methods, and a sample of it is noticed."""

import ast
import collections
import subprocess
import sys
from pathlib import Path

import pytest
from edits import KINDS, LEAST, Edit, StaleEditError, methods, read_edits

ROOT = Path(__file__).parent.parent
EDITS = read_edits(ROOT)

#: What the sample of one run is drawn by; another number tries other edits.
SEED = 1


@pytest.mark.parametrize("method", methods(ROOT))
def test_every_edit_of_a_method_fits_its_file(method):
    """A text that a change of the method has moved is told by a sentence with file and text."""
    own = [edit for edit in EDITS if edit.method == method]
    assert len(own) >= LEAST, f"tests/edits/{method}.yaml has {len(own)} edits; a method has at least {LEAST}"
    for edit in own:
        edit.applied((ROOT / edit.file).read_text())
        assert edit.kind in KINDS and edit.what, edit.name
        assert (ROOT / edit.test.partition("::")[0]).exists(), f"{edit.name}: there is no test {edit.test}"
    assert len({(edit.file, edit.find, edit.replace) for edit in own}) == len(own), f"{method} has an edit twice"


def test_no_file_of_edits_is_of_no_method():
    known = {ROOT / "tests" / "edits" / f"{method}.yaml" for method in methods(ROOT)}
    assert set((ROOT / "tests" / "edits").rglob("*.yaml")) == known


def test_there_are_three_hundred_edits_of_every_kind():
    counted = collections.Counter(edit.kind for edit in EDITS if not edit.unnoticeable)
    assert set(counted) == set(KINDS) and counted.total() >= 300


@pytest.mark.parametrize("edit", [edit for edit in EDITS if edit.unnoticeable], ids=lambda edit: edit.name)
def test_what_cannot_be_noticed_is_said_in_the_docstring(edit):
    said = ast.get_docstring(ast.parse((ROOT / edit.file).read_text())) or ""
    assert edit.unnoticeable in " ".join(said.split()), f"{edit.file} does not say: {edit.unnoticeable}"


def test_an_edit_that_does_not_fit_is_told_in_words():
    edit = Edit(
        "attacks/one", 3, "term", "no norm", "mibench/attacks/one.py", "+ norm", "", "tests/attacks/test_one.py"
    )
    assert edit.applied("loss = a + norm\n") == "loss = a \n"
    told = r"attacks/one.yaml, edit 3 \(no norm\): mibench/attacks/one.py holds the text '\+ norm' 2 times"
    with pytest.raises(StaleEditError, match=told):
        edit.applied("loss = a + norm + norm\n")
    with pytest.raises(StaleEditError, match="is no Python any more"):
        edit.applied("loss = a + normal)\n")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sample_of_the_edits_is_noticed():
    command = [sys.executable, "scripts/edits.py", "--sample", "12", "--seed", str(SEED), "--workers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3500)
    assert done.returncode == 0, done.stdout + done.stderr
