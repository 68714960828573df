import re
import time
from pathlib import Path

import pytest

from mibench.leaderboard.build import build
from mibench.leaderboard.page import Reproduction
from mibench.leaderboard.reference import COLUMNS, collect_reference, read_reference
from mibench.planning.catalogue import entries

ROOT = Path(__file__).parent.parent.parent
COMMITTED = sorted((ROOT / "results" / "reference").glob("*.csv"))

FIGURE = {
    "attack": "gmi", "dataset": "digits", "target": "cnn", "metric": "attack_accuracy", "variant": "top1",
    "value": "0.9", "std": "0.05", "source_bib": "gmi", "source": "https://example.org/paper Table 1", "read": "paper",
}  # fmt: skip


def write(folder, name="gmi", **changed):
    folder.mkdir(parents=True, exist_ok=True)
    line = {**FIGURE, **changed}
    text = "\n".join([",".join(COLUMNS), ",".join(line.get(column, "") for column in COLUMNS), ""])
    (folder / f"{name}.csv").write_text(text)
    return folder / f"{name}.csv"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_figure_can_be_looked_up(path):
    keys = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "references.bib").read_text(), re.MULTILINE))
    known = {axis: {one.name for one in entries(axis)} for axis in ("attack", "dataset", "metric")}
    figures = read_reference(path)
    assert figures and path.stem in keys
    for one in figures:
        assert one.dataset in known["dataset"] and one.metric in known["metric"]
        assert one.attack in {"", *known["attack"]}
        address, _, place = one.source.partition(" ")
        assert address.startswith("https://") and place, "a source names the place in it"
        assert "/blob/main" not in address and "/blob/master" not in address, "a branch moves"
        assert one.notes, "what keeps the figure from being compared one to one"


def test_the_readme_explains_every_column():
    text = (ROOT / "results" / "reference" / "README.md").read_text()
    explained = {name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`",
                 line.split(" | ")[0])}  # fmt: skip
    assert explained == set(COLUMNS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"value": "90"}, "no share from 0 to 1"),
        ({"value": "-1", "metric": "fid"}, "is negative"),
        ({"value": "high"}, "no number"),
        ({"source": ""}, "has no source"),
        ({"read": "memory"}, "none of paper"),
        ({"source_bib": "kedmi"}, "bears the name of 'gmi'"),
        ({"notes": "a,b"}, "another number of columns"),
    ],
)
def test_a_figure_that_cannot_be_quoted_is_refused(tmp_path, changed, said):
    with pytest.raises(ValueError, match=said):
        read_reference(write(tmp_path, **changed))


def test_a_file_with_other_columns_is_set_aside_by_name(tmp_path):
    write(tmp_path / "reference")
    (tmp_path / "reference" / "odd.csv").write_text("a,b\n1,2\n")
    figures, aside = collect_reference(tmp_path)
    assert len(figures) == 1 and "its columns are not" in aside["reference/odd.csv"]


@pytest.fixture(scope="module")
def results(tmp_path_factory, add_cell):
    """A measured cell, defended and not; a figure of the same, one of another target, one of the victim."""
    folder = tmp_path_factory.mktemp("reference") / "results"
    add_cell(folder, lift=0.5)
    add_cell(folder, "defense=bido", lift=0.1)
    write(folder / "reference")
    write(folder / "reference", "kedmi", target="ir152", source_bib="kedmi", notes="another target")
    write(folder / "reference", "lomma", attack="", metric="target_accuracy", variant="victim", source_bib="lomma")
    build(folder, lambda config: Reproduction(f"python -m mibench attack={config['attack']['name']}"))
    return folder / "local"


def test_ours_stands_beside_a_figure_of_the_same(results, numbers_of):
    lines = [line for line in (results / "README.md").read_text().splitlines() if ", paper |" in line]
    assert len(lines) == 3
    (same,) = [line for line in lines if "gmi, paper" in line]
    assert "| 0.9 ± 0.05 | gmi, paper | 0.7 (16 px, " in same and "budget standard)" in same
    (other,) = [line for line in lines if "kedmi, paper" in line]
    assert other.endswith("| kedmi, paper |  |")
    (victim,) = [line for line in lines if "lomma, paper" in line]
    assert "| 0.9 (" in victim
    told = {one["source_bib"]: one["ours"] for one in numbers_of(results / "index.html")["published"]}
    assert told["kedmi"] is None and told["gmi"]["value"] == 0.7


def test_the_page_lists_the_figures(results, open_page):
    driver = open_page(results / "index.html", "#/published")
    rows = "return [...document.querySelectorAll('#published tbody tr')].map(row => row.innerText)"
    for _ in range(50):
        if shown := driver.execute_script(rows):
            break
        time.sleep(0.1)
    assert driver.get_log("browser") == [] and len(shown) == 3
    assert any("0.90 ± 0.05" in row for row in shown)
    page = driver.execute_script("return document.querySelector('#published').innerHTML")
    assert "https://example.org/paper" in page and "Table 1" in page
    assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
