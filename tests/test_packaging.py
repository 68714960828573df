"""The wheel carries conf/ and the embedded data, and works outside the checkout."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

#: The extras that users choose among: the launcher that each brings, and the library behind it.
LAUNCHERS = {"joblib": ("joblib", "joblib"), "slurm": ("submitit_slurm", "submitit"), "ray": ("ray", "ray")}


def test_a_wheel_works_outside_the_checkout(tmp_path):
    copy = tmp_path / "copy"
    for name in ("mibench", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "references.bib"):
        shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    here = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert {path.relative_to(site / "mibench" / "conf") for path in (site / "mibench" / "conf").rglob("*.yaml")} == here
    for package in ("mibench", "hydra_plugins"):
        ours, theirs = ({p.relative_to(root) for p in (root / package).rglob("*.py")} for root in (ROOT, site))
        assert ours == theirs, package
    embedded = {path.name for path in (ROOT / "mibench" / "datasets").iterdir() if path.is_file()}
    assert embedded == {path.name for path in (site / "mibench" / "datasets").iterdir() if path.is_file()}
    assert (site / "mibench" / "references.bib").read_bytes() == (ROOT / "references.bib").read_bytes()
    code = "import mibench; print(mibench.__file__); from mibench.cli.main import main; raise SystemExit(main())"
    words = ["attack=mi_face", "budget=smoke", "attack.iterations=2", "dataset.size=8", "target.recipe.epochs=1",
             "target.recipe.min_steps=0", "evaluation.models=[mlp]"]  # fmt: skip
    for arguments in (["list", "attacks"], words):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(site)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.startswith(str(site))
    assert list((tmp_path / "results" / "shards").glob("*.parquet")), "relative folders lie where the command ran"


#: The extras of data and of figures; where their package is missing, one sentence says so (their own tests).
MODALITIES = {"audio", "figures", "fonts", "graph", "text"}


def test_every_extra_is_tried_here():
    assert set(EXTRAS) == {"dev", *LAUNCHERS, *MODALITIES}
    assert f"mibench[{','.join(sorted(MODALITIES))}]" in EXTRAS["dev"], "tests run with all of them"


@pytest.mark.parametrize("extra", LAUNCHERS)
def test_an_extra_alone_brings_its_launcher(extra, tmp_path):
    launcher, library = LAUNCHERS[extra]
    plugin = EXTRAS[extra][0].partition(">=")[0].replace("-", "_")
    if find_spec(library) is None or find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"needs pip install {EXTRAS[extra][0]}")
    others = [other for _, other in LAUNCHERS.values() if other != library]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others!r})); import {library}; "
        "from mibench.cli.main import main; raise SystemExit(main(sys.argv[1:]))"
    )
    words = [f"hydra/launcher={launcher}", f"paths.results={tmp_path}", "--cfg", "hydra", "-p", "hydra.launcher"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"_target_: hydra_plugins.{plugin}." in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("extra", LAUNCHERS)
def test_an_extra_alone_can_be_resolved(extra):
    words = ["install", "--dry-run", "--ignore-installed", "--quiet", "--retries", "0", "hydra-core>=1.3.2"]
    pip = [sys.executable, "-m", "pip", *words, "scikit-learn>=1.4", "pandas>=2.2", *EXTRAS[extra]]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode and "ResolutionImpossible" not in done.stderr:
        pytest.skip(f"pip reached no package index: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_installation_runs_from_any_folder(tmp_path):
    try:
        importlib.metadata.distribution("mibench")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mibench is not installed here, only on the path")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "mibench", "attack=gmi", "--cfg", "job"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "name: gmi" in done.stdout
