"""All that the page shows: the overview that stands in it, and the rest that it loads when somebody asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mibench.leaderboard.claims import Judgement
from mibench.leaderboard.groups import Group
from mibench.leaderboard.numbers import by_target
from mibench.leaderboard.page.cells import Table, refusals, table_of
from mibench.leaderboard.page.names import title_in
from mibench.leaderboard.page.records import Record, records_of
from mibench.leaderboard.page.reproduction import Reproduction
from mibench.leaderboard.page.views import View, but_for_length, has_lift, views_of
from mibench.leaderboard.reference import Published
from mibench.leaderboard.worst import WorstCase


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a page is made of.

    Attributes:
        groups: All groups.
        made: By group id, how its cells are made again.
        rows: The first twelve hexadecimal digits of the SHA-256 of ``leaderboard.parquet``.
        local: Whether one's own shards are part of it.
        set_aside: Files that gave no rows, with the reason.
        figures: Published figures.
        cases: Worst cases.
        claims: Claims with their verdicts, and by id the groups that each is about.
        pictures: By group id where its picture lies: a data address, or a path seen from the page.
        tiles: By group id its sprite or the crop of its picture, as PNG (:mod:`mibench.leaderboard.page.strips`).
    """

    groups: Sequence[Group]
    made: Mapping[str, Reproduction]
    rows: str = ""
    local: bool = False
    set_aside: Mapping[str, str] = field(default_factory=dict)
    figures: Sequence[Published] = ()
    cases: Sequence[WorstCase] = ()
    claims: Sequence[tuple[Judgement, Sequence[str]]] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)
    tiles: Mapping[str, bytes] = field(default_factory=dict)

    @cached_property
    def views(self) -> list[View]:
        """The views, the one to look at first at the beginning."""
        return views_of(self.groups)

    @cached_property
    def records(self) -> list[Record]:
        """A record of every group, in their order."""
        return records_of(self.groups, self.views, self.made)

    @cached_property
    def tables(self) -> list[Table]:
        """The table of every view."""
        refused = refusals(self.records)
        own: list[list[Record]] = [[] for _ in self.views]
        for one in self.records:
            if one.view >= 0:
                own[one.view].append(one)
        found = []
        for view, records in zip(self.views, own, strict=True):
            facts = view.facts
            where = {key[2:]: said for key, said in refused.items() if key[:2] == (facts["dataset"], facts["setting"])}
            found.append(table_of(records, where))
        return found

    @cached_property
    def axes(self) -> Axes:
        """The datasets, attacks and defenses of all groups."""
        return Axes(self.groups)

    def place_of(self, group_id: str) -> int:
        """Return the place of a group on the page."""
        return self._places[group_id]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {one.group_id: place for place, one in enumerate(self.groups)}

    def of_other_lengths(self, place: int) -> list[int]:
        """Return the views that differ from one in the length of attacks alone, that one among them."""
        return self._lengths[but_for_length(self.views[place].groups[0])]

    @cached_property
    def _lengths(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, view in enumerate(self.views):
            found.setdefault(but_for_length(view.groups[0]), []).append(place)
        return found

    def paired(self, place: int) -> bool:
        """Whether the values by target of all numbers of a view are known."""
        headlines = [one.group.headline for one in self.in_view(place) if one.score is not None]
        return all(one is not None and by_target(one) is not None for one in headlines)

    def in_view(self, place: int) -> list[Record]:
        """Return the records of a view."""
        return [self.records[self.place_of(one.group_id)] for one in self.views[place].groups]


class Axes:
    """Datasets, attacks and defenses by place: attacks by name, ``none`` first, datasets of more groups first.

    Only those that have a number are there, and those that a group without one names.

    Args:
        groups: All groups.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        many: dict[str, int] = {}
        for one in groups:
            many[one.facts["dataset"]] = many.get(one.facts["dataset"], 0) + has_lift(one)
        first: dict[tuple[str, str], Group] = {}
        for one in groups:
            for axis in ("dataset", "attack", "defense"):
                first.setdefault((axis, one.facts[axis]), one)
        self.first = first
        self.datasets = sorted(many, key=lambda name: (-many[name], name))
        self.attacks = sorted({name for axis, name in first if axis == "attack"})
        self.defenses = sorted({name for axis, name in first if axis == "defense"} | {"none"},
                               key=lambda name: (name != "none", name))  # fmt: skip
        self.dataset = {name: place for place, name in enumerate(self.datasets)}
        self.attack = {name: place for place, name in enumerate(self.attacks)}
        self.defense = {name: place for place, name in enumerate(self.defenses)}

    def config(self, axis: str, name: str) -> dict[str, Any]:
        """Return the configuration of the first group with a component."""
        found = self.first.get((axis, name))
        return {} if found is None else found.config

    def title(self, axis: str, name: str) -> str:
        """Return what a component is called."""
        return title_in(self.config(axis, name), axis, name)
