"""How far an attack on the undefended victim comes with how much effort."""

from __future__ import annotations

from mibench.leaderboard.groups import Group
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.records import Record


def effort_curves(sources: Sources, place: int) -> list[tuple[str, list[Record]]]:
    """Return of every attack its groups on the undefended victim by effort, in one view and those of other budgets.

    Views of other budgets differ in how long attacks search and in nothing else. Of every view the usual attacker
    counts; groups that cost neither a query nor a gradient are left out.
    """
    found: dict[str, list[Record]] = {}
    for other in sources.of_other_lengths(place):
        for one in sources.in_view(other):
            if one.defense == "none" and one.usual and one.score is not None and effort(one.group) > 0:
                found.setdefault(one.attack, []).append(one)
    return [(name, sorted(own, key=lambda one: (effort(one.group), one.place))) for name, own in sorted(found.items())]


def effort(group: Group) -> float:
    """Return the victim gradients that an attack takes, else its queries."""
    return group.cost["gradient_evals"] or group.cost["queries"]
