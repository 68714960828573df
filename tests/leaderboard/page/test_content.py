"""A whole page of made-up cells: what stands where, the same bytes every time, and nothing that ends a script."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mibench.leaderboard.build import build, write_study
from mibench.leaderboard.page import Reproduction
from mibench.leaderboard.page.details import details
from mibench.leaderboard.page.names import as_text
from mibench.leaderboard.page.overview import overview
from mibench.leaderboard.page.write import filled
from mibench.leaderboard.scoring import Score

CLAIM = """statement: BiDO lowers what GMI gets </script>.
kind: difference
left: {dataset: digits, attack: gmi, defense: none}
right: {dataset: digits, attack: gmi, defense: bido}
by: defense
least: {targets: 6, seeds: 2}
"""

#: Builds the pages of the folder that is its argument.
BUILD = """
import sys
from pathlib import Path
from mibench.leaderboard.build import build
from mibench.leaderboard.page import Reproduction
build(Path(sys.argv[1]), lambda config: Reproduction(f"python -m mibench attack={config['attack']['name']}"))
assert "torch" not in sys.modules, "its import takes longer than the page"
"""


def around(lift):
    """Lifts of six targets with that mean."""
    return [lift + step / 100 for step in (-2, -1, 0, 0, 1, 2)]


def command(config):
    return Reproduction(f"python -m mibench attack={config['attack']['name']} dataset={config['dataset']['name']}")


GUARANTEE = [
    Score(metric=name, variant="accountant=prv, neighbours=add or remove, unit=example", value=value, n=1, samples=1)
    for name, value in (("epsilon", 8.0), ("delta", 1e-5))
]


@pytest.fixture(scope="module")
def results(tmp_path_factory, add_cell):
    """Four victims under one attack, another attack, skipped cells, faces, a claim, and a shard that is none."""
    folder = tmp_path_factory.mktemp("content") / "results"
    for defense, lift, accuracy in (("none", 0.8, 0.95), ("bido", 0.5, 0.92), ("bido_coco", 0.6, 0.85),
                                    ("dp_sgd", 0.1, 0.6)):  # fmt: skip
        for seed in (0, 1):
            add_cell(folder, f"defense={defense}", f"seed={seed}", lift=lift, gains=around(lift), accuracy=accuracy,
                     picture=seed == 0, more=GUARANTEE if defense == "dp_sgd" else [],
                     notes="A note with </script> in it.")  # fmt: skip
    add_cell(folder, "attack=mi_face", lift=0.05, gains=around(0.05), accuracy=0.95)
    add_cell(folder, "attack=mi_face", "defense=bido", lift=0.02, gains=around(0.02), accuracy=0.92)
    add_cell(folder, "dataset=att_faces", lift=0.3, picture=True)
    add_cell(folder, "attack=random_prior", "defense=bido", status="skipped", reason="Vacuous: it says.")
    add_cell(folder, "attack=mi_face", "defense=rounding", status="skipped", reason="Vacuous: it sees no answer.")
    add_cell(folder, "defense=rounding", lift=0.8, gains=around(0.8), accuracy=0.95)
    write_study(folder, "first", [path.stem for path in (folder / "shards").iterdir()])
    (folder / "shards" / "odd.parquet").write_bytes(b"no parquet")
    (folder / "claims").mkdir()
    (folder / "claims" / "lowers.yaml").write_text(CLAIM)
    (folder / "claims" / "broken.yaml").write_text("statement: nothing else")
    build(folder, command)
    return folder


@pytest.fixture(scope="module")
def first(results, data_of):
    return data_of(results / "index.html")


@pytest.fixture(scope="module")
def rest(results, numbers_of):
    return numbers_of(results / "index.html")


def names_of(data, axis):
    return [one["name"] for one in data[axis]]


def test_counts_are_those_of_what_was_measured(first):
    told = first["counts"]
    assert (told["datasets"], told["attacks"], told["defenses"]) == (2, 2, 4), "random_prior was measured nowhere"
    assert told["runs"] == 12 and told["numbers"] == 8 * 2, "two numbers beside a control in each of eight groups"


def test_the_table_of_the_first_view(first, expand):
    view = first["views"][0]
    attacks, defenses = names_of(first, "attacks"), names_of(first, "defenses")
    assert [attacks[a] for a in view["attacks"]] == ["gmi", "mi_face"]
    assert [defenses[d] for d in view["defenses"]] == ["none", "dp_sgd", "bido", "bido_coco", "rounding"]
    assert view["paired"] is True and view["metric"] == "attack accuracy (vote)" and view["unit"] == ""
    lifts, levels = expand(first["groups"]["lift"]), expand(first["groups"]["level"])
    cells = {(attacks[a], defenses[d]): own for a, d, own in view["cells"]}
    assert [lifts[g] for g in cells["gmi", "bido"]] == [0.5] and [levels[g] for g in cells["gmi", "bido"]] == [""]
    assert [(attacks[a], defenses[d], word) for a, d, word, _ in view["empty"]] == [("mi_face", "rounding", "vacuous")]
    accuracy = {defenses[int(d)]: ends for d, ends in view["accuracy"].items()}
    assert accuracy["dp_sgd"] == [0.6, 0.6]


def test_rankings_words_and_losses(first):
    view, defenses = first["views"][0], names_of(first, "defenses")
    (own,) = view["rankings"].values()
    ranked = {loss: one if isinstance(one, dict) else own[one] for loss, one in own.items()}
    named = {
        loss: [defenses[first["groups"]["defense"][row[0]]] for row in one["rows"]] for loss, one in ranked.items()
    }
    assert named == {"2": ["rounding"], "5": ["bido", "rounding"], "10": ["bido", "bido_coco", "rounding"],
                     "100": ["dp_sgd", "bido", "bido_coco", "rounding"]}  # fmt: skip
    assert [defenses[d] for d in ranked["5"]["outside"]] == ["dp_sgd", "bido_coco"]
    _, best, last, difference, low, high, word = ranked["100"]["rows"][0]
    assert (best, last, difference, word) == (1, 1, -0.7, "less") and low <= -0.7 <= high


def test_columns_of_groups_agree_in_length_and_name_what_is_there(first, rest, expand):
    columns = {name: expand(column) for name, column in first["groups"].items()}
    (count,) = {len(column) for column in columns.values()}
    for axis in ("attack", "defense", "dataset"):
        assert max(columns[axis]) < len(first[f"{axis}s"])
    assert max(columns["view"]) < len(first["views"]) and max(columns["verdict"]) < len(first["verdicts"])
    further = {name: expand(column) for name, column in rest["groups"].items() if name != "config"}
    assert {len(column) for column in further.values()} == {count}
    assert {len(expand(column)) for column in rest["groups"]["config"].values()} == {count}
    numbers = {name: expand(column) for name, column in rest["numbers"].items()}
    assert len({len(column) for column in numbers.values()}) == 1
    assert max(numbers["group"]) < count and max(numbers["metric"]) < len(rest["metrics"])
    assert rest["rows"] == first["rows"] and len(first["rows"]) == 12


def test_a_number_is_the_same_in_both_files(first, rest, expand):
    headline = [one["name"] for one in rest["metrics"]].index("attack accuracy top1 (vote)")
    numbers = {name: expand(column) for name, column in rest["numbers"].items()}
    for row, (group, metric) in enumerate(zip(numbers["group"], numbers["metric"], strict=True)):
        if metric == headline:
            for name in ("value", "low", "high", "control", "lift", "liftLow", "liftHigh", "verdict"):
                assert numbers[name][row] == expand(first["groups"][name])[group]


def test_what_a_group_page_says(first, rest, expand):
    defenses = names_of(first, "defenses")
    place = [defenses[d] for d in expand(first["groups"]["defense"])].index("dp_sgd")
    groups = {name: expand(column) for name, column in rest["groups"].items() if name != "config"}
    assert as_text(groups["claim"][place]).startswith("With DP-SGD, GMI ")
    assert groups["guarantee"][place] == (
        "epsilon 8, delta 1e-05; of one example; neighbours: add or remove; accountant: prv"
    )
    assert sum(map(bool, groups["guarantee"])) == 1
    assert " ".join(groups["command"][place]) == "python -m mibench attack=gmi dataset=digits"
    assert [rest["texts"][note] for note in groups["notes"][place]] == ["A note with </script> in it."]
    assert [(seed, status) for _, seed, status, _ in groups["cells"][place]] == [(0, "ok"), (1, "ok")]
    attack = json.loads(rest["texts"][expand(rest["groups"]["config"]["attack"])[place]])
    assert attack["name"] == "gmi" and groups["defenseFidelity"][place] == "official"
    assert groups["knows"][place] == "public data"


def test_claims_have_their_verdict_and_a_file_that_is_none_is_set_aside(first, rest, expand):
    (claim,) = rest["claims"]
    assert (claim["id"], claim["verdict"], claim["unit"]) == ("lowers", "holds", "")
    assert claim["effect"] == pytest.approx(0.3) and claim["shown"].startswith("+0.3")
    defenses = names_of(first, "defenses")
    assert [defenses[expand(first["groups"]["defense"])[g]] for g in claim["groups"]] == ["none", "bido"]
    assert any(name == "claims/broken.yaml" and "no claim" in reason for name, reason in rest["setAside"])
    assert not any("odd.parquet" in name for name, _ in rest["setAside"])


def test_the_local_page_tells_what_it_set_aside(results, numbers_of, data_of):
    local = results / "local" / "index.html"
    assert data_of(local)["local"] is True
    assert any("odd.parquet" in name for name, _ in numbers_of(local)["setAside"])


def test_no_picture_of_faces_is_committed_and_the_local_page_has_it(results, first, rest, data_of, numbers_of, expand):
    def by_dataset(overview, details):
        own, names = expand(details["groups"]["picture"]), names_of(overview, "datasets")
        why = expand(details["groups"]["pictureWhy"])
        places = expand(overview["groups"]["dataset"])
        return {name: [(own[g], why[g]) for g, place in enumerate(places) if names[place] == name] for name in names}

    public = by_dataset(first, rest)
    assert any(picture.startswith("data:image/png;base64,") for picture, _ in public["digits"])
    assert public["att_faces"] == [("", "the terms of AT&T faces allow no public pictures")]
    local = results / "local" / "index.html"
    ((faces, why),) = by_dataset(data_of(local), numbers_of(local))["att_faces"]
    assert (results / "local" / faces).resolve().exists() and why == ""
    assert not (results / "studies" / "first" / f"{re.sub('.*/|.png', '', faces)}.png").exists()


def test_a_picture_that_slipped_into_a_study_is_not_shown(results, first, rest, numbers_of, expand, tmp_path):
    copy = tmp_path / "results"
    shutil.copytree(results / "studies", copy / "studies")
    names = names_of(first, "datasets")
    (place,) = [g for g, d in enumerate(expand(first["groups"]["dataset"])) if names[d] == "att_faces"]
    cell = expand(rest["groups"]["cells"])[place][0][0]
    shutil.copy(results / "pictures" / f"{cell}.png", copy / "studies" / "first" / f"{cell}.png")
    shutil.copy(results / "pictures" / f"{cell}.png", copy / "studies" / "first" / f"{cell}.tiles.png")
    build(copy, command)
    assert expand(numbers_of(copy / "index.html")["groups"]["picture"])[place] == ""


def test_no_text_ends_the_script(results):
    text = (results / "index.html").read_text()
    for name in ("index.html", "page/numbers.js"):
        assert "A note with </script>" not in (results / name).read_text()
    assert text.count("</script>") == 2 and "</script> in it" not in (results / "page" / "numbers.js").read_text()


def test_data_that_hold_a_place_of_the_page_fill_nothing(first):
    odd = {**first, "version": "/*script*/ <!--noscript--> /*style*/"}
    text = filled(odd, "<table>TABLE</table>")
    assert text.count("<table>TABLE</table>") == 1
    held = text.split('id="overview-json">')[1].split("</script>")[0]
    assert json.loads(held)["version"] == odd["version"]


def test_without_a_script_the_first_view_is_a_table(results):
    text = (results / "index.html").read_text().split("<noscript>")[1].split("</noscript>")[0]
    assert "<caption>" in text and 'scope="col">DP-SGD</th>' in text and 'scope="row">GMI</th>' in text
    assert "+0.1" in text and "vacuous" in text


def test_the_page_asks_for_nothing_from_elsewhere(results):
    text = (results / "index.html").read_text()
    assert (
        not re.search(r"(src=|<link[^>]*href=)\"(https?:)?//", text) and "fetch(" not in text and "import(" not in text
    )


def test_the_same_rows_give_the_same_bytes_whatever_strings_hash_to(results, tmp_path):
    files = ("index.html", "page/numbers.js", "leaderboard.parquet", "README.md")
    made = []
    for seed in ("1", "2"):
        copy = tmp_path / seed
        shutil.copytree(results / "studies", copy / "studies")
        shutil.copytree(results / "claims", copy / "claims")
        subprocess.run([sys.executable, "-c", BUILD, str(copy)], env={**os.environ, "PYTHONHASHSEED": seed}, check=True)
        made.append([(copy / name).read_bytes() for name in files])
    assert made[0] == made[1]
    assert not re.search(rb"20\d\d-\d\d-\d\dT", made[0][0] + made[0][1]), "no date"
    assert str(tmp_path).encode() not in made[0][0] + made[0][1], "no path"


def test_the_table_of_rows_says_what_may_be_compared(results, first):
    frame = pd.read_parquet(results / "leaderboard.parquet")
    own = frame[(frame["dataset"] == "digits") & (frame["attack"] == "gmi")]
    assert own["view_id"].nunique() == 1 and own["view_id"].iloc[0] == first["views"][0]["id"]
    assert own["view_id"].iloc[0] not in set(frame[frame["dataset"] == "att_faces"]["view_id"])
    assert set(frame[frame["attack"] == "random_prior"]["is_floor"]) == {True} and not own["is_floor"].any()
    assert frame.groupby("dataset", observed=True)["may_show"].all().to_dict() == {"digits": True, "att_faces": False}
    assert set(own["attack_title"]) == {"GMI"} and set(own["attack_bib"]) == {"gmi"}
    assert set(own[own["defense"] == "bido"]["defense_fidelity"]) == {"official"}
    assert set(frame[frame["defense"] == "none"]["defense_title"]) == {"no defense"} and not own["adaptive"].any()


def test_twenty_thousand_numbers_take_seconds_and_stay_small(group, sources):
    draws = np.random.default_rng(0)
    attacks = ("gmi", "kedmi", "brepmi", "inverting_gradients")
    defenses = ("none", "bido", "mid", "dp_sgd", "gradient_pruning", "rounding", "top_k")
    one = group(more=[Score(metric="knn_distance", evaluator=f"model {place}", value=place) for place in range(18)])
    groups = []
    for number in range(1000):
        attack, defense = attacks[number % 4], defenses[number // 4 % 7]
        options = {"budget.samples": number // 280, "attack.iterations": number}
        made = group(attack, defense, options, lift=draws.uniform(0, 0.8))
        groups.append(replace(made, numbers=[*made.numbers, *one.numbers[2:]]))
    own = sources(*groups)
    started = time.process_time()
    shown, further = overview(own), details(own)
    taken = time.process_time() - started
    assert sum(len(one.numbers) for one in groups) == 20_000 and taken < 6
    assert len(json.dumps(shown)) < 600_000 and len(json.dumps(further)) < 2_000_000
