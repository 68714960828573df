"""The parts of the documentation that repeat cards are written from them, and every link leads somewhere."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mibench.card import ACCESS, ACCESSES
from mibench.planning.catalogue import AXES, entries, entry

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")


@pytest.fixture
def make_docs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import make_docs

    return make_docs


@pytest.fixture
def sources(make_docs):
    import sources

    return sources


@pytest.fixture
def page(make_docs, monkeypatch, tmp_path):
    page = tmp_path / "page.md"
    monkeypatch.setattr(make_docs, "PAGES", (page,))
    monkeypatch.setattr(make_docs, "ROOT", tmp_path)
    return page


def anchors(page):
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_every_test_that_the_page_on_reliability_names_is_there():
    page = (ROOT / "docs" / "reliability.md").read_text()
    files = re.findall(r"`([\w/]+\.py)((?:::\w+)?)`((?:, `::\w+`)*)", page)
    assert len(files) > 10
    for file, first, more in files:
        text = (ROOT / "tests" / file.removeprefix("tests/")).read_text()
        for name in re.findall(r"::(\w+)", first + more):
            assert f"def {name}(" in text, f"{file} has no {name}"


def test_a_page_that_differs_is_named_and_written_without_touching_its_prose(make_docs, page, capsys):
    page.write_text("before\n\n<!-- generated: rules -->\nstale\n<!-- end -->\n\nafter <!-- end -->\n")
    assert make_docs.main(["--check"]) == 1 and "page.md" in capsys.readouterr().err
    assert "stale" in page.read_text()
    assert make_docs.main([]) == 0 and make_docs.main(["--check"]) == 0
    text = page.read_text()
    assert text.startswith("before\n\n<!-- generated: rules -->\n1. ") and text.endswith("\n\nafter <!-- end -->\n")
    assert "stale" not in text and "vacuous" in text


def test_an_unknown_part_is_said_so(make_docs, page):
    page.write_text("<!-- generated: rulez -->\n<!-- end -->\n")
    with pytest.raises(SystemExit, match=r"'rulez'; there are catalogue, .*rules"):
        make_docs.main([])


@pytest.mark.parametrize("axis", AXES)
def test_the_catalogue_has_every_component_with_every_option(make_docs, axis):
    said = make_docs.catalogue(axis)
    for one in entries(axis):
        _, _, section = f"\n{said}\n### `".partition(f"\n### `{one.name}`: ")
        section = section.partition("\n### `")[0]
        assert one.card.title in section
        named = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
        assert named == set(one.node) - {"name", "_target_", "variant_of", "access"}


def test_a_sentence_is_that_of_the_field_wherever_it_is_inherited_from(make_docs):
    options = {name: (default, sentence) for name, default, sentence in make_docs.options_of(entry("attack", "dlg"))}
    assert options["`restarts`"] == ("`2` / `4` / `4`", "Starts per message; the one of lowest distance is returned.")
    digits = {name: sentence for name, _, sentence in make_docs.options_of(entry("dataset", "digits"))}
    assert digits["`private`"] == "Digits of the target." and digits["`seed`"]


def test_fields_are_those_that_a_component_is_made_with(sources, tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "from mibench.options import Options\n\n"
        "class Root:\n    state: int = 0\n    'Not an option.'\n\n"
        "class Base(Options, Root):\n    a: int = 1\n    'The first.'\n    b: int = 2\n"
        "    'The second.'\n    kind: ClassVar[str] = 'x'\n    'No option.'\n    made: int = field(init=False)\n"
        "    'No option either.'\n\n"
        "class Child(Base[int], Unknown):\n    card = Card()\n    b: int = 3\n"
        "    a: int = 3\n    'The first,\\n    of the child.'\n    c: int = 4\n"
    )
    assert sources.sentences_of(file, "Child") == {"a": "The first, of the child.", "b": "The second.", "c": ""}
    assert sources.sentences_of(file, "Root") == {} == sources.sentences_of(file, "Elsewhere")


def test_threat_models_agree_with_the_cards(make_docs):
    assert make_docs.defenses_against("none") == {}
    scores = make_docs.defenses_against("scores")
    assert "rounding" in scores["output"] and "bido" in scores["training"] and "update" not in scores
    assert make_docs.attacks_with("gradients").index("dlg") < make_docs.attacks_with("gradients").index("gifd")
    assert list(make_docs.views()) == list(ACCESSES)
    view, file, words = make_docs.views()["labels"]
    assert (view, file.name, words) == ("LabelsView", "services.py", ACCESS["labels"].words)
    assert make_docs.papers()["neg_ls"].startswith("*Be Careful What You Smooth For")


def test_an_access_without_a_view_is_said_so(make_docs, monkeypatch):
    monkeypatch.setattr(make_docs, "ACCESS", {"labels": replace(ACCESS["labels"], view="services:Elsewhere")})
    make_docs.views.cache_clear()
    with pytest.raises(SystemExit, match=r"no services:Elsewhere, .* for 'labels'"):
        make_docs.views()


def test_torch_is_not_needed():
    code = "import sys; sys.path.insert(0, 'scripts'); import make_docs; make_docs.main(['--check']); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    "one", [one for axis in AXES for one in entries(axis)], ids=lambda one: f"{one.axis}-{one.name}"
)
def test_every_field_has_a_sentence(make_docs, sources, one):
    without = [name for name, sentence in sources.sentences_of(*make_docs.class_of(one)).items() if not sentence]
    assert not without, "a line below the field says what it is"


@pytest.mark.slow
def test_who_copies_the_example_of_contributing_has_an_attack(tmp_path):
    """The four files, word for word, in a copy of the tree: the tests pass, and a cell gives numbers."""
    for name in ("mibench", "conf", "hydra_plugins", "tests", "scripts", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("images"))
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md"):
        shutil.copy(ROOT / name, tmp_path)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = dict(re.findall(r"^### \d\. [^`\n]*`(\S+)`\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    assert len(files) == 4
    for name, content in files.items():
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(content)
    entry = "@misc{pixel_descent,\n  title  = {T},\n  author = {A, B},\n  note   = {N},\n  year   = {2015},\n}\n"
    (tmp_path / "references.bib").write_text(f"{(ROOT / 'references.bib').read_text()}\n{entry}")
    tests = ["tests/attacks/test_pixel_descent.py", "tests/test_catalogue.py", "tests/test_edits.py"]
    words = ["attack=pixel_descent", "budget=smoke", "threads=1", "dataset.size=8", "target.recipe.epochs=1"]
    words += ["target.recipe.min_steps=1", "evaluation.count=0", "control=none", "metric=[target_accuracy]"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for command in (
        ["scripts/make_docs.py"],
        ["-m", "pytest", "-q", "-k", "pixel_descent", *tests],
        ["-m", "mibench", *words],
    ):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Pixel descent (white_box) on digits" in done.stdout
    assert "### `pixel_descent`: Pixel descent" in (tmp_path / "docs" / "catalogue.md").read_text()
