"""Paired comparisons of groups: the same targets and seeds, with an interval, and p-values of the whole table.

Two groups are compared that differ in one axis alone. The difference is taken target by target and seed by seed
(:func:`mibench.leaderboard.statistics.paired`): of lifts over the control where a number has one, else of values. It is
positive where the first one leaks more, or of numbers that are no leak where the first one is larger. The p-values of
one table are Holm's.

A comparison says why it decides nothing: rows of the first schema have no values by target, other judges give other
numbers, attacks that were not found converged or whose victim gradients are not equal are not ranked, nor are defenses
whose model is right no more often than naming the most frequent class always.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from mibench.errors import UserError
from mibench.leaderboard.collect import everything
from mibench.leaderboard.eligible import SPOILT, spoilt
from mibench.leaderboard.groups import FACTS, Group, groups_of
from mibench.leaderboard.numbers import Number, by_target, in_common
from mibench.leaderboard.statistics import LEAST_TARGETS, NAN, Spread, holm, paired

#: The axes that can be compared, each with the blocks of a configuration that may differ with it.
AXES: Mapping[str, Sequence[str]] = {
    "attack": ("attack", "prior", "knowledge"),
    "defense": ("defense",),
    "target": ("target",),
    "precision": ("precision",),
}

#: Whose revisions a stored configuration lists, in their order.
REVISED = ("dataset", "setting", "target", "attack", "defense")

#: What of a configuration is no part of a comparison.
FREE = ("seed", "convergence", "revisions")

#: Share of wrong decisions that is accepted in a table.
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two groups beside each other.

    Attributes:
        left: The one.
        right: The other.
        key: Metric, variant and evaluator.
        spread: Mean paired difference with its interval; its numbers are NaN where nothing can be paired.
        p: p-value of the table (Holm); NaN where there is none.
        unit: Unit of the difference.
        reason: Why nothing is decided; empty where something can be.
    """

    left: Group
    right: Group
    key: tuple[str, str, str]
    spread: Spread
    p: float
    unit: str
    reason: str

    @property
    def verdict(self) -> str:
        """``more`` or ``less`` (what the left one leaks or shows, than the right one), or ``undecided``."""
        if self.reason or not self.p < ALPHA:
            return "undecided"
        return "more" if self.spread.mean > 0 else "less"


def groups_in(results: Path) -> list[Group]:
    """Return the groups of committed studies and of one's own shards below a folder of results."""
    return groups_of(everything(results).table)


def picked(groups: Sequence[Group], asked: Mapping[str, str]) -> list[Group]:
    """Return the groups that have what is asked for: ``{"dataset": "digits,lfw", "setting.batch_size": "1,4"}``.

    Args:
        groups: The groups.
        asked: By fact, or by option of the configuration (``block.option``), the values that are wanted, with commas.
            Groups whose configuration has no such option are left out.

    Raises:
        UserError: If there is no such fact, or no group has such an option.
    """
    if odd := sorted(name for name in asked if "." not in name and name not in FACTS):
        raise UserError(
            f"Groups are picked by {', '.join(FACTS)}, or by an option as setting.batch_size, but not by '{odd[0]}'."
        )
    found = [one for one in groups if all(one.facts[name] in asked[name].split(",") for name in asked if name in FACTS)]
    for name, words in asked.items():
        if "." in name:
            own = [(one, _option(one, name)) for one in found]
            if found and not any(said for _, said in own):
                raise UserError(f"None of the groups picked has an option '{name}'; leave it out.")
            found = [one for one, said in own if said and _plain(said) in map(_plain, words.split(","))]
    return found


def _option(group: Group, name: str) -> str:
    """Return an option of a group's configuration as text, empty where it has none of that name."""
    node: object = group.config
    for part in name.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return ""
        node = node[part]
    return json.dumps(node) if isinstance(node, bool | int | float | None) else str(node)


def _plain(text: str) -> str:
    """Return a value so that equal ones have equal text: ``1e-1`` as ``0.1``, ``True`` as ``true``."""
    try:
        return str(float(text))
    except ValueError:
        return text.strip().lower()


def compared(
    groups: Sequence[Group], by: str, base: str = "", key: tuple[str, str, str] | None = None
) -> list[Comparison]:
    """Return the comparisons of all groups that differ in one axis alone.

    Args:
        groups: The groups.
        by: The axis, one of ``AXES``.
        base: Its entry with which all others are compared (``none``); empty for every two.
        key: Metric, variant and evaluator; None for the task's headline.
    """
    found = []
    for own in blocks(groups, by):
        pairs = list(combinations(own, 2))
        if base:
            bases = [one for one in own if one.facts.get(by, "") == base]
            pairs = [(one, other) for other in bases for one in own if one.facts.get(by, "") != base]
        found += [compare(left, right, by, key) for left, right in pairs]
    adjusted = holm([one.spread.p if not one.reason else NAN for one in found])
    return [replace(one, p=p) for one, p in zip(found, adjusted, strict=True)]


def blocks(groups: Sequence[Group], by: str) -> list[list[Group]]:
    """Return the groups in blocks of those that differ in one axis alone."""
    same: dict[str, list[Group]] = {}
    for one in groups:
        same.setdefault(shared(one, AXES[by], (by,)), []).append(one)
    return [own for own in same.values() if len(own) > 1]


