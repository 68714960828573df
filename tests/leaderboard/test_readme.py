"""The tables of ``results/README.md`` have the columns, the words and the order of every table."""

from mibench.leaderboard.build import build
from mibench.leaderboard.language import WORDS
from mibench.leaderboard.lines import COLUMNS
from mibench.leaderboard.page import Reproduction


def test_the_strongest_evidence_stands_first_in_the_columns_and_words_of_every_table(tmp_path, add_cell):
    for defense, lift in (("bido", 0.05), ("mid", 0.3), ("none", 0.2)):
        add_cell(tmp_path, "attack=gmi", f"defense={defense}", lift=lift)
    build(tmp_path, lambda config: Reproduction("python -m mibench", ("defense.x=1",)))
    text = (tmp_path / "local" / "README.md").read_text()
    assert f"| {' | '.join(COLUMNS)} | budget | training |" in text
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| gmi")]
    assert [line[2] for line in lines] == ["mid (defense.x=1)", "none (defense.x=1)", "bido (defense.x=1)"]
    assert [line[COLUMNS.index("verdict")] for line in lines] == ["● leak", "● leak", "○ no evidence"]
    for one in WORDS.values():
        assert f"- `{one.shown}`: {one.meaning}" in text
