"""Which rows were measured with an earlier revision of a component than the catalogue has today."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mibench.errors import UserError
from mibench.leaderboard.groups import Group
from mibench.planning.identity import REVISED, revision_of


def behind(group: Group) -> Iterator[tuple[str, int, int]]:
    """Yield name, revision then and revision now of every component of a group that has been revised since.

    A component that cannot be read today is left out, and so is a revision that did not concern the group
    (:attr:`mibench.card.Card.unrevised`).
    """
    for axis, then in zip(REVISED, group.config.get("revisions", ()), strict=False):
        try:
            now = revision_of(group.config[axis])
        except UserError:
            continue
        if then < now:
            yield group.config[axis]["name"], then, now


def measured_with(groups: Sequence[Group]) -> str:
    """Return which earlier revisions some groups were measured with, in words; empty where they are of today's."""
    found = dict.fromkeys(one for group in groups for one in behind(group))
    return "; ".join(f"measured with revision {then} of {name}, the present one is {now}" for name, then, now in found)


def present(groups: Sequence[Group]) -> list[Group]:
    """Return the groups among some that are of today's revisions."""
    return [one for one in groups if not list(behind(one))]