def shared(group: Group, free: Sequence[str], axes: Sequence[str]) -> str:
    """Return what a group has in common with all that it may be compared with, as one string.

    Args:
        group: The group.
        free: The blocks of a configuration that may differ.
        axes: The facts that may differ; the revisions of other components may not.
    """
    kept = {name: block for name, block in group.config.items() if name not in (*free, *FREE)}
    revisions = dict(zip(REVISED, group.config.get("revisions", ()), strict=False))
    kept["revisions"] = {name: count for name, count in revisions.items() if name not in axes}
    facts = [group.facts["task"], *(() if "access" in axes else (group.facts["access"],))]
    return json.dumps([*facts, kept], sort_keys=True)


def compare(left: Group, right: Group, by: str, key: tuple[str, str, str] | None = None) -> Comparison:
    """Return the comparison of two groups, with the p-value of this one alone."""
    one, other = number_of(left, key), number_of(right, key)
    nothing = Spread(NAN, NAN, NAN, NAN, 0, 0)
    named = key or (one.key if one is not None else ("", "", ""))
    said = Comparison(left=left, right=right, key=named, spread=nothing, p=NAN, unit="", reason="")
    if one is None or other is None or not (one.seeds and other.seeds):
        return replace(said, reason="the number was not measured in both")
    said = replace(said, unit=one.score.unit)
    lifts = one.score.higher_is_leakier is not None and one.score.lift == one.score.lift
    mine, theirs = by_target(one, lifts), by_target(other, lifts)
    if mine is None or theirs is None:
        return replace(said, reason="no values by target")
    seeds, targets, (ours, others) = in_common([mine, theirs])
    if not seeds or not targets:
        return replace(said, reason="no seed or target in common")
    if len(targets) < LEAST_TARGETS:
        return replace(said, reason=f"fewer than {LEAST_TARGETS} targets in common")
    spread = paired(ours - others, one.score.share)
    reason = "; ".join(_objections(left, right, by))
    return replace(said, spread=spread, p=spread.p, reason=reason)


def number_of(group: Group, key: tuple[str, str, str] | None) -> Number | None:
    """Return the number of a group by metric, variant and evaluator, or the headline of its task."""
    return group.headline if key is None else group.number(*key)


def _objections(left: Group, right: Group, by: str) -> Iterator[str]:
    """Yield why two groups are not ranked although their difference is known."""
    if left.facts["judged_by"] != right.facts["judged_by"]:
        yield "other judges"
    if by == "defense" and (odd := [one.facts["defense"] for one in (left, right) if spoilt(one)]):
        yield f"the model is {SPOILT}: {', '.join(dict.fromkeys(odd))}"
    if by != "attack":
        return
    if odd := [one.facts["attack"] for one in (left, right) if one.facts["convergence"] not in CONVERGED]:
        yield f"not shown to be converged: {', '.join(dict.fromkeys(odd))}"
    gradients = sorted(one.cost["gradient_evals"] for one in (left, right))
    if gradients[0] > 0 and gradients[1] > ALIKE * gradients[0]:
        yield f"{gradients[0]:.0f} and {gradients[1]:.0f} victim gradients (set budget.gradients)"


#: Numbers of victim gradients that differ by a smaller factor are equal: steps are whole.
ALIKE = 1.1

#: What of a row's ``convergence`` lets an attack be ranked.
CONVERGED = ("converged", "no search")


@dataclass(frozen=True)
class Standing:
    """Where one of several groups stands.

    Attributes:
        group: The group.
        number: Its number.
        best: The best rank that the comparisons leave open, from 1.
        last: The worst.
        reason: Why it is not ranked; empty where it is.
    """

    group: Group
    number: Number
    best: int
    last: int
    reason: str = ""


def standings(groups: Sequence[Group], by: str, key: tuple[str, str, str] | None = None) -> list[list[Standing]]:
    """Return, of every block of groups that differ in one axis, where each stands: leakiest first, ranks shared.

    A group is ranked behind those that are found to leak more in a paired comparison, and before those that are found
    to leak less; between, ranks are shared. A block in which the number was measured nowhere has no standing.
    """
    found = []
    for own in blocks(groups, by):
        pairs = compared(own, by, key=key)
        standing = []
        for one in own:
            number = number_of(one, key)
            if number is None or not number.seeds:
                continue
            mine = [pair for pair in pairs if one in (pair.left, pair.right)]
            verdicts = [_seen_from(one, pair) for pair in mine]
            reasons = {pair.reason for pair in mine}
            best, last = 1 + verdicts.count("less"), len(own) - verdicts.count("more")
            standing.append(Standing(one, number, best, last, min(reasons) if reasons and "" not in reasons else ""))
        if standing:
            found.append(sorted(standing, key=lambda one: (bool(one.reason), one.best, one.last)))
    return found


def _seen_from(one: Group, pair: Comparison) -> str:
    """Return the verdict of a comparison as seen from one of its groups."""
    if pair.verdict == "undecided" or pair.left is one:
        return pair.verdict
    return "less" if pair.verdict == "more" else "more"
