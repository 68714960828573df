"""Rows of small made-up cells, groups made by hand, and a browser where there is one."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil

import pytest

from mibench.leaderboard.compare import groups_in
from mibench.leaderboard.groups import COST, FACTS, RUN, Cell, Group
from mibench.leaderboard.numbers import Number
from mibench.leaderboard.page import Reproduction
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.rows import CellFacts, make_row, plan_facts
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import write_shard
from mibench.leaderboard.verdicts import judged
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
        if overrides not in plans:
            plans[overrides] = plan_cell(compose(list(overrides)))
        plan = plans[overrides]
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
    """Returns the overview inside a page."""

    def read(page):
        text = page.read_text(encoding="utf-8")
        return json.loads(text.split('<script type="application/json" id="overview-json">')[1].split("</script>")[0])

    return read


@pytest.fixture(scope="session")
def numbers_of():
    """Returns what a page loads beside its overview."""

    def read(page):
        text = (page.parent / "page" / "numbers.js").read_text(encoding="utf-8")
        return json.loads(text.removeprefix("mibench_receive(").removesuffix(");\n"))

    return read


# Groups made by hand

CONFIG = {
    "attack": {"name": "gmi", "_target_": "mibench.attacks.gmi.Gmi", "access": "white_box", "iterations": 300},
    "prior": {"name": "wgan_gp", "_target_": "mibench.priors.wgan_gp.WganGp", "iterations": 700},
    "knowledge": {"labels": False, "defense_loss": False},
    "defense": {"name": "none", "_target_": "mibench.defenses.none.NoDefense"},
    "dataset": {"name": "digits", "_target_": "mibench.datasets.digits.Digits", "size": 16},
    "setting": {"name": "central", "_target_": "mibench.settings.central.Central"},
    "target": {"name": "cnn", "_target_": "mibench.targets.cnn.Cnn"},
    "budget": {"name": "standard", "targets": 10, "samples": 8, "records": 2000},
    "evaluation": {"models": ["residual", "mlp"], "min_steps": None},
    "control": "retrain",
    "precision": "float32",
    "revisions": [1, 1, 1, 1, 1],
    "seed": 0,
}

#: Where the classes of components stand that tests name.
CLASSES = {
    "gmi": "mibench.attacks.gmi.Gmi", "kedmi": "mibench.attacks.kedmi.Kedmi", "brepmi": "mibench.attacks.brepmi.BrepMi",
    "inverting_gradients": "mibench.attacks.inverting_gradients.InvertingGradients",
    "random_prior": "mibench.attacks.random_prior.RandomPrior", "none": "mibench.defenses.none.NoDefense",
    "bido": "mibench.defenses.bido.Bido", "mid": "mibench.defenses.mid.Mid",
    "dp_sgd": "mibench.defenses.dp_sgd.DpSgd",
    "gradient_pruning": "mibench.defenses.gradient_pruning.GradientPruning",
    "rounding": "mibench.defenses.rounding.Rounding", "top_k": "mibench.defenses.top_k.TopK",
}  # fmt: skip


@pytest.fixture(scope="session")
def group():
    """Makes a group: ``group("gmi", "bido", {"defense.a1": 0.5}, lift=0.4, accuracy=0.9)``."""

    def make(
        attack="gmi", defense="none", options=None, *, lift=0.5, half=0.1, accuracy=0.9, gains=(), control=0.2,
        unit="", n=10, evidence=None, schema=None, status="ok", reason="", more=(), headline=None, task="class",
        cost=(0, 0), seeds=1, knowledge="public", **facts,
    ):  # fmt: skip
        config = copy.deepcopy(CONFIG)
        config["attack"] |= {"name": attack, "_target_": CLASSES[attack]}
        config["defense"] = {"name": defense, "_target_": CLASSES[defense]}
        for key, value in (options or {}).items():
            node = config
            *parts, last = key.split(".")
            for part in parts:
                node = node.setdefault(part, {})
            node[last] = copy.deepcopy(value)
        metric = headline or {"class": ("attack_accuracy", "top1", "vote"), "instance": ("psnr", "", "")}[task]
        scores = []
        if status == "ok":
            told = {"ci_low": control + lift - half, "ci_high": control + lift + half, "lift_low": lift - half}
            if gains:
                told |= {
                    "targets": [f"target {place}" for place in range(len(gains))],
                    "per_target": [control + one for one in gains],
                    "per_target_control": [control] * len(gains),
                }
            scores = [
                Score(metric=metric[0], variant=metric[1], evaluator=metric[2], value=control + lift, control=control,
                      lift=lift, lift_high=lift + half, n=n, higher_is_leakier=True, unit=unit, **told),
                Score(metric="target_accuracy", variant="victim", value=accuracy, ci_low=accuracy, ci_high=accuracy),
                *more,
            ]  # fmt: skip
        old = schema == 1 or (schema is None and not gains)
        if evidence is None:
            scores = judged(scores, old)
        elif scores:
            scores = [Score(**{**vars(scores[0]), "evidence": evidence}), *judged(scores[1:], old)]
        numbers = [Number(score=one, seeds=seeds, by_seed={0: one} if gains else {}) for one in scores]
        known = {
            **dict.fromkeys((*FACTS, *RUN), ""), "dataset": config["dataset"]["name"], "modality": "image",
            "setting": config["setting"]["name"], "target": config["target"]["name"], "attack": attack, "task": task,
            "access": "white_box", "knowledge": knowledge, "defense": defense, "budget": config["budget"]["name"],
            "schema_version": "1" if old else "2", "convergence": "converged", **facts,
        }  # fmt: skip
        text = json.dumps(config, sort_keys=True)
        name = f"{abs(hash_of(text + json.dumps(known, sort_keys=True))):016x}"[:16]
        return Group(
            group_id=name,
            facts=known,
            cost={**dict.fromkeys((*COST, "training_times"), float("nan")), "queries": cost[0],
                  "gradient_evals": cost[1]},
            cells=[Cell(cell_id=f"{name[:12]}{seed:04x}", seed=seed, status=status, reason=reason)
                   for seed in range(seeds)],
            numbers=numbers,
            config_json=text,
        )  # fmt: skip

    return make


def hash_of(text):
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def made_of(groups):
    """Reproductions whose options are those of the defenses, but for names."""
    return {
        one.group_id: Reproduction(
            f"python -m mibench attack={one.facts['attack']}",
            tuple(f"defense.{key}={json.dumps(value)}" for key, value in one.config["defense"].items()
                  if key not in ("name", "_target_")),
        )
        for one in groups
    }  # fmt: skip


@pytest.fixture(scope="session")
def sources():
    """Makes the sources of a page of groups."""

    def make(*groups, **more):
        return Sources(groups=groups, made=made_of(groups), **more)

    return make


def expanded(column):
    """Return a column as a list, as the page's script does."""
    if not isinstance(column, dict):
        return column
    words = column.get("d")
    if "l" in column:
        return [[words[place] for place in row] for row in column["l"]]
    if "r" in column:
        runs = column["r"]
        codes = [value for value, times in zip(runs[::2], runs[1::2], strict=True) for _ in range(times)]
    else:
        codes = column["c"]
    return codes if words is None else [words[place] for place in codes]


@pytest.fixture(scope="session")
def expand():
    """Reads a column back."""
    return expanded
