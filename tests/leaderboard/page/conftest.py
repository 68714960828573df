"""A made-up overview and its numbers, as the build gives them to the page, and a page made of them."""

from __future__ import annotations

import copy
import json
from importlib.resources import files

import pytest

MODULES = ("data.js", "format.js", "address.js", "export.js", "tables.js", "controls.js", "figure.js", "tooltip.js",
           "overview.js", "matrix.js", "ranking.js", "plane.js", "curves.js", "numbers.js", "group.js", "pages.js",
           "main.js")  # fmt: skip
DOT = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
VERDICTS = [
    {"word": "leak", "mark": "●", "tone": "leak", "meaning": "Private data."},
    {"word": "undecided", "mark": "◐", "tone": "open", "meaning": "More is needed."},
    {"word": "no evidence", "mark": "○", "tone": "calm", "meaning": "Could be chance."},
]
ATTACKS = ["gmi", "mirror", "nearest_public", "vmi", "gifd"]
DEFENSES = ["none", "bido", "dp_sgd", "mid", "rounding"]
FIELDS = ("id", "view", "dataset", "attack", "defense", "access", "level", "attackLevel", "adaptive", "strength",
          "value", "low", "high", "control", "lift", "liftLow", "liftHigh", "verdict", "confirmed", "n", "seeds",
          "queries", "gradients", "accuracy", "accuracyLow", "accuracyHigh", "status", "reason")  # fmt: skip
DETAILS = ("claim", "knows", "task", "setting", "target", "budget", "fidelity", "command", "cells", "cost", "device",
           "mibenchVersion", "commit", "notes", "guarantee", "defenseFidelity", "changed",
           "picture", "pictureWhy")  # fmt: skip


def make_group(number, view, attack, defense, lift, **told):
    """A group whose id is its number in hexadecimal."""
    half = told.pop("half", 0.1)
    verdict = 0 if lift - half > 0 else 2
    accuracy = told.pop("accuracy", 0.9)
    near = {} if accuracy is None else {"accuracyLow": accuracy - 0.04, "accuracyHigh": accuracy + 0.04}
    fixed = {"id": f"{number:016x}", "view": view, "dataset": 0, "access": "white_box", "level": "", "attackLevel": ""}
    fixed |= {"adaptive": 0, "strength": 0, "value": lift + 0.1, "low": lift, "high": lift + 0.2, "control": 0.1}
    fixed |= {"lift": lift, "liftLow": lift - half, "liftHigh": lift + half, "verdict": verdict, "confirmed": ""}
    fixed |= {"n": 40, "seeds": 3, "queries": 4000, "gradients": 2000, "accuracy": accuracy, **near}
    fixed |= {"status": "ok", "reason": "", "attack": attack, "defense": defense}
    return dict.fromkeys(("accuracyLow", "accuracyHigh")) | fixed | told


