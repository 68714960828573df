"""What ``scripts/gpu_check.sh`` covers, how long it may take and what it compares, without a GPU."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from mibench.planning.catalogue import entries

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import gpu_check  # noqa: E402
import smoke_cells  # noqa: E402

CELL = {"dataset": "digits", "setting": "central", "target": "cnn", "defense": "none", "variant": "", "evaluator": ""}


def number(attack, family, task, metric, value, n=4, **more):
    return CELL | {"attack": attack, "attack_family": family, "task": task, "metric": metric, "value": value, "n": n,
                   "status": "ok"} | more  # fmt: skip


ROWS = (
    number("imprint", "closed form", "instance", "psnr", 130.0),
    number("dlg", "gradient matching", "instance", "psnr", 20.0),
    number("link_stealing", "output matching", "edges", "edge_auc", 0.7, n=50),
    number("gmi", "generative", "class", "target_accuracy", 0.9, n=200),
    number("gmi", "generative", "class", "psnr", 5.0),
)


def differences(monkeypatch, other):
    frames = {"cpu": pd.DataFrame(ROWS), "cuda": pd.DataFrame(other)}
    monkeypatch.setattr(gpu_check, "rows", lambda folder: frames[folder.name])
    return gpu_check.compare(Path(), "cuda")


def changed(place, **values):
    return [row | values if at == place else row for at, row in enumerate(ROWS)]


def test_runs_that_agree_have_no_differences(monkeypatch):
    assert differences(monkeypatch, ROWS) == []


@pytest.mark.parametrize(
    ("place", "within", "beyond"),
    [(0, 41.0, 38.9), (1, 25.9, 26.1), (2, 0.98, 1.01), (3, 0.76, 0.74), (1, 20.0, float("nan"))],
)
def test_a_number_may_differ_by_its_tolerance(monkeypatch, place, within, beyond):
    assert differences(monkeypatch, changed(place, value=within)) == []
    (found,) = differences(monkeypatch, changed(place, value=beyond))
    assert ROWS[place]["attack"] in found and "apart" in found


def test_a_number_that_leads_nothing_is_not_compared(monkeypatch):
    assert differences(monkeypatch, changed(4, value=50.0)) == []


def test_a_cell_that_ends_otherwise_or_is_missing_is_named(monkeypatch):
    (failed,) = differences(monkeypatch, changed(0, status="failed"))
    assert "imprint" in failed and "ok on the CPU, failed at cuda" in failed
    (missing,) = differences(monkeypatch, ROWS[1:])
    assert "imprint" in missing and "missing at cuda" in missing


def test_smoke_cells_meet_every_attack_and_every_defense(monkeypatch, tmp_path):
    monkeypatch.setenv("MIBENCH_DATA", str(tmp_path))
    cells = [*smoke_cells.attacks(4), *smoke_cells.defenses(4)]
    said = {word for cell in gpu_check.planned("\n".join(cells)) for word in cell}
    for axis in ("attack", "defense"):
        names = {f"{axis}={one.name}" for one in entries(axis)}
        assert names - said - {"defense=none"} == set()
    assert all(len(word.split(",")) <= 4 for line in cells for word in line.split())
    assert list(smoke_cells.data(4)) == ["attack=gmi dataset=att_faces"], "of the rest there are no data"


def test_planned_cells_are_counted_once():
    assert len(gpu_check.planned("attack=a,b\nattack=a defense=none,c\nattack=a dataset=d\n")) == 4


def test_all_time_limits_together_leave_room_in_eight_minutes():
    script = (ROOT / "scripts" / "gpu_check.sh").read_text()
    side_by_side, last = map(int, re.findall(r"timeout (\d+)", script))
    assert script.count("run ") - script.count("run NAME") >= 3 and side_by_side + last <= 470
    assert all(f"run {name} " in script for name in ("cpu", "cuda", "bfloat16"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_one_sentence_says_so(capsys):
    said = "gpu_check: there is no CUDA device here, so nothing was checked.\n"
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [shutil.which("bash"), "scripts/gpu_check.sh", sys.executable]
    done = subprocess.run(command, cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert gpu_check.main(ROOT) == 1 and tuple(capsys.readouterr()) == ("", said)
