"""``mibench compare``: paired differences between attacks, defenses or targets, and the ranks that they leave."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mibench.cli.reproduction import Commands
from mibench.cli.stored import results_folder
from mibench.cli.table import number, print_table
from mibench.errors import UserError
from mibench.leaderboard.compare import AXES, Comparison, Standing, compared, groups_in, picked, standings
from mibench.leaderboard.groups import Group
from mibench.leaderboard.matched import Matched, matched

HELP = (
    "by=attack|defense|target|precision [base=ENTRY] [metric=ID variant=FORM evaluator=ID] [dataset=NAME ...], or "
    "compare matched=0.05 [dataset=NAME ...]"
)


def run(words: Sequence[str]) -> int:
    """Print every comparison of the groups that the words pick, and their ranks where no base is given."""
    asked = dict(_split(word) for word in words if not word.startswith("paths."))
    results = results_folder([word for word in words if word.startswith("paths.")])
    if "matched" in asked:
        return _matched(results, asked)
    by = asked.pop("by", "")
    if by not in AXES:
        raise UserError(f"compare needs by=AXIS, one of {', '.join(AXES)}; python -m mibench compare {HELP}")
    base = asked.pop("base", "")
    named = [asked.pop(name, "") for name in ("metric", "variant", "evaluator")]
    key = (named[0], named[1], named[2]) if named[0] else None
    found, commands = picked(groups_in(results), asked), _commands(results)
    pairs = compared(found, by, base, key)
    if not pairs:
        raise UserError(f"No two of the {len(found)} groups picked differ in {by} alone, so nothing can be compared.")
    names = {one.group_id: _named(one, by, commands) for one in found}
    blocks: dict[str, list[Comparison]] = {}
    for one in pairs:
        blocks.setdefault(names[one.left.group_id][1], []).append(one)
    for shared, own in blocks.items():
        print(f"\n{shared}\n")
        print_table([HEAD, *(_line(one, names) for one in own)])
    if not base:
        for standing in standings(found, by, key):
            print(names[standing[0].group.group_id][1] + "\n")
            print_table([("rank", by, "value", ""), *(_ranked(one, names) for one in standing)])
    return 0


HEAD = ("what", "beside", "number", "difference", "95 % interval", "p (Holm)", "n", "seeds", "verdict")


def _line(one: Comparison, names: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    spread = one.spread
    interval = "" if math.isnan(spread.low) else f"[{number(spread.low)}, {number(spread.high)}]"
    verdict = f"{one.verdict} ({one.reason})" if one.reason else one.verdict
    return (
        names[one.left.group_id][0], names[one.right.group_id][0], " ".join(filter(None, one.key)),
        f"{number(spread.mean, signed=True)} {one.unit}".strip(), interval, number(one.p), str(spread.n or ""),
        str(spread.seeds or ""), verdict,
    )  # fmt: skip


def _ranked(one: Standing, names: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    rank = "not ranked" if one.reason else _rank(one.best, one.last)
    return rank, names[one.group.group_id][0], number(one.number.score.value), one.reason


def _matched(results: Path, asked: dict[str, str]) -> int:
    """Print every defense at the level that protects best of those that keep the victim's accuracy."""
    within = asked.pop("matched")
    if not re.fullmatch(r"0?\.\d+|[01]", within):
        raise UserError(f"matched is how much accuracy a defense may cost, from 0 to 1, but got '{within}'.")
    found, commands = matched(picked(groups_in(results), asked), float(within)), _commands(results)
    if not found:
        raise UserError("None of the groups picked has values by target beside an undefended victim of the same kind.")
    head = ("defense", "level chosen most", "lift", "95 % interval", "n", "seeds", "levels that keep the accuracy")
    for facts in dict.fromkeys(tuple(one.facts) for one in found):
        print(" ".join(facts) + "\n")
        own = [one for one in found if tuple(one.facts) == facts]
        print_table([head, *(_level(one, commands) for one in own)])
    return 0


def _level(one: Matched, commands: Commands) -> tuple[str, ...]:
    if not one.chosen:
        return one.defense, "none" if not one.levels else "too few targets", "", "", "", "", str(one.levels)
    spread = one.spread
    interval = "" if math.isnan(spread.low) else f"[{number(spread.low)}, {number(spread.high)}]"
    return (
        one.defense, _named(one.chosen[0], "defense", commands)[0],
        f"{number(spread.mean, signed=True)} {one.unit}".strip(), interval, str(spread.n), str(spread.seeds),
        str(one.levels),
    )  # fmt: skip


def _commands(results: Path) -> Commands:
    return Commands(results / "local" / "cache" / "defaults.json")


def _rank(best: int, last: int) -> str:
    return str(best) if best == last else f"{best} to {last}"


def _named(group: Group, by: str, commands: Commands) -> tuple[str, str]:
    """Return what a group is called among those it is compared with, and what they have in common."""
    options = commands({name: block for name, block in group.config.items() if name != "seed"}).options
    own = [word for word in options if word.startswith(f"{by}.")]
    facts = ("dataset", "setting", "target", "attack", "access", "defense")
    shared = [f"{name}={group.facts[name]}" for name in facts if name != by]
    return (
        " ".join([group.facts.get(by, str(group.config.get(by, ""))), *own]),
        " ".join([*shared, *(word for word in options if word not in own)]),
    )


def _split(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise UserError(f"compare takes words like by=defense, but got '{word}'; python -m mibench compare {HELP}")
    return name, value