def make_content():
    """Two views: central faces under four attacks, gradients of digits under one; returns overview and numbers."""
    groups, cells = [], []

    def add(attack, defense, *lifts, view=0, **told):
        places = []
        for strength, lift in enumerate(lifts):
            level = "" if defense == 0 else f"strength {strength + 1}"
            loss = 0.02 * defense * (strength + 1)
            facts = {"level": level, "strength": strength, "accuracy": 0.9 - loss} | told
            places.append(len(groups))
            groups.append(make_group(0xABC0000000 + len(groups), view, attack, defense, lift, **facts))
        cells.append((view, [attack, defense, places]))
        return places

    (gmi,) = add(0, 0, 0.8)
    bido = add(0, 1, 0.5, 0.3)
    (dp_sgd,) = add(0, 2, 0.05)
    mid = add(0, 3, 0.7, 0.6, 0.4)
    (mirror,) = add(1, 0, 0.6, access="labels", queries=90000, gradients=0)
    add(1, 1, 0.4, 0.2, access="labels", queries=90000, gradients=0)
    (floor,) = add(2, 0, 0.55, access="scores", queries=9000, gradients=0)
    (more,) = add(3, 0, 0.75, attackLevel="steps 100", queries=1000, gradients=1000)
    (vmi,) = add(3, 0, 0.65, attackLevel="steps 10", queries=100, gradients=100)
    (gifd,) = add(4, 0, 9.0, view=1, dataset=1, access="gradients", half=2.0, accuracy=None, queries=0, gradients=500)
    (noised,) = add(4, 1, 0.2, view=1, dataset=1, access="gradients", half=1.0, accuracy=None, gradients=500)
    (coarse,) = add(4, 4, 5.0, view=1, dataset=1, access="gradients", half=6.0, accuracy=None, gradients=500)
    nothing = dict.fromkeys(("value", "low", "high", "control", "liftLow", "liftHigh", "accuracy"))
    nothing |= {"lift": None, "verdict": -1, "status": "skipped", "reason": 0}
    groups.append(make_group(0xABC00000FF, -1, 1, 4, 0.0) | nothing)

    def difference(group, base):
        gap = groups[group]["lift"] - groups[base]["lift"]
        return [round(gap, 3), round(gap - 0.2, 3), round(gap + 0.2, 3), "less" if gap + 0.2 < 0 else "undecided"]

    within = {"rows": [[bido[1], 1, 1, *difference(bido[1], gmi)], [mid[0], 2, 2, *difference(mid[0], gmi)]],
              "outside": [2]}  # fmt: skip
    everything = {"rows": [[dp_sgd, 1, 1, *difference(dp_sgd, gmi)], [bido[1], 2, 3, *difference(bido[1], gmi)],
                           [mid[2], 2, 3, *difference(mid[2], gmi)]], "outside": []}  # fmt: skip
    updates = {"rows": [[noised, 1, 1, *difference(noised, gifd)], [coarse, 2, 2, *difference(coarse, gifd)]],
               "outside": []}  # fmt: skip
    own = [[cell for view, cell in cells if view == place and cell[0] != 2 and cell[0] != 3] for place in (0, 1)]
    views = [
        {
            "id": "aaaa000001", "dataset": 0, "task": "class", "sees": "the trained model", "under": "cnn, standard",
            "metric": "attack accuracy (vote)", "unit": "", "bins": [-0.05, 0.05, 0.2, 0.4, 0.6, 0.8],
            "accesses": ["white_box", "labels"], "paired": True, "attacks": [0, 1], "defenses": [0, 2, 1, 3, 4],
            "alone": [2, 3], "cells": own[0],
            "empty": [[0, 4, "vacuous", "Changes nothing."], [1, 3, "withheld", "Gives no labels."]],
            "accuracy": {"0": [0.9, 0.9], "1": [0.86, 0.88], "2": [0.86, 0.86], "3": [0.72, 0.84]},
            "rankings": {"0": {"2": within, "5": "2", "10": "2", "100": everything}},
            "attackRanks": [[gmi, 1, 2, ""], [more, 1, 3, ""], [mirror, 2, 4, ""], [floor, 3, 4, ""]],
            "extra": [["verified", [0.25, 0.0, None, 0.125]]], "curves": [[0, [gmi]], [1, [mirror]], [2, [floor]],
                                                                           [3, [more, vmi]]],
            "front": {str(gmi): 0.9, str(bido[1]): 0.7, str(mid[0]): 0.1},
            "worst": [[1, 0.35, 0.2, 0.5, [0, 1], 0.86, "strength 2", bido[1]]],
        },
        {
            "id": "bbbb000002", "dataset": 1, "task": "instance", "sees": "client updates", "under": "cnn, batch of 1",
            "metric": "PSNR", "unit": "dB", "bins": [-1, 1, 2, 4, 7, 10], "accesses": ["gradients"], "paired": False,
            "attacks": [4], "defenses": [0, 1, 4], "alone": [], "cells": own[1], "empty": [], "accuracy": {},
            "rankings": {"4": {"2": updates, "5": "2", "10": "2", "100": "2"}}, "attackRanks": [[gifd, 1, 1, ""]],
            "extra": [], "curves": [[4, [gifd]]], "front": {}, "worst": [],
        },
    ]  # fmt: skip
    overview = {
        "version": "1.2.3", "rows": "0123456789ab", "local": False,
        "counts": {"datasets": 2, "attacks": 5, "defenses": 4, "runs": 1234, "numbers": 5678},
        "strips": [{"caption": ["Digits by ", ["GMI", "#/method/attack/gmi"]], "rows": [
            {"label": "private", "image": DOT, "alt": "private digits", "recovered": False},
            {"label": "recovered", "image": DOT, "alt": "recovered digits", "recovered": True}]}],
        "findings": [{"number": "92", "unit": "%", "text": ["of faces by ", ["GMI", "#/method/attack/gmi"], "."]}],
        "verdicts": VERDICTS, "accesses": {"white_box": "weights", "labels": "labels only", "scores": "scores"},
        "datasets": [{"name": "att_faces", "title": "AT&T faces", "mayShow": False},
                     {"name": "digits", "title": "Digits", "mayShow": True}],
        "attacks": [{"name": name, "title": name.upper(), "family": "generative", "floor": name == "nearest_public"}
                    for name in ATTACKS],
        "defenses": [{"name": name, "title": "no defense" if name == "none" else name.upper(), "hooks": "training"}
                     for name in DEFENSES],
        "views": views,
        "groups": {field: [group[field] for group in groups] for field in FIELDS},
    }  # fmt: skip
    overview["groups"]["access"] = coded(overview["groups"]["access"])
    return overview, make_numbers(groups)


