"""Rows of small made-up cells, and a browser where there is one."""

from __future__ import annotations

import json
import shutil

import pytest

from mibench.leaderboard.compare import groups_in
from mibench.leaderboard.rows import CellFacts, make_row, plan_facts
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import write_shard
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--window-size=1200,1000",
)  # fmt: skip


@pytest.fixture(scope="session")
def add_cell():
    """Writes one shard: ``add_cell(results, "attack=gmi", lift=0.5)``; returns its plan."""
    plans = {}

    def add(
        results, *overrides, lift=0.5, accuracy=0.9, status="ok", reason="", picture=False, gains=(), more=(), **told
    ):
        plan = plans.setdefault(overrides, plan_cell(compose(list(overrides))))
        facts = {**plan_facts(plan), "created_at": "2026-01-01T00:00:00+00:00", **told}
        modality = plan.cards.dataset.modalities[0]
        cell = CellFacts(cell_id=plan.cell_id, group_id=plan.group_id, knowledge="public", modality=modality, **facts)
        value = {"control": 0.2, "value": 0.2 + lift, "ci_low": 0.1 + lift, "ci_high": 0.3 + lift, "lift": lift}
        value |= {"lift_low": lift - 0.1, "lift_high": lift + 0.1, "n": 40, "higher_is_leakier": True}
        value |= {
            "targets": [f"person {place}" for place in range(len(gains))],
            "per_target": [0.2 + gain for gain in gains],
            "per_target_control": [0.2] * len(gains),
        }
        scores = [
            Score(metric="target_accuracy", variant="victim", value=accuracy, ci_low=accuracy, ci_high=accuracy, n=100),
            Score(metric="attack_accuracy", variant="top1", evaluator="vote", **value),
            Score(metric="attack_accuracy", variant="top1", evaluator="mlp", **value),
            Score(metric="attack_accuracy", variant="top5", status="skipped", reason="Top-5 of five </script> classes"),
            *more,
        ]
        if status != "ok":
            scores = [Score(metric="", status=status, reason=reason)]
        write_shard(results, plan.cell_id, [make_row(cell, one) for one in scores])
        if picture:
            from PIL import Image

            (results / "pictures").mkdir(exist_ok=True)
            Image.new("RGB", (800, 600), (40, 90, 160)).save(results / "pictures" / f"{plan.cell_id}.png")
        return plan

    return add


@pytest.fixture(scope="session")
def six(tmp_path_factory, add_cell):
    """The groups of two attacks by three defenses, which tests read and do not change."""
    folder = tmp_path_factory.mktemp("six")
    for attack, base in (("gmi", 0.4), ("mi_face", 0.1)):
        for defense, less in (("none", 0.0), ("bido", 0.05), ("dp_sgd", 0.2)):
            add_cell(folder, f"attack={attack}", f"defense={defense}", lift=base - less)
    return groups_in(folder)


@pytest.fixture(scope="session")
def open_page(tmp_path_factory):
    """Opens a page from ``file://`` in headless Chromium and returns the driver."""
    selenium = pytest.importorskip("selenium")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not browser or not chromedriver:
        pytest.skip("chromium and chromedriver are not installed")
    del selenium
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))

    def open_at(path, fragment=""):
        driver.get("about:blank")
        driver.get(f"{path.resolve().as_uri()}{fragment}")
        return driver

    yield open_at
    driver.quit()


@pytest.fixture(scope="session")
def data_of():
    """Returns the data inside a page."""

    def read(page):
        text = page.read_text(encoding="utf-8")
        return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])

    return read
