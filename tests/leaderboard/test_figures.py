"""Figures for a paper: the same bytes twice, text as text, nothing by colour alone."""

import builtins
import re
from dataclasses import replace

import numpy as np
import pytest

from mibench.errors import UserError
from mibench.leaderboard.compare import groups_in
from mibench.leaderboard.exports.figures import KINDS, draw
from mibench.leaderboard.exports.matrix import matrices
from mibench.leaderboard.language import WORDS

pytest.importorskip("matplotlib")

GAINS = np.linspace(0.1, 0.6, 6).tolist()


def nothing(_group):
    """No option differs from the defaults."""
    return ()


@pytest.fixture(scope="module")
def groups(tmp_path_factory, add_cell):
    """Two attacks by three defenses, one of them at two levels, and one cell that was skipped."""
    folder = tmp_path_factory.mktemp("figures")
    for place, (attack, base) in enumerate((("gmi", 0.4), ("mi_face", 0.1))):
        for defense, less, right in (("none", 0.0, 0.95), ("bido", 0.05, 0.9), ("dp_sgd", 0.2, 0.7)):
            add_cell(folder, f"attack={attack}", f"defense={defense}", lift=base - less, accuracy=right, gains=GAINS,
                     queries=100 * 10**place, gradient_evals=10)  # fmt: skip
    add_cell(folder, "attack=gmi", "defense=bido", "defense.a1=2", lift=0.2, accuracy=0.8, gains=GAINS, queries=100)
    add_cell(folder, "attack=mi_face", "defense=rounding", status="skipped", reason="Vacuous.")
    return groups_in(folder)


def drawn(kind, groups, out, **more):
    draw(kind, groups, out, nothing, **more)
    return out.read_text() if out.suffix == ".svg" else out.read_bytes()


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("front", ".svg"), ("matrix", ".svg"), ("queries", ".svg"), ("front", ".pdf"), ("matrix", ".png")],
)
def test_the_same_groups_give_the_same_bytes(groups, tmp_path, kind, ending):
    first, again = (drawn(kind, groups, tmp_path / f"{name}{ending}") for name in ("a", "b"))
    assert first == again and len(first) > 1000
    assert not re.search(
        rb"20\d\d-\d\d-\d\d|CreationDate|ModDate", first if isinstance(first, bytes) else first.encode()
    )
    if ending == ".pdf":
        assert b"/FontFile2" in first and b"/Type3" not in first, "TrueType fonts are inside"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def words(svg):
    return {one.strip() for one in re.findall(r">([^<]+)</(?:text|tspan)>", svg)}


@pytest.mark.parametrize(("width", "points"), [(3.3, 3.3 * 72), (6.8, 6.8 * 72)])
def test_a_figure_is_as_wide_as_a_column_and_its_text_is_text(groups, tmp_path, width, points):
    svg = drawn("front", groups, tmp_path / "front.svg", width=width)
    assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) == pytest.approx(points)
    assert {
        "gmi",
        "mi_face",
        "bido",
        "dp_sgd",
        "none (undefended)",
        "accuracy of the model",
        "lift over control",
    } <= words(svg)


def test_a_front_joins_the_levels_of_a_defense_and_nothing_else(groups, tmp_path, monkeypatch):
    lines = seen(monkeypatch, groups, "front", tmp_path)
    (joined,) = [line for line in lines if len(line.get_xdata()) == 2 and line.get_linestyle() != "None"
                 and line.get_zorder() == 1]  # fmt: skip
    assert sorted(joined.get_xdata()) == [0.8, 0.9] and sorted(joined.get_ydata()) == pytest.approx([0.2, 0.35])


def test_points_bear_both_intervals_and_are_filled_by_verdict(groups, tmp_path, monkeypatch):
    from matplotlib.container import ErrorbarContainer

    axes = axes_of(monkeypatch, groups, "front", tmp_path)
    bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    assert len(bars) == 7 and all(one.has_xerr and one.has_yerr for one in bars)
    tones = {one.headline.verdict: WORDS[one.headline.verdict].tone for one in groups if one.measured}
    fills = {one.lines[0].get_fillstyle() for one in bars}
    assert fills == {{"leak": "full", "open": "left", "calm": "none"}[tone] for tone in tones.values()}
    undefended = [one.lines[0].get_marker() for one in bars].count("*")
    assert undefended == 2 and len({one.lines[0].get_marker() for one in bars}) == 3


def test_lines_and_points_differ_without_colour(groups, tmp_path, monkeypatch):
    axes = axes_of(monkeypatch, groups, "front", tmp_path)
    handles = axes.figure.legends[0].legend_handles
    told = [(one.get_label(), one.get_linestyle(), one.get_marker(), one.get_fillstyle()) for one in handles]
    looks = [rest for _, *rest in told]
    assert len({str(one) for one in looks}) == len(looks)


