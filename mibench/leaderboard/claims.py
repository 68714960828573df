"""Claims as data: what somebody states, which groups it is about, and the verdict that their rows give.

A claim is a file ``results/claims/ID.yaml``::

    statement: LOMMA brings out more than GMI from the same victim.
    source: lomma                       # a key of references.bib, or empty
    kind: difference
    left: {dataset: att_faces, attack: lomma, defense: none, attack.base.name: gmi}
    right: {dataset: att_faces, attack: gmi, defense: none}
    number: [attack_accuracy, top1, vote]   # metric, variant, evaluator; without it the task's headline
    margin: 0.0
    least: {targets: 10, seeds: 3}

``kind`` is one of

``difference``
    The left group leaks more than the right one, target by target, by more than ``margin``.
``equivalent``
    The two groups leak alike: their difference lies between ``-margin`` and ``margin``.
``leak``
    The left group's number is a leak (:mod:`mibench.leaderboard.verdicts`), by more than ``margin`` over control and
    null.
``no leak``
    The left group's number lies above control or null by less than ``margin``.
``above``, ``below``
    The left group's number lies above (below) ``margin``.

The verdict is ``holds`` where the whole interval lies beyond the margin, ``does not hold`` where the whole interval
lies on the other side of it, ``undecided`` between, and where the rows do not allow a verdict, with the reason; and
``not tested`` where there is no row. Nothing but rows decides it. Where a component has been revised since, the verdict
is about the revision that was measured, and says so. Two groups that differ in more than the axis ``by``
are never decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from mibench.errors import UserError
from mibench.leaderboard.compare import AXES, FREE, REVISED, compare, number_of
from mibench.leaderboard.groups import FACTS, Group
from mibench.leaderboard.lines import number as written
from mibench.leaderboard.numbers import Number
from mibench.leaderboard.revisions import measured_with, present
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.statistics import NAN
from mibench.limits import MIB, content, reason_of, yaml_of

Kind = Literal["difference", "equivalent", "leak", "no leak", "above", "below"]
Verdict = Literal["holds", "does not hold", "undecided", "not tested"]

#: What a claim needs where it does not say.
LEAST = {"targets": 10, "seeds": 3}

#: The kinds that compare two groups.
PAIRED = ("difference", "equivalent")

#: The kinds that are about a value, not about a difference or a lift.
LEVELS = ("above", "below")

#: What a file may hold, and of which type.
HELD: Mapping[str, type | tuple[type, ...]] = {
    "statement": str, "source": str, "kind": str, "left": dict, "right": dict, "number": list, "by": str,
    "margin": (int, float), "least": dict, "note": str,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim.

    Attributes:
        id: Stem of its file.
        statement: What is claimed, one sentence.
        source: Who claims it: a key of ``references.bib``, or empty for a statement of this benchmark.
        kind: What must be shown.
        left: The group it is about: facts (``dataset``, ``attack`` ...) and options by their dotted key.
        right: The group it is compared with; None for kinds that compare nothing.
        number: Metric, variant and evaluator; empty for the headline of the task.
        by: The axis in which the groups differ: one of :data:`mibench.leaderboard.compare.AXES`, or the block of a
            configuration (``setting``).
        margin: What has to be passed, in the unit of the number.
        least: Targets and seeds without which nothing is decided.
        note: What a reader should know; it has no part in the verdict.
    """

    id: str
    statement: str
    kind: Kind
    left: Mapping[str, Any]
    source: str = ""
    right: Mapping[str, Any] | None = None
    number: Sequence[str] = ()
    by: str = "attack"
    margin: float = 0.0
    least: Mapping[str, int] | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What rows say of a claim.

    Attributes:
        claim: The claim.
        verdict: ``holds``, ``does not hold``, ``undecided`` or ``not tested``.
        reason: Why nothing is decided; empty where something is.
        effect: The difference, lift or value; NaN where there is none.
        low: Lower end of its 95 % interval.
        high: Upper end.
        unit: Its unit.
        n: Targets behind it; 0 where the rows do not tell.
        seeds: Seeds behind it.
        measured: Which earlier revisions of components it is decided for, in words; empty for those of today.
    """

    claim: Claim
    verdict: Verdict
    reason: str = ""
    effect: float = NAN
    low: float = NAN
    high: float = NAN
    unit: str = ""
    n: int = 0
    seeds: int = 0
    measured: str = ""

    @property
    def remarks(self) -> str:
        """What stands behind the verdict: why nothing is decided, and for which revisions something is."""
        return "; ".join(filter(None, (self.reason, self.measured)))


def claims_in(results: Path) -> list[Claim]:
    """Return the claims below a folder of results, by id.

    Raises:
        UserError: If a file is no claim, saying which and why.
    """
    return [read_claim(path) for path in sorted((results / "claims").glob("*.yaml"))]


def read_claim(path: Path) -> Claim:
    """Return the claim of one file.

    Raises:
        UserError: If it is no claim.
    """
    try:
        text = content(path, str(path), MIB).decode()
        told = yaml_of(text, str(path))
    except (UserError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} is no readable claim ({reason_of(error)}).") from error
    if not isinstance(told, dict):
        raise UserError(f"{path} is no claim: expected a mapping with {', '.join(HELD)}.")
    if odd := sorted(set(map(str, told)) - set(HELD)):
        raise UserError(f"{path} is no claim: it may hold {', '.join(HELD)}, but not {odd[0]}.")
    if missing := [name for name in ("statement", "kind", "left") if not told.get(name)]:
        raise UserError(f"{path} is no claim: it has no '{missing[0]}'.")
    if wrong := [name for name, value in told.items() if not isinstance(value, HELD[name])]:
        raise UserError(f"{path} is no claim: '{wrong[0]}' cannot be {told[wrong[0]]!r}.")
    if told["kind"] not in get_args(Kind):
        raise UserError(f"{path}: kind is one of {', '.join(get_args(Kind))}, but got '{told['kind']}'.")
    if bool(told.get("right")) != (told["kind"] in PAIRED):
        raise UserError(f"{path}: the kinds {' and '.join(PAIRED)} need 'right', and no other kind takes it.")
    if odd := sorted(set(told.get("least", {})) - set(LEAST)):
        raise UserError(f"{path}: least may hold {', '.join(LEAST)}, but not {odd[0]}.")
    if told["kind"] == "equivalent" and not told.get("margin", 0) > 0:
        raise UserError(f"{path}: two groups are equivalent within a margin; set 'margin' above 0.")
    return Claim(id=path.stem, **told)


def judge(claim: Claim, groups: Sequence[Group]) -> Judgement:
    """Return the verdict that the groups of committed studies give.

    Raises:
        UserError: If a side of the claim fits more than one group.
    """
    return _judged(claim, *_sides(claim, groups))


def _sides(claim: Claim, groups: Sequence[Group]) -> tuple[Group | None, Group | None]:
    """Return the groups of both sides of a claim; None where there is none."""
    left = chosen(claim, claim.left, groups)
    return left, chosen(claim, claim.right, groups) if claim.right else None


def _judged(claim: Claim, left: Group | None, right: Group | None) -> Judgement:
    if left is None or (claim.right and right is None):
        return Judgement(claim=claim, verdict="not tested", reason="no rows")
    number = number_of(left, _key(claim))
    numbers = [number] if right is None else [number, number_of(right, _key(claim))]
    if number is None or any(one is None or not one.seeds for one in numbers):
        return Judgement(claim=claim, verdict="not tested", reason="the number was not measured")
    if right is not None:
        found = _difference(claim, left, right)
    else:
        found = _value(claim, left, number) if claim.kind in LEVELS else _leak(claim, left, number)
    return replace(found, measured=measured_with([left] if right is None else [left, right]))


def judged(results: Path, groups: Sequence[Group]) -> tuple[list[tuple[Judgement, list[str]]], dict[str, str]]:
    """Return every claim with its verdict and the ids of the groups it is about, and by name why a file was left out.

    Args:
        results: The folder ``paths.results``.
        groups: The groups of committed studies.
    """
    found, aside = [], {}
    own: dict[tuple[str, str], list[Group]] = {}
    for one in groups:
        own.setdefault((one.facts["dataset"], one.facts["attack"]), []).append(one)
    for path in sorted((results / "claims").glob("*.yaml")):
        try:
            claim = read_claim(path)
            named = [(str(side.get("dataset")), str(side.get("attack"))) for side in (claim.left, claim.right) if side]
            told = all("None" not in one for one in named)
            near = [one for key in dict.fromkeys(named) for one in own.get(key, ())] if told else groups
            sides = _sides(claim, near)
            found.append((_judged(claim, *sides), [one.group_id for one in sides if one is not None]))
        except UserError as reason:
            aside[f"claims/{path.name}"] = str(reason).replace(str(path), path.name)  # no page names a folder
    return found, aside


def effect(one: Judgement) -> str:
    """Return the effect with its unit and interval, ``+2.1 dB [0.4, 3.8]``; empty where there is none."""
    if math.isnan(one.effect):
        return ""
    interval = "" if math.isnan(one.low) else f" [{written(one.low)}, {written(one.high)}]"
    return f"{written(one.effect, signed=one.claim.kind not in LEVELS)} {one.unit}".strip() + interval


def chosen(claim: Claim, wanted: Mapping[str, Any], groups: Sequence[Group]) -> Group | None:
    """Return the group that has all facts and options of one side of a claim; None where there is none.

    Where several fit, that of today's revisions of its components is meant.

    Raises:
        UserError: If there are several.
    """
    found = [one for one in groups if all(_has(one, name, value) for name, value in wanted.items()) and one.measured]
    if len(found) > 1 and len(newest := present(found)) == 1:
        return newest[0]
    if len(found) > 1:
        differing = sorted(
            {name for one in found for name in one.config if one.config[name] != found[0].config.get(name)}
        )
        raise UserError(
            f"Claim '{claim.id}' is about one group, but {len(found)} fit; say more of {', '.join(differing)}."
        )
    return found[0] if found else None


def _has(group: Group, name: str, value: object) -> bool:
    if name in FACTS:
        return group.facts[name] == str(value)
    node: Any = group.config
    for part in name.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return value is None
        node = node[part]
    return bool(node == value)


def _key(claim: Claim) -> tuple[str, str, str] | None:
    """Return metric, variant and evaluator; None for the headline of the task."""
    metric, variant, evaluator = (*claim.number, "", "", "")[:3]
    return (metric, variant, evaluator) if claim.number else None


def _difference(claim: Claim, left: Group, right: Group) -> Judgement:
    found = compare(left, right, claim.by, _key(claim))
    spread = found.spread
    said = Judgement(
        claim=claim, verdict="undecided", effect=spread.mean, low=spread.low, high=spread.high, unit=found.unit,
        n=spread.n, seeds=spread.seeds,
    )  # fmt: skip
    may_differ = (*AXES.get(claim.by, (claim.by,)), *FREE, "revisions")
    blocks = sorted({*left.config, *right.config} - set(may_differ))
    odd = [name for name in blocks if left.config.get(name) != right.config.get(name)]
    both = zip(REVISED, left.config.get("revisions", ()), right.config.get("revisions", ()), strict=False)
    odd += [
        f"the revision of {axis}" for axis, mine, other in both if mine != other and axis not in (*may_differ, *odd)
    ]
    return _decided(said, f"they differ in {', '.join(odd)} too" if odd else found.reason)


def _leak(claim: Claim, group: Group, number: Number) -> Judgement:
    score = number.score
    lift, low, high = score.lift, score.lift_low, score.lift_high
    if score.null_name and score.null_lift < lift:  # rows hold the lower end alone
        lift, low, high = score.null_lift, score.null_lift_low, 2 * score.null_lift - score.null_lift_low
    said = Judgement(
        claim=claim, verdict="undecided", effect=lift, low=low, high=high, unit=score.unit, n=_targets(group, score),
        seeds=number.seeds,
    )  # fmt: skip
    bars = ("no control", "weak judge", *(("unconfirmed",) if claim.kind == "leak" else ()))
    barred = score.evidence if score.evidence in bars else ""
    return _decided(said, _no_targets(group) or barred)


def _value(claim: Claim, group: Group, number: Number) -> Judgement:
    score = number.score
    said = Judgement(
        claim=claim, verdict="undecided", effect=score.value, low=score.ci_low, high=score.ci_high, unit=score.unit,
        n=_targets(group, score), seeds=number.seeds,
    )  # fmt: skip
    return _decided(said, _no_targets(group))


def _no_targets(group: Group) -> str:
    return "no values by target" if group.old else ""


def _targets(group: Group, score: Score) -> int:
    return 0 if group.old else score.n  # rows of the first schema count reconstructions


def _decided(said: Judgement, reason: str) -> Judgement:
    """Return a judgement with its verdict: where both ends of the interval lie on one side of the margin."""
    claim, least = said.claim, {**LEAST, **(said.claim.least or {})}
    if not reason and said.n < least["targets"]:
        reason = f"{said.n} of {least['targets']} targets"
    if not reason and said.seeds < least["seeds"]:
        reason = f"{said.seeds} of {least['seeds']} seeds"
    if not reason and (math.isnan(said.low) or math.isnan(said.high)):
        reason = "no interval"
    verdict: Verdict = "undecided"
    if not reason:
        shown, refuted = _beyond(claim, said.low, said.high)
        verdict = "holds" if shown else "does not hold" if refuted else "undecided"
        reason = "" if shown or refuted else "the interval holds the margin"
    return replace(said, verdict=verdict, reason=reason)


def _beyond(claim: Claim, low: float, high: float) -> tuple[bool, bool]:
    """Return whether a whole interval lies where the claim says, and whether it lies where the claim denies it."""
    if claim.kind == "equivalent":
        return -claim.margin < low and high < claim.margin, claim.margin < low or high < -claim.margin
    above, below = low > claim.margin, high < claim.margin
    return (below, above) if claim.kind in ("no leak", "below") else (above, below)
