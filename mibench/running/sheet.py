"""The sheet of a cell: what was private, what came out, and what would have come out anyway."""

from __future__ import annotations

from pathlib import Path

from mibench.leaderboard.language import COLOURS, WORDS
from mibench.leaderboard.lines import told
from mibench.leaderboard.scoring import Score
from mibench.pictures import Said, draw_sheet
from mibench.planning.plan import Plan
from mibench.tasks.base import Sheet


def draw_cell(path: Path, plan: Plan, sheet: Sheet, number: Score | None) -> Path:
    """Draw what the cell's task shows below two lines, and return the path.

    The first line says which cell it is, the second its verdict with the number behind it.

    Args:
        path: The PNG.
        plan: The cell.
        sheet: What its task shows.
        number: Its headline number; None where that was not measured.
    """
    cards = plan.cards
    caption = (
        f"{cards.dataset.name}, {cards.target.name}, {cards.attack.title}, defense {cards.defense.name}, "
        f"seed {plan.config['seed']}"
    )
    if number is None:
        said = Said("-", "not measured", COLOURS["calm"], "")
    elif number.evidence in WORDS:
        one = WORDS[number.evidence]
        said = Said(one.mark, one.word, COLOURS[one.tone], told(number))
    else:
        said = Said("", "", COLOURS["calm"], told(number))
    return draw_sheet(path, sheet.headings, sheet.rows, caption, said)