def test_a_matrix_shows_every_lift_with_its_mark_and_hatches_the_rest(groups, tmp_path, monkeypatch):
    axes = axes_of(monkeypatch, groups, "matrix", tmp_path)
    hatched = [one for one in axes.patches if one.get_hatch()]
    assert len(axes.patches) == 2 * 5 and len(hatched) == 10 - 7
    texts = [one.get_text() for one in axes.texts]
    assert {"+0.4", "+0.35", "+0.2", "-0.1"} <= set(texts) and "[0.3, 0.5]" in texts
    assert "hatched: not measured" in axes.get_xlabel().replace("\n", " ")
    verdicts = {one.headline.verdict for one in groups if one.measured}
    assert all(word in axes.get_xlabel().replace("\n", " ") for word in verdicts)


def test_queries_stand_on_a_logarithmic_axis_and_another_length_is_the_same_line(tmp_path, add_cell, monkeypatch):
    for steps, queries, lift in ((10, 100, 0.1), (100, 1000, 0.3), (1000, 10000, 0.5)):
        add_cell(tmp_path, "attack=mi_face", f"attack.iterations={steps}", lift=lift, gains=GAINS, queries=queries)
    found = groups_in(tmp_path)
    axes = axes_of(monkeypatch, found, "queries", tmp_path)
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "examples sent to the victim"
    (line,) = [one for one in axes.lines if len(one.get_xdata()) == 3]
    assert list(line.get_xdata()) == [100, 1000, 10000] and list(line.get_ydata()) == pytest.approx([0.1, 0.3, 0.5])
    free = [replace(one, cost={**one.cost, "gradient_evals": 0}) for one in found]
    assert axes_of(monkeypatch, free, "queries", tmp_path, cost="gradients").get_xscale() == "symlog"


def test_what_cannot_be_compared_has_a_panel_of_its_own_up_to_a_limit(tmp_path, add_cell):
    for size in (8, 12):
        add_cell(tmp_path, f"dataset.size={size}", gains=GAINS)
    notes = draw("front", groups_in(tmp_path), tmp_path / "a.svg",
                 lambda one: [f"dataset.size={one.config['dataset']['size']}"])  # fmt: skip
    assert notes == ["2 panels, because groups that differ in dataset.size cannot be compared."]
    assert any("dataset.size=8" in one for one in words((tmp_path / "a.svg").read_text()))
    for size in range(20, 25):
        add_cell(tmp_path, f"dataset.size={size}", gains=GAINS)
    with pytest.raises(UserError, match="7 blocks"):
        draw("matrix", groups_in(tmp_path), tmp_path / "b.svg", nothing)
    assert not (tmp_path / "b.svg").exists()


@pytest.mark.parametrize("hostile", ["$\\frac{$", "<script>alert(1)</script>", "a & b"])
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_words_are_text(groups, tmp_path, kind, hostile):
    draw(kind, groups, tmp_path / "a.svg", lambda _: [f"attack.words={hostile}"])
    named = [replace(one, facts={**one.facts, "attack": hostile}) for one in groups]
    svg = drawn(kind, named, tmp_path / "b.svg")
    assert "<script" not in svg and "a & b" not in svg


def test_without_matplotlib_one_sentence_says_what_to_install(groups, tmp_path, monkeypatch):
    real = builtins.__import__

    def lacking(name, *rest, **more):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(UserError, match=r"^Figures need matplotlib, .*: pip install 'mibench\[figures\]'\.$"):
        draw("front", groups, tmp_path / "a.svg", nothing)


def test_nothing_to_draw_is_said(groups, tmp_path):
    with pytest.raises(UserError, match="has this number"):
        draw("front", groups, tmp_path / "a.svg", nothing, ("target_accuracy", "victim", ""))


def axes_of(monkeypatch, groups, kind, tmp_path, **more):
    """Returns the axes of the only panel."""
    from mibench.leaderboard.exports import figures

    kept = []
    save = figures._save
    monkeypatch.setattr(figures, "_save", lambda figure, out: (kept.append(figure), save(figure, out)))
    draw(kind, groups, tmp_path / "figure.svg", nothing, **more)
    (axes,) = kept[-1].subfigs[0].axes
    return axes


def seen(monkeypatch, groups, kind, tmp_path):
    return axes_of(monkeypatch, groups, kind, tmp_path).lines


def test_defenses_have_the_colours_where_there_is_one_attack(groups, tmp_path, monkeypatch):
    own = [one for one in groups if one.facts["attack"] == "gmi"]
    axes = axes_of(monkeypatch, own, "front", tmp_path)
    looks = {one.lines[0].get_marker(): one.lines[0].get_color() for one in axes.containers}
    assert looks["*"] == "black" and len(set(looks.values())) == len(looks) == 3
    both = axes_of(monkeypatch, groups, "front", tmp_path)
    assert len({one.lines[0].get_color() for one in both.containers}) == 2, "of two attacks each has one"


def test_rows_of_a_matrix_are_as_high_as_their_names(six):
    def many(group):
        return [f"attack.{name}={value}" for name, value in group.config["attack"].items() if not name.startswith("_")]

    (panel,), _ = matrices(six, nothing, None, "queries")
    (higher,), _ = matrices(six, many, None, "queries")
    assert higher(None, 6.8) > panel(None, 6.8) + 0.2
