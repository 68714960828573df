"""Which truth tests a change reaches, on a small checkout made here."""

import subprocess
from pathlib import Path

import pytest
import reach

FILES = {
    "mibench/__init__.py": "",
    "mibench/core.py": "",
    "mibench/attacks/__init__.py": "",
    "mibench/attacks/base.py": "from mibench.core import *",
    "mibench/attacks/families/__init__.py": "",
    "mibench/attacks/families/search.py": "from mibench.attacks.base import *",
    "mibench/attacks/one.py": "from mibench.attacks.families.search import Search",
    "mibench/attacks/two.py": "def late():\n    from ..attacks.families import search",
    "mibench/attacks/three.py": "from mibench.attacks.base import Attack",
    "mibench/attacks/four.py": "from mibench.attacks.base import Attack",
    "mibench/priors/__init__.py": "",
    "mibench/priors/gan.py": "import mibench.core",
    "conf/cell.yaml": "defaults:\n  - prior: none\n",
    "conf/prior/gan.yaml": "name: gan\n_target_: mibench.priors.gan.Gan\n",
    "conf/attack/one.yaml": "defaults:\n  - override /prior@_global_.prior: gan\n_target_: mibench.attacks.one.One\n",
    "conf/attack/two.yaml": "name: two\n_target_: mibench.attacks.two.Two\n",
    "conf/attack/three.yaml": "name: three\n_target_: mibench.attacks.three.Three\n",
    "conf/attack/four.yaml": "name: four\n_target_: mibench.attacks.four.Four\n",
    "conf/calibration/cnn__two.yaml": "lr: 1\n",
    "tests/conftest.py": "from mibench.core import *",
    "tests/attacks/conftest.py": "",
    "tests/attacks/test_one.py": "from mibench.attacks.one import One",
    "tests/attacks/test_two.py": "from mibench.attacks.two import Two",
    "tests/attacks/test_three.py": "'''Beside one.'''\nfrom mibench.attacks.three import Three\nwords = 'attack=two'",
    "tests/attacks/test_four.py": "@parametrize('name', ['five'])\ndef test(name): make_cell(f'attack={name}').run()",
    "conf/attack/five.yaml": "name: five\n_target_: mibench.attacks.five.Five\n",
    "mibench/attacks/five.py": "",
    "conf/metric/psnr.yaml": "name: psnr\n_target_: mibench.metrics.psnr.Psnr\n",
    "mibench/metrics/__init__.py": "",
    "mibench/metrics/psnr.py": "",
    "tests/attacks/test_contract.py": "",
    "tests/test_core.py": "",
    "docs/page.md": "",
    "mibench/leaderboard/page/assets/page.js": "",
    "mibench/data/names.csv": "",
}
ALL = {f"tests/attacks/test_{name}.py" for name in ("one", "two", "three", "four")}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of two commits, the second of which changed a page."""
    monkeypatch.delenv("BASE", raising=False)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    git(tmp_path, "init", "-q", "-b", "main")
    commit(tmp_path)
    edit(tmp_path, "docs/page.md")
    commit(tmp_path)
    return tmp_path


def git(root, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)


def commit(root):
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "a step")


def edit(root, name):
    with (root / name).open("a") as file:
        file.write("\n# edited\n")


def run(root):
    return ALL - set(reach.left_out(root)[1])


@pytest.mark.parametrize(
    ("file", "reached"),
    [
        ("docs/page.md", ""),
        ("mibench/leaderboard/page/assets/page.js", ""),
        ("mibench/data/names.csv", "one two three four"),
        ("mibench/attacks/one.py", "one"),
        ("mibench/attacks/five.py", "four"),
        ("mibench/metrics/psnr.py", "four"),
        ("mibench/attacks/two.py", "two three"),
        ("mibench/attacks/families/search.py", "one two three"),
        ("mibench/attacks/base.py", "one two three four"),
        ("mibench/core.py", "one two three four"),
        ("mibench/priors/gan.py", "one"),
        ("conf/attack/one.yaml", "one"),
        ("conf/attack/two.yaml", "two three"),
        ("conf/prior/gan.yaml", "one"),
        ("conf/calibration/cnn__two.yaml", "two three"),
        ("conf/cell.yaml", "one two three four"),
        ("tests/attacks/test_two.py", "two"),
        ("tests/attacks/conftest.py", "one two three four"),
        ("tests/conftest.py", "one two three four"),
    ],
)
def test_an_edit_reaches_what_stands_on_it(file, reached, checkout):
    edit(checkout, file)
    assert {Path(test).stem.removeprefix("test_") for test in run(checkout)} == set(reached.split())
    commit(checkout)
    assert {Path(test).stem.removeprefix("test_") for test in run(checkout)} == set(reached.split()), "committed too"


def test_a_new_file_and_a_removed_one_are_changes(checkout):
    (checkout / "mibench" / "attacks" / "one.py").unlink()
    assert run(checkout) == {"tests/attacks/test_one.py"}


def test_the_base_may_be_said_and_is_the_remotes_main_otherwise(checkout, monkeypatch):
    first = reach.git(checkout, "rev-parse", "HEAD~1")
    edit(checkout, "mibench/attacks/three.py")
    commit(checkout)
    git(checkout, "update-ref", "refs/remotes/origin/main", first)
    assert reach.base_of(checkout) == first and run(checkout) == {"tests/attacks/test_three.py"}
    git(checkout, "update-ref", "refs/remotes/origin/main", "HEAD")
    assert reach.base_of(checkout) == reach.git(checkout, "rev-parse", "HEAD~1"), "a clean main: its first parent"
    edit(checkout, "docs/page.md")
    assert reach.base_of(checkout) == reach.git(checkout, "rev-parse", "HEAD") and not run(checkout)
    monkeypatch.setenv("BASE", first)
    assert run(checkout) == {"tests/attacks/test_three.py"}


def test_a_base_that_is_no_commit_is_refused(checkout, monkeypatch):
    monkeypatch.setenv("BASE", "nowhere")
    with pytest.raises(pytest.UsageError, match="BASE=nowhere is no commit"):
        reach.left_out(checkout)


def test_without_git_or_a_parent_all_run(tmp_path, checkout):
    git(checkout, "checkout", "-q", "--orphan", "alone")
    commit(checkout)
    assert reach.left_out(checkout) == ("", [])
    for path in (checkout / ".git").rglob("*"):
        path.chmod(0o700)
    subprocess.run(["rm", "-rf", str(checkout / ".git")], check=True)
    assert reach.left_out(checkout) == ("", [])


def test_contract_and_core_tests_are_never_left_out(checkout):
    assert set(reach.Tree(checkout).truth_tests()) == ALL
