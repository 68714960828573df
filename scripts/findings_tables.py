"""Writes docs/findings.md from its template and the committed studies alone: ``python scripts/findings_tables.py``.

The template is ``docs/findings.in.md``. In it a table stands as ``<!-- table NAME -->`` and ``<!-- end -->``, and the
verdict of a claim (``results/claims/ID.yaml``) as ``{{claim:ID}}``. Where the template names an unknown claim or table,
or leaves a claim out, nothing is written and a sentence says why. ``--check`` writes nothing and fails where the page
is not what the studies give.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import defense_tables
from study_numbers import AGREED, ROOT, VOTE, Group, Row, beside, seeds, strength, study

from mibench.leaderboard.claims import Judgement, claims_in, effect, judge
from mibench.leaderboard.collect import collect_studies
from mibench.leaderboard.groups import groups_of
from mibench.leaderboard.lines import number
from mibench.leaderboard.verdicts import above_control

TEMPLATE = ROOT / "docs" / "findings.in.md"
PAGE = ROOT / "docs" / "findings.md"

FIRST = "<!-- Generated from findings.in.md by scripts/findings_tables.py: edit the template, not this page. -->"


def attacks(dataset: str) -> list[Row]:
    """Return the attacks on classes of a dataset, the strongest first."""
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
    """Return the attacks on masked images."""
    rows: list[Row] = [("dataset", "attack", "PSNR of the hole / control", "SSIM of the hole / control",
                        "label / control", "seeds")]  # fmt: skip
    for one in study("image_inversion"):
        if one.facts["task"] == "completion":
            scores = (beside(one, "psnr", "hole"), beside(one, "ssim", "hole"), beside(one, "label_accuracy"))
            rows.append((one.facts["dataset"], f"`{one.facts['attack']}`", *scores, seeds(one)))
    return rows


def losses() -> list[Row]:
    """Return the identity losses of each attack."""
    rows: list[Row] = [("attack", "loss", "vote / control", "agreed / control", "seeds")]
    found = study("image_inversion_losses")
    for one in sorted(found, key=lambda one: (one.facts["attack"], -strength(one))):
        loss = str(one.config["attack"]["identity"])
        rows.append((f"`{one.facts['attack']}`", loss, beside(one, *VOTE), beside(one, *AGREED), seeds(one)))
    return rows


def bases() -> list[Row]:
    """Return every base beside LOMMA over it."""
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
    """Return every attack on every target."""
    rows: list[Row] = [("target", "its accuracy", "attack", "vote / control", "agreed / control", "seconds")]
    found = study("image_inversion_targets")
    for one in sorted(found, key=lambda one: (one.facts["target"], -strength(one))):
        accuracy = one.number("target_accuracy", "victim")
        known = number(accuracy.score.value) if accuracy else ""
        rows.append((one.facts["target"], known, f"`{one.facts['attack']}`", beside(one, *VOTE), beside(one, *AGREED),
                     f"{one.cost['seconds']:.0f}"))  # fmt: skip
    return rows


DEFENSES = ("none", "gradient_noise", "gradient_pruning", "soteria", "precode", "dgp")


def batch(group: Group) -> int:
    """Return how many examples stand behind one update."""
    return int(group.config["setting"]["batch_size"])


def gradients(dataset: str) -> list[Row]:
    """Return the gradient inversions of undefended updates by batch, the strongest on one example first."""
    sizes = (1, 4, 8)
    rows: list[Row] = [
        ("attack", "target", *(f"PSNR / control, batch {size}" for size in sizes), "label, batch 1", "8", "seconds")
    ]
    found: dict[str, dict[int, Group]] = {}
    for one in study("gradient_inversion"):
        if one.facts["dataset"] == dataset and one.facts["defense"] == "none":
            found.setdefault(one.facts["attack"], {})[batch(one)] = one
    order = sorted(found, key=lambda name: strength(found[name][1], ("psnr", "", "")), reverse=True)
    for name in order:
        own = found[name]
        scores = [beside(own[size], "psnr") if size in own else "" for size in sizes]
        labels = [value(own[size], "label_accuracy") if size in own else "" for size in (1, 8)]
        cost = "/".join(f"{own[size].cost['seconds']:.0f}" for size in sizes if size in own)
        rows.append((f"`{name}`", own[1].facts["target"], *scores, *labels, cost))
    return rows


def value(group: Group, metric: str, variant: str = "") -> str:
    """Return a number without its control."""
    found = group.number(metric, variant)
    return number(found.score.value) if found is not None and found.score.status == "ok" else ""


def defended(dataset: str, size: int) -> list[Row]:
    """Return each attack's PSNR under each defense of the update, and first what the defense costs."""
    rows: list[Row] = [("attack", *(f"`{name}`" for name in DEFENSES))]
    found: dict[str, dict[str, Group]] = {}
    for one in study("gradient_inversion"):
        if one.facts["dataset"] == dataset and batch(one) == size:
            found.setdefault(one.facts["attack"], {})[one.facts["defense"]] = one
    if own := found.get("analytic_linear"):
        costs = [value(own[name], "federated_accuracy") if name in own else "" for name in DEFENSES]
        rows.append(("*accuracy of the `mlp` after 100 rounds*", *costs))
    for attack, own in sorted(found.items()):
        rows.append((f"`{attack}`", *(beside(own[name], "psnr") if name in own else "" for name in DEFENSES)))
    return rows


