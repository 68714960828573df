"""Choices outside the tree, by the template of the documentation itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mibench.cli.main import main
from mibench.planning import catalogue
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell

ROOT = Path(__file__).parent.parent.parent
TINY = ["threads=1", "device=cpu", "dataset.size=8", "target.recipe.min_steps=0"]
FILE = re.compile(r"^`(my_methods/\S+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The documented package, importable; the process forgets it afterwards."""
    files = FILE.findall((ROOT / "docs" / "own_methods.md").read_text())
    assert len(files) == 3
    for name, content in [*files, ("my_methods/__init__.py", "")]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "my_methods" / "conf"
    catalogue.search_also([])
    for name in [name for name in sys.modules if name.startswith("my_methods")]:
        del sys.modules[name]


@pytest.mark.parametrize("said", ["--config-dir {}", "--config-dir={}", "-cd {}", "hydra.searchpath=[file://{}]"])
def test_list_and_plan_know_what_lies_outside(outside, capsys, said):
    words = said.format(outside).split()
    assert main(["list", "attacks", *words]) == 0
    assert "best_match" in capsys.readouterr().out
    assert main([*words, "plan", "grid=mine"]) == 0
    assert "6 cells: 6 to run, 0 to skip" in capsys.readouterr().out
    assert main(["plan", "grid=mine"]) == 2 and main(["list", "attacks"]) == 0
    assert "best_match" not in capsys.readouterr().out


def test_a_run_measures_it_and_another_text_of_it_is_another_cell(outside, capsys, tmp_path):
    words = ["attack=best_match", "budget=smoke", f"paths.store={tmp_path}/store", f"paths.results={tmp_path}/results"]
    words += [*TINY, "target.recipe.epochs=2", "evaluation.models=[mlp]", "evaluation.min_steps=1"]
    assert main(["--config-dir", str(outside), *words]) == 0
    assert "attack_accuracy" in capsys.readouterr().out
    (shard,) = (tmp_path / "results" / "shards").iterdir()
    assert main([f"hydra.searchpath=['{outside}']", *words]) == 0
    assert [shard] == list((tmp_path / "results" / "shards").iterdir())
    catalogue.search_also([outside])
    before = plan_cell(compose(words)).cell_id
    assert before == shard.stem
    file = outside.parent / "best_match.py"
    file.write_text(file.read_text() + "\n# another text\n")
    from mibench.planning.identity import source_digest

    source_digest.cache_clear()  # a process reads a file once
    assert plan_cell(compose(words)).cell_id != before


@pytest.mark.slow
def test_a_launchers_workers_find_it(outside, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", "--config-dir", str(outside), "grid=mine", "seed=0", "hydra/launcher=joblib", "budget=smoke"]
    words += [*TINY, "hydra.launcher.n_jobs=2", "target.recipe.epochs=1"]
    words += [f"paths.store={tmp_path}/store", f"paths.results={tmp_path}/results"]
    path = os.pathsep.join([str(outside.parent.parent), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "mibench", *words],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 measured, 0 failed" in done.stderr


def test_from_python(outside, tmp_path):
    import mibench

    frame = mibench.run(
        f"--config-dir {outside} attack=best_match budget=smoke {' '.join(TINY)} target.recipe.epochs=1 "
        "evaluation.models=[mlp] evaluation.min_steps=1 "
        f"paths.store={tmp_path}/store paths.results={tmp_path}/results"
    )
    assert set(frame["attack"]) == {"best_match"} and "ok" in set(frame["status"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--config-dir", "/nowhere"], "There is no configuration folder /nowhere"),
        (["list", "--config-dir"], "--config-dir needs a folder"),
        (["hydra.searchpath=[pkg://not_there.conf]"], "'pkg://not_there.conf' cannot be found"),
        (["hydra.searchpath=3"], "Expected a list of folders"),
        (["hydra.searchpath=[a"], "Expected a list of folders"),
    ],
)
def test_mistakes_are_one_sentence(capsys, words, said):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
