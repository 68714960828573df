"""Columns of JSON: what is written is read back, in fewer bytes, and cannot end a script."""

import json
import math

import numpy as np
import pytest

from mibench.leaderboard.page.columns import Texts, as_json, coded, columns, listed, rounded


@pytest.mark.parametrize(
    "column",
    [[1, 2, 3], [5] * 30, [None, None, 0.5], ["a", "b"] * 9, ["a"] * 9 + ["b"], ["only"], [], [0, 1, 0, 1],
     ["Text, with \"quotes\" "] * 3],
)  # fmt: skip
def test_a_column_is_read_back(column, expand):
    assert expand(coded(column)) == column


def test_the_shortest_form_is_taken():
    assert coded([7] * 50) == {"r": [7, 50]}
    assert set(coded(["long text", "other text"] * 9)) == {"d", "c"}
    assert set(coded(["long text"] * 9 + ["other text"] * 9)) == {"d", "r"}
    assert coded(["a", "b"]) == ["a", "b"]
    plain = json.dumps(["long text"] * 9)
    assert len(json.dumps(coded(["long text"] * 9))) < len(plain)


def test_lists_share_their_entries(expand):
    rows = [["With ", ["GMI", "#/method/attack/gmi"], " 1"], ["With ", ["GMI", "#/method/attack/gmi"], " 2"], []]
    found = listed(rows)
    assert expand(found) == rows and len(found["d"]) == 4


def test_numbers_have_four_digits_and_say_nothing_of_what_is_not_finite():
    values = [math.pi, -1234567.0, 0.0, math.nan, math.inf, 1e-9, 100.0]
    assert rounded(values) == [3.142, -1235000, 0, None, None, 1e-09, 100]
    drawn = np.random.default_rng(0).normal(size=200) * 10.0 ** np.random.default_rng(1).integers(-5, 6, 200)
    for value, short in zip(drawn, rounded(drawn), strict=True):
        assert short == pytest.approx(value, rel=5.1e-4) and float(f"{value:.4g}") == pytest.approx(short, rel=1e-12)


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"unequal length.*'a': 1"):
        columns({"a": [1], "b": [1, 2]})


def test_no_text_ends_a_script():
    content = ["</script><script>alert(1)</script>", "<!-- --> <SCRIPT", "\u2028"]
    text = as_json(content)
    assert "</" not in text and "<!--" not in text and "<script" not in text and "\u2028" not in text
    assert json.loads(text) == content
    with pytest.raises(ValueError):
        as_json([math.nan])


def test_a_text_stands_once():
    texts = Texts()
    assert [texts.place(one) for one in ("a", "b", "a")] == [0, 1, 0]
    assert texts.block("attack", {"b": 1, "a": 2}) == texts.block("attack", {"a": 2, "b": 1}) == 2
    assert texts.listed() == ["a", "b", '{"a": 2, "b": 1}']
