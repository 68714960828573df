from mibench.leaderboard.language import COLOURS, WORDS, order, shown
from mibench.leaderboard.verdicts import VERDICTS


def test_every_verdict_has_a_word_a_mark_and_a_place_and_the_strongest_comes_first():
    assert set(WORDS) == set(VERDICTS)
    assert sorted(VERDICTS, key=order)[0] == "leak" and order("skipped") > max(map(order, VERDICTS))
    assert {one.tone for one in WORDS.values()} == set(COLOURS)
    assert shown("leak").startswith("●") and all(one.meaning.endswith(".") for one in WORDS.values())


def test_only_a_leak_bears_the_mark_and_the_colour_of_one():
    assert [word for word, one in WORDS.items() if one.tone == "leak"] == ["leak"]
    assert [word for word, one in WORDS.items() if one.mark == "●"] == ["leak"]
