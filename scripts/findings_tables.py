"""Writes the tables of docs/findings.md from the committed studies alone: ``python scripts/findings_tables.py``.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->``; ``--check`` writes nothing and fails where one is
not what the studies give.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mibench.leaderboard.collect import readable
from mibench.leaderboard.groups import Group, groups_of
from mibench.leaderboard.render import number

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "findings.md"
VOTE = ("attack_accuracy", "top1", "vote")
AGREED = ("agreed_accuracy", "", "vote")

Row = Sequence[str]


def study(name: str) -> list[Group]:
    """Returns the measured groups of a committed study; none where it is not there."""
    path = ROOT / "results" / "studies" / f"{name}.parquet"
    return [one for one in groups_of(readable(path)) if one.measured] if path.exists() else []


def beside(group: Group, metric: str, variant: str = "", evaluator: str = "", interval: bool = False) -> str:
    """Returns a number beside its control, in bold where it is evidence of a leak; ``variant`` may be a beginning."""
    found = next(
        (
            one
            for one in group.numbers
            if one.score.metric == metric
            and (one.score.variant.startswith(variant) if variant else not one.score.variant)
            and evaluator in one.score.evaluator
        ),
        None,
    )
    if found is None or found.score.status != "ok":
        return ""
    score = found.score
    value = f"**{number(score.value)}**" if found.verdict == "leak" else number(score.value)
    spread = f" [{number(score.ci_low)}, {number(score.ci_high)}]" if interval else ""
    return f"{value}{spread} / {number(score.control)}"


def strength(group: Group, key: tuple[str, str, str] = VOTE) -> float:
    """Returns a group's number, for sorting."""
    found = group.number(*key)
    return found.score.value if found is not None else -1.0


def seeds(group: Group) -> str:
    """Returns how many seeds were measured."""
    return str(sum(cell.status == "ok" for cell in group.cells))


def attacks(dataset: str) -> list[Row]:
    """Returns the attacks on classes of a dataset, the strongest first."""
    rows: list[Row] = [
        ("attack", "vote / control", "agreed / control", "verified / control", "gradients", "seconds", "seeds")
    ]
    found = [
        one for one in study("image_inversion") if one.facts["dataset"] == dataset and one.facts["task"] == "class"
    ]
    for one in sorted(found, key=strength, reverse=True):
        cost = (f"{one.cost['gradient_evals']:.0f}", f"{one.cost['seconds']:.0f}", seeds(one))
        rows.append(
            (f"`{one.facts['attack']}`", beside(one, *VOTE, interval=True), beside(one, *AGREED),
             beside(one, "verification_rate", "held_out"), *cost)
        )  # fmt: skip
    return rows


def completions() -> list[Row]:
    """Returns the attacks on masked images."""
    rows: list[Row] = [("dataset", "attack", "PSNR of the hole / control", "SSIM of the hole / control",
                        "label / control", "seeds")]  # fmt: skip
    for one in study("image_inversion"):
        if one.facts["task"] == "completion":
            scores = (beside(one, "psnr", "hole"), beside(one, "ssim", "hole"), beside(one, "label_accuracy"))
            rows.append((one.facts["dataset"], f"`{one.facts['attack']}`", *scores, seeds(one)))
    return rows


def losses() -> list[Row]:
    """Returns the identity losses of each attack."""
    rows: list[Row] = [("attack", "loss", "vote / control", "agreed / control", "seeds")]
    found = study("image_inversion_losses")
    for one in sorted(found, key=lambda one: (one.facts["attack"], -strength(one))):
        loss = str(one.config["attack"]["identity"])
        rows.append((f"`{one.facts['attack']}`", loss, beside(one, *VOTE), beside(one, *AGREED), seeds(one)))
    return rows


def bases() -> list[Row]:
    """Returns every base beside LOMMA over it."""
    alone = {
        one.facts["attack"]: one for one in study("image_inversion") if one.facts["dataset"] == "att_faces"
    }  # fmt: skip
    rows: list[Row] = [("base", "alone: vote / control", "agreed", "LOMMA over it: vote / control", "agreed", "seeds")]
    for one in study("image_inversion_bases"):
        name = str(one.config["attack"]["base"]["name"])
        if name in alone:
            plain = (beside(alone[name], *VOTE), beside(alone[name], *AGREED))
            counts = f"{seeds(alone[name])}, {seeds(one)}"
            rows.append((f"`{name}`", *plain, beside(one, *VOTE), beside(one, *AGREED), counts))
    return rows


def targets() -> list[Row]:
    """Returns every attack on every target."""
    rows: list[Row] = [("target", "its accuracy", "attack", "vote / control", "agreed / control", "seconds")]
    found = study("image_inversion_targets")
    for one in sorted(found, key=lambda one: (one.facts["target"], -strength(one))):
        accuracy = one.number("target_accuracy", "victim")
        known = number(accuracy.score.value) if accuracy else ""
        rows.append((one.facts["target"], known, f"`{one.facts['attack']}`", beside(one, *VOTE), beside(one, *AGREED),
                     f"{one.cost['seconds']:.0f}"))  # fmt: skip
    return rows


TABLES: dict[str, Callable[[], list[Row]]] = {
    "att_faces": lambda: attacks("att_faces"),
    "lfw": lambda: attacks("lfw"),
    "completions": completions,
    "losses": losses,
    "bases": bases,
    "targets": targets,
}


def written(page: str) -> str:
    """Returns the page with its tables made afresh."""

    def table(match: re.Match[str]) -> str:
        first, *rows = TABLES[match[1]]()
        lines = [first, ["---"] * len(first), *rows]
        return "\n".join([f"<!-- table {match[1]} -->", *(f"| {' | '.join(row)} |" for row in lines), "<!-- end -->"])

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def main(words: Sequence[str]) -> int:
    """Writes the page, or with ``--check`` says whether it is up to date."""
    before = PAGE.read_text(encoding="utf-8")
    after = written(before)
    if "--check" in words:
        if after != before:
            print("docs/findings.md is not what the studies give; run: python scripts/findings_tables.py")
        return int(after != before)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
