"""How far an attack on the undefended victim comes with how much effort."""

from __future__ import annotations

import json

from mibench.leaderboard.compare import FREE
from mibench.leaderboard.groups import Group
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.records import Record
from mibench.leaderboard.page.views import VARIED

#: What of a budget says what is attacked; the rest says how long.
ATTACKED = ("targets", "samples", "records")


def effort_curves(sources: Sources, place: int) -> list[tuple[str, list[Record]]]:
    """Return of every attack its groups on the undefended victim by effort, in one view and those of other budgets.

    Views of other budgets differ in how long attacks search and in nothing else. Of every view the usual attacker
    counts; groups that cost neither a query nor a gradient are left out.
    """
    same = but_for_length(sources.views[place].groups[0])
    facts = sources.views[place].facts
    found: dict[str, list[Record]] = {}
    for other, view in enumerate(sources.views):
        if any(view.facts[name] != facts[name] for name in ("dataset", "task", "setting", "target")):
            continue
        if but_for_length(view.groups[0]) != same:
            continue
        for one in sources.in_view(other):
            if one.defense == "none" and one.usual and one.score is not None and effort(one.group) > 0:
                found.setdefault(one.attack, []).append(one)
    return [(name, sorted(own, key=lambda one: (effort(one.group), one.place))) for name, own in sorted(found.items())]


def effort(group: Group) -> float:
    """Return the victim gradients that an attack takes, else its queries."""
    return group.cost["gradient_evals"] or group.cost["queries"]


def but_for_length(group: Group) -> str:
    """Return what views have in common that differ in the length of attacks alone."""
    kept = {name: block for name, block in group.config.items() if name not in (*VARIED, *FREE, "budget")}
    budget = [group.config["budget"].get(name) for name in ATTACKED]
    return json.dumps([group.facts["task"], kept, budget, group.config.get("revisions", ())[:3]], sort_keys=True)
