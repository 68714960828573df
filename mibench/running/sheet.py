"""The sheet of a cell: what was private, what came out, and what would have come out anyway."""

from __future__ import annotations

from pathlib import Path

from mibench.pictures import draw_sheet
from mibench.planning.plan import Plan
from mibench.tasks.base import Sheet


def draw_cell(path: Path, plan: Plan, sheet: Sheet) -> Path:
    """Draw what the cell's task shows, below a caption that says which cell it is, and return the path."""
    cards = plan.cards
    caption = (
        f"{cards.attack.title} on {cards.dataset.name}, {cards.target.name}, defense {cards.defense.name}, "
        f"seed {plan.config['seed']}"
    )
    return draw_sheet(path, sheet.headings, sheet.rows, caption)
