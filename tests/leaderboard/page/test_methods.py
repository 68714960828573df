"""What the pages of methods say is what cards, docstrings and references.bib say."""

import re

from mibench.leaderboard.page.methods import (
    bib_of,
    dataset_pages,
    equation_of,
    method_pages,
    own_entry,
    paper,
    reference_entries,
)
from mibench.planning.sources import source_of


def test_the_formula_is_the_first_one_of_the_module():
    bido = equation_of(source_of("mibench.defenses.bido"))
    assert bido.startswith(r"L = \mathrm{CE} + \sum_j") and bido.endswith(r"\right].") and "\n" not in bido
    several = equation_of(source_of("mibench.attacks.inverting_gradients"))
    assert several.startswith(r"\min_{x \in [0, 1]^n} 1 - ") and several.endswith(r"+ \alpha \, \mathrm{TV}(x)")
    assert equation_of(source_of("mibench.defenses.none")) == ""


def test_a_method_has_its_paper_its_means_and_its_extremes(group, sources):
    made = sources(
        group(lift=0.5), group("gmi", "bido", lift=0.1), group("gmi", "mid", lift=0.7),
        group("gmi", options={"budget.samples": 2}, lift=80.0, unit="dB"),
    )  # fmt: skip
    pages = method_pages(made)
    gmi, bido = pages["attack/gmi"], pages["defense/bido"]
    assert set(pages) == {"attack/gmi", "defense/bido", "defense/mid"}
    assert (gmi["best"], gmi["worst"]) == (2, 1), "decibels are no shares"
    assert "a generator trained on public data" in gmi["knows"] and bido["knows"] == "acts on training"
    assert gmi["paper"]["title"].startswith("The Secret Revealer") and gmi["paper"]["year"] == "2020"
    assert gmi["paper"]["authors"].startswith("Yuheng Zhang, Ruoxi Jia") and "{" not in gmi["paper"]["title"]
    assert gmi["code"] == "github.com/MKariya1998/GMI-Attack" and gmi["fidelity"] == "official"
    assert gmi["summary"] and not re.search(r":\w+:`|``", gmi["summary"])


def test_references_are_those_of_what_is_shown(group, sources):
    made = sources(group(), group("gmi", "bido"))
    keys = bib_of(made)
    assert keys["attack/gmi"] == "gmi" and keys["defense/bido"] == "bido" and "defense/none" not in keys
    entries = reference_entries(made)
    assert set(entries) == set(keys.values()) and entries["gmi"].startswith("@inproceedings{gmi,")
    assert entries["gmi"].count("{") == entries["gmi"].count("}") and own_entry().startswith("@software{mibench,")
    assert paper("no such key") is None


def test_a_datasets_page_has_its_terms(group, sources):
    (page,) = dataset_pages(sources(group())).values()
    assert page["mayShow"] is True and page["licence"] and page["summary"]
