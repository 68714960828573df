"""``python -m faults``: faults at every file operation, kills at random times, random command lines; with counts."""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import composing
from faults.command_lines import faults_of, keys_of_cells, shown, stubbed
from faults.drivers import DRIVERS, RANDOM, REAL_CELL, warmed
from faults.harness import Case, Point, thinned

#: Command lines that are drawn from one seed.
PER_SEED = 500

#: Points after which it is said how far it is.
TELL_EVERY = 50


def tried(cases: Mapping[str, Case], points: Iterable[Point]) -> tuple[Counter[str], list[str]]:
    """Try points, tell of every loss as it is found, and return the points per driver and all losses."""
    counts, lost = Counter[str](), list[str]()
    for point in points:
        counts[point.driver] += 1
        if counts.total() % TELL_EVERY == 0:
            print(f"... {counts.total()} points, {len(lost)} losses", file=sys.stderr, flush=True)
        for sentence in cases[point.driver].losses(point):
            lost.append(sentence)
            print(sentence, flush=True)
    return counts, lost


def files(names: Sequence[str], count: int, real: int, kills: int, seed: int) -> int:
    """Try points of the drivers, of a real cell and at random times, print their counts; return the losses."""
    draw, began = random.Random(seed), time.monotonic()
    drivers = [one for one in DRIVERS if one.name in names]
    drivers += [REAL_CELL] * bool(real) + list(RANDOM) * bool(kills)
    with tempfile.TemporaryDirectory() as home, warmed(Path(home), drivers) as cases:
        for name in names:
            found = Counter(verb for verb, _, _ in cases[name].undisturbed.operations)
            told = ", ".join(f"{verb} {number}" for verb, number in found.items())
            print(f"{name:<12}{found.total()} operations: {told}", flush=True)
        every = [point for name in names for point in cases[name].points()]
        points = thinned(every, count, draw)
        if real:
            points += thinned(cases[REAL_CELL.name].points(), real, draw)
        points += [Point(RANDOM[number % 2].name, "random kill", draw.random()) for number in range(kills)]
        counts, lost = tried(cases, points)
    print(f"{counts.total()} points in {time.monotonic() - began:.0f} s, {len(lost)} losses")
    for name, tried_ in counts.items():
        there = f" of {len(cases[name].points())}" if name not in [one.name for one in RANDOM] else ""
        print(f"  {name:<24}{tried_}{there}")
    return len(lost)


def command_lines(count: int, seed: int) -> int:
    """Run random command lines, print how they ended; return how many ended badly."""
    began, ends, bad = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as home, contextlib.chdir(home), composing.remembered_files(), stubbed():
        keys = keys_of_cells()
        for start in range(0, count, PER_SEED):
            for words, status, wrong in faults_of(seed + start, min(PER_SEED, count - start), keys):
                ends[str(status)] += 1
                if wrong:
                    bad += 1
                    print(f"{shown(words)}: {wrong}", flush=True)
    said = ", ".join(f"{number} with status {status}" for status, number in sorted(ends.items()))
    print(f"{ends.total()} command lines in {time.monotonic() - began:.0f} s: {said}; {bad} ended badly")
    return bad


def main() -> int:
    """Run what the words ask for, and return 1 where anything was lost or ended badly."""
    words = argparse.ArgumentParser(prog="faults", description=__doc__)
    words.add_argument("--points", type=int, default=1000, help="points of the drivers, in equal shares")
    words.add_argument("--real", type=int, default=50, help="points of a real cell")
    words.add_argument("--kills", type=int, default=100, help="kills at random times")
    words.add_argument("--lists", type=int, default=10_000, help="random command lines")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--drivers", nargs="*", default=[one.name for one in DRIVERS])
    given = words.parse_args()
    lost = 0
    if given.points or given.real or given.kills:
        lost += files(given.drivers, given.points, given.real, given.kills, given.seed)
    if given.lists:
        lost += command_lines(given.lists, given.seed)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