def coded(values):
    """A column as a dictionary and codes."""
    words = sorted(set(values))
    return {"d": words, "c": [words.index(value) for value in values]}


def make_numbers(groups, copies=1):
    """The headline number of every measured group and ``copies`` further ones."""
    rows = []
    for place, group in enumerate(groups):
        if group["lift"] is not None:
            rows.append([place, 1 if group["view"] == 1 else 0, group])
            rows += [[place, 2, group]] * copies
    fields = ("value", "low", "high", "control", "lift", "liftLow", "liftHigh", "verdict", "n", "seeds")
    numbers = {name: [group[name] for _, _, group in rows] for name in fields}
    numbers |= {"group": [place for place, _, _ in rows], "metric": [metric for _, metric, _ in rows]}
    numbers |= {"null": [None] * len(rows), "nullName": {"r": ["", len(rows)]}}
    details = {name: [""] * len(groups) for name in DETAILS}
    details["claim"] = [["With ", ["BIDO", "#/method/defense/bido"], " it leaks."]] * len(groups)
    details["task"] = ["instance" if group["view"] == 1 else "class" for group in groups]
    words = ["python", "-m", "mibench", *(f"attack={name}" for name in ATTACKS)]
    details["command"] = {"d": words, "l": [[0, 1, 2, 3 + group["attack"]] for group in groups]}
    details["device"] = {"d": ["cpu"], "r": [0, len(groups)]}
    details["cells"] = [[[f"{place:016x}", 0, "ok", ""]] for place in range(len(groups))]
    details["cost"] = [[12.0, 30.0, 1.5, 200.0]] * len(groups)
    details["notes"] = [[1]] * len(groups)
    details["guarantee"] = ["epsilon 8 at delta 0.00001" if group["defense"] == 2 else "" for group in groups]
    details["picture"] = [DOT if group["dataset"] == 1 else "" for group in groups]
    details["pictureWhy"] = ["" if group["dataset"] == 1 else "the terms of the data" for group in groups]
    details["config"] = {"attack": [2] * len(groups)}
    metrics = [{"name": "attack accuracy (vote)", "metric": "attack_accuracy", "unit": "", "headline": True},
               {"name": "psnr", "metric": "psnr", "unit": "dB", "headline": True},
               {"name": "ssim", "metric": "ssim", "unit": "", "headline": False}]  # fmt: skip
    paper = {"key": "gmi", "title": "The Secret Revealer", "authors": "Zhang", "year": "2020", "url": "example.org/gmi"}
    return {
        "rows": "0123456789ab", "metrics": metrics, "numbers": numbers, "groups": details,
        "texts": ["Incompatible: no labels.", "A note.", '{"name":"gmi"}'],
        "methods": {"attack/gmi": {"summary": "A latent search.", "equation": "L = D + CE", "knows": "public data",
                                   "fidelity": "official", "paper": paper, "code": "github.com/x/y", "best": 0,
                                   "worst": 3}},
        "datasetPages": {"att_faces": {"summary": "Forty people.", "licence": "research", "mayShow": False}},
        "claims": [{"id": "gmi-over-mirror", "verdict": "holds", "text": "GMI beats MIRROR.", "effect": 0.2, "low": 0.1,
                    "high": 0.3, "unit": "", "n": 40, "seeds": 3, "groups": [0, 7], "reason": "", "source": "gmi"},
                   {"id": "a-test", "verdict": "not tested", "text": "Nothing.", "effect": None, "low": None,
                    "high": None, "unit": "", "n": None, "seeds": None, "groups": []}],
        "published": [{"attack": "gmi", "dataset": "celeba", "target": "vgg16", "public": "", "resolution": 64,
                       "metric": "attack_accuracy", "variant": "top1", "evaluator": "", "unit": "", "value": 0.28,
                       "std": 0.02, "source": "example.org", "source_bib": "gmi",
                       "ours": {"group": f"{0xABC0000000:016x}", "value": 0.9, "protocol": "other faces"}}],
        "setAside": [["odd.parquet", "is no shard"]],
        "bib": {"gmi": "@inproceedings{gmi,\n}", "bido": "@inproceedings{bido,\n}", "att": "@misc{att,\n}"},
        "bibOf": {"attack/gmi": "gmi", "defense/bido": "bido", "dataset/att_faces": "att"},
        "self": "@software{mibench,\n}",
    }  # fmt: skip