def defended_batches(dataset: str) -> list[Row]:
    """Return by how many decibels each attack passes its control at four and at eight pictures, under each defense."""
    rows: list[Row] = [("attack", *(f"`{name}`" for name in DEFENSES))]
    found: dict[str, dict[tuple[str, int], Group]] = {}
    for one in study("gradient_inversion"):
        if one.facts["dataset"] == dataset and batch(one) > 1:
            found.setdefault(one.facts["attack"], {})[one.facts["defense"], batch(one)] = one
    for attack, own in sorted(found.items()):
        lifts = [" / ".join(lift(own.get((name, size)), "psnr") for size in (4, 8)) for name in DEFENSES]
        rows.append((f"`{attack}`", *lifts))
    return rows


def lift(group: Group | None, metric: str) -> str:
    """Return the lift over the control, in bold where its interval lies above zero; a dash where there is none."""
    found = None if group is None else group.number(metric)
    if found is None or found.score.status != "ok":
        return "-"
    text = f"{found.score.lift:+.1f}"
    return f"**{text}**" if above_control(found.score) else text


def distances() -> list[Row]:
    """Return two gradient distances on a young and a trained model, by the weight of the total variation."""
    found = {
        (one.config["setting"]["pooled_epochs"], one.config["attack"]["distance"], one.config["attack"]["tv"]): one
        for one in study("gradient_inversion_distances")
    }
    weights = sorted({weight for _, _, weight in found})
    rows: list[Row] = [("model", "distance", *(f"weight {weight:g}" for weight in weights))]
    for epochs, what in ((0, "untrained"), (None, "trained")):
        for distance in ("cosine", "squared"):
            cells = [found.get((epochs, distance, weight)) for weight in weights]
            rows.append((what, distance, *(beside(one, "psnr") if one else "" for one in cells)))
    return rows


def batch_norm_prior() -> list[Row]:
    """Return attacks with and without the comparison of batch-norm statistics."""
    rows: list[Row] = [("attack", "batch", "with: PSNR / control", "without", "with: SSIM / control", "without")]
    found: dict[tuple[str, int], dict[bool, Group]] = {}
    for one in study("gradient_inversion_batch_norm"):
        found.setdefault((one.facts["attack"], batch(one)), {})[one.config["attack"]["bn"] > 0] = one
    for (attack, size), both in sorted(found.items()):
        scores = [
            beside(both[on], metric, "window" if metric == "ssim" else "")
            for metric in ("psnr", "ssim")
            for on in (True, False)
        ]
        rows.append((f"`{attack}`", str(size), *scores))
    return rows


def adaptive() -> list[Row]:
    """Return each defense before an attacker who does not know of it and one who does."""
    rows: list[Row] = [("dataset", "defense", "attack", "batch", "unaware: PSNR / control", "aware", "undefended")]
    bare = {
        (one.facts["dataset"], one.facts["attack"], batch(one)): one
        for one in study("gradient_inversion")
        if one.facts["defense"] == "none"
    }
    found: dict[tuple[str, str, str, int], dict[bool, Group]] = {}
    for one in study("gradient_inversion_adaptive"):
        options = one.config["attack"]
        knows = bool(options.get("mask_sent") or options.get("skip_last") or options.get("leak", "none") != "none")
        key = (one.facts["dataset"], one.facts["defense"], one.facts["attack"], batch(one))
        found.setdefault(key, {})[knows] = one
    for (dataset, defense, attack, size), both in sorted(found.items()):
        scores = [beside(both[knows], "psnr") if knows in both else "" for knows in (False, True)]
        plain = bare.get((dataset, attack, size))
        rows.append(
            (dataset, f"`{defense}`", f"`{attack}`", str(size), *scores, beside(plain, "psnr") if plain else "")
        )
    return rows


