"""The wheel carries conf/ and the embedded data, and works outside the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_wheel_works_outside_the_checkout(tmp_path):
    copy = tmp_path / "copy"
    for name in ("mibench", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    here = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert {path.relative_to(site / "mibench" / "conf") for path in (site / "mibench" / "conf").rglob("*.yaml")} == here
    assert {p.name for p in (ROOT / "mibench").rglob("*.py")} <= {p.name for p in (site / "mibench").rglob("*.py")}
    code = "import mibench; print(mibench.__file__); from mibench.cli.main import main; raise SystemExit(main())"
    words = ["attack=mi_face", "budget=smoke", "attack.iterations=2", "target.recipe.epochs=1"]
    for arguments in (["list", "attacks"], words):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(site)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.startswith(str(site))
    assert list((tmp_path / "results" / "shards").glob("*.parquet")), "relative folders lie where the command ran"