def write_site(folder, overview, numbers=None):
    """Write index.html and, with numbers, page/numbers.js; returns the page."""
    assets = files("mibench.leaderboard") / "page" / "assets"
    text = (assets / "page.html").read_text(encoding="utf-8")
    safe = json.dumps(overview).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    parts = {
        "/*style*/": (assets / "page.css").read_text(encoding="utf-8"),
        "/*script*/": "\n".join((assets / name).read_text(encoding="utf-8") for name in MODULES),
        "<!--counts-->": "counts",
        "<!--noscript-->": "",
        "/*overview*/": safe,
    }
    for mark, part in parts.items():
        text = text.replace(mark, part)
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(text, encoding="utf-8")
    if numbers is not None:
        (folder / "page").mkdir(exist_ok=True)
        (folder / "page" / "numbers.js").write_text(f"mibench_receive({json.dumps(numbers)});\n", encoding="utf-8")
    return page


@pytest.fixture(scope="session")
def content():
    """``content()`` returns an overview and numbers of one's own to change."""
    made = make_content()
    return lambda: copy.deepcopy(made)


@pytest.fixture(scope="session")
def write_page():
    """``write_page(folder, overview, numbers)`` writes a page and returns its path."""
    return write_site


@pytest.fixture(scope="session")
def site(tmp_path_factory, content):
    """The made-up page, written once."""
    return write_site(tmp_path_factory.mktemp("site"), *content())


@pytest.fixture(scope="session")
def many_numbers(content):
    """An overview, and 20,000 numbers of its groups."""
    overview, _ = content()
    columns = {name: column if isinstance(column, list) else [column["d"][code] for code in column["c"]]
               for name, column in overview["groups"].items()}  # fmt: skip
    groups = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    measured = sum(group["lift"] is not None for group in groups)
    return overview, make_numbers(groups, copies=20_000 // measured)


class Page:
    """What tests do with a page, and what they read of it."""

    def __init__(self, driver):
        self.driver = driver

    def run(self, script, *words):
        """Return what a piece of script returns."""
        return self.driver.execute_script(script, *words)

    def wait(self, condition, seconds=20):
        """Wait until a condition in script holds; the limit is generous, for a busy machine."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, 0.03).until(lambda driver: driver.execute_script(f"return !!({condition})"))

    def texts(self, selector):
        """The texts of all nodes, with simple spaces."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])].map(n => n.textContent.replace(/\\s+/g, ' ').trim())",
            selector,
        )

    def text(self, selector):
        """The text of the first node."""
        return self.texts(selector)[0]

    def click(self, selector):
        """Click the first node."""
        self.run("document.querySelector(arguments[0]).click()", selector)

    def choose(self, selector, value):
        """Choose in a select, or type into a field."""
        self.run(
            "const n = document.querySelector(arguments[0]); n.value = arguments[1];"
            "for (const kind of ['input', 'change']) n.dispatchEvent(new Event(kind, {bubbles: true}))",
            selector, value,
        )  # fmt: skip

    def address(self):
        """The part of the address after #."""
        return self.run("return location.hash")

    def errors(self):
        """What the browser complained of."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture
def visit(open_page):
    """``visit(page, "#/...")`` opens a page in the browser of this session."""

    def go(path, fragment=""):
        driver = open_page(path, fragment)
        driver.get_log("browser")
        return Page(driver)

    return go