def relaxed() -> list[Row]:
    """Return each attack with all it may be granted and with one thing taken away or given at a time."""
    found: dict[str, dict[str, Group]] = {}
    for one in study("relax_assumptions"):
        setting, knowledge = one.config["setting"], one.config["knowledge"]
        changes = {
            "labels": not knowledge["labels"],
            "its batch's norm": setting["batch_norm"] == "train" and not setting["share_buffers"],
            "and its statistics": setting["share_buffers"],
            "trained": setting["pooled_epochs"] is None,
            "local steps": setting["local_epochs"] > 1 and knowledge["local_training"],
            "unknown ones": not knowledge["local_training"],
        }
        named = [name for name, changed in changes.items() if changed]
        found.setdefault(one.facts["attack"], {})[named[0] if named else "granted"] = one
    columns = ("granted", "labels", "its batch's norm", "and its statistics", "trained", "local steps", "unknown ones")
    rows: list[Row] = [("attack", "all granted", "labels unknown", *columns[2:])]
    for attack, own in sorted(found.items()):
        rows.append((f"`{attack}`", *(beside(own[name], "psnr") if name in own else "" for name in columns)))
    return rows


TABLES: dict[str, Callable[[], list[Row]]] = {
    "att_faces": lambda: attacks("att_faces"),
    "lfw": lambda: attacks("lfw"),
    "completions": completions,
    "losses": losses,
    "bases": bases,
    "targets": targets,
    "gradients_cifar10": lambda: gradients("cifar10"),
    "gradients_lfw": lambda: gradients("lfw"),
    "defended_cifar10": lambda: defended("cifar10", 1),
    "defended_lfw": lambda: defended("lfw", 1),
    "batches_cifar10": lambda: defended_batches("cifar10"),
    "batches_lfw": lambda: defended_batches("lfw"),
    "distances": distances,
    "batch_norm_prior": batch_norm_prior,
    "adaptive": adaptive,
    "relaxed": relaxed,
    **defense_tables.TABLES,
}


@cache
def judgements() -> dict[str, Judgement]:
    """Return what the committed rows say of every claim, by its id."""
    groups = groups_of(collect_studies(ROOT / "results").table)
    return {one.id: judge(one, groups) for one in claims_in(ROOT / "results")}


def verdict_line(one: Judgement) -> str:
    """Return a claim's statement, verdict, effect with its interval, targets, seeds, reason and id.

    >>> from mibench.leaderboard.claims import Claim
    >>> claim = Claim(id="a_over_b", statement="A leaks more than B.", kind="difference", left={})
    >>> verdict_line(Judgement(claim=claim, verdict="holds", effect=2.0, low=1.0, high=3.0, unit="dB", n=10, seeds=3))
    'A leaks more than B. **holds**: +2 dB [1, 3], 10 targets, 3 seeds (`a_over_b`)'
    """
    targets = f"{one.n} targets" if one.n else ""
    seeds = f"{one.seeds} seed{'s' * (one.seeds != 1)}" if one.seeds else ""
    told = ", ".join(filter(None, (effect(one), targets, seeds, one.remarks)))
    return f"{one.claim.statement} **{one.verdict}**: {told} (`{one.claim.id}`)"


def written(template: str, claims: Mapping[str, Judgement]) -> str:
    """Return the page of a template.

    Raises:
        SystemExit: If it names a claim or a table that there is none of, or leaves a claim out.
    """
    named, tables = re.findall(r"{{claim:(\w*)}}", template), re.findall(r"<!-- table (\w+) -->", template)
    for word, wrong in (
        ("names a claim that there is none of:", set(named) - set(claims)),
        ("names a table that there is none of:", set(tables) - set(TABLES)),
        ("leaves out the claim", set(claims) - set(named)),
    ):
        if wrong:
            raise SystemExit(f"docs/findings.in.md {word} {', '.join(sorted(wrong))}.")

    def table(match: re.Match[str]) -> str:
        first, *rows = TABLES[match[1]]()
        lines = [first, ["---"] * len(first), *rows]
        return "\n".join([f"<!-- table {match[1]} -->", *(f"| {' | '.join(row)} |" for row in lines), "<!-- end -->"])

    told = re.sub(r"{{claim:(\w+)}}", lambda match: verdict_line(claims[match[1]]), template)
    return f"{FIRST}\n\n" + re.sub(r"<!-- table (\w+) -->\n<!-- end -->", table, told)


def main(words: Sequence[str]) -> int:
    """Write the page, or with ``--check`` say whether it is up to date."""
    after = written(TEMPLATE.read_text(encoding="utf-8"), judgements())
    if "--check" not in words:
        PAGE.write_text(after, encoding="utf-8")
    elif not PAGE.exists() or after != PAGE.read_text(encoding="utf-8"):
        print("docs/findings.md is not what template and studies give; run: python scripts/findings_tables.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
