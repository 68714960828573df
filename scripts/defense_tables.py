"""The tables of docs/findings.md that compare defenses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from study_numbers import VOTE, Group, Row, beside, study

from mibench.card import DefenseCard
from mibench.leaderboard.eligible import baseline, ineligible
from mibench.leaderboard.lines import number
from mibench.planning.catalogue import entry

#: The attack of each access level that defenses are compared by.
COMPARED = ("gmi", "inversion_network", "brepmi")

#: The defenses that mask answers.
MASKING = ("rounding", "top_k", "temperature", "score_noise", "purifier", "query_monitor", "label_only_output")

#: How much less often than the undefended victim a defended one may be right to count as matched.
MATCHED = 0.05


def level(group: Group) -> str:
    """Return the knob of a group's defense as it stood, ``a1=0.05``, or the baseline; empty where there is none."""
    if word := baseline(group):
        return word
    card = entry("defense", group.facts["defense"]).card
    assert isinstance(card, DefenseCard)
    value = group.config["defense"].get(card.strength)
    return "" if value is None else f"{card.strength}={value:g}"


def right(group: Group) -> float:
    """Return the accuracy of a group's victim."""
    return group.utility.score.value if group.utility is not None else float("nan")


def epsilon(group: Group) -> str:
    """Return the epsilon of a group's victim; empty where it has no guarantee, ``no bound`` where it is infinite."""
    found = next((one for one in group.numbers if one.score.metric == "epsilon"), None)
    if found is None:
        return ""
    return number(found.score.value) if math.isfinite(found.score.value) else "no bound"


def plain(group: Group) -> bool:
    """Whether the attacker asks about every input once."""
    return int(group.config["knowledge"].get("repeats", 1)) == 1


def swept(dataset: str, *names: str) -> dict[tuple[str, str], dict[str, Group]]:
    """Return the attacks on every level of every defense, by defense and level, then by attack."""
    found: dict[tuple[str, str], dict[str, Group]] = {}
    for one in study(*(names or ("utility_sweep",))):
        if one.facts["dataset"] == dataset and plain(one):
            found.setdefault((one.facts["defense"], level(one)), {})[one.facts["attack"]] = one
    return found


def victims(attacks: dict[str, Group]) -> Group:
    """Return the attack before which most victims of one level stood: what is known of them is known best there."""
    return max(attacks.values(), key=lambda one: len(one.cells))


def cost(attacks: dict[str, Group], bare: dict[str, Group]) -> tuple[str, str]:
    """Return accuracy and training, over that of the undefended victim, of one level of a defense."""
    defended, undefended = victims(attacks), victims(bare)
    times = defended.cost["training_seconds"] / undefended.cost["training_seconds"]
    return number(right(defended)), "" if math.isnan(times) else f"{times:.2g}x"


def line(attacks: dict[str, Group], bare: dict[str, Group]) -> tuple[str, ...]:
    """Return accuracy, cost of training and the numbers of the compared attacks of one level of a defense."""
    return *cost(attacks, bare), *(beside(attacks[one], *VOTE) if one in attacks else "" for one in COMPARED)


def place(defense: str, knob: str) -> int:
    """Return where a level stands on the defense's card, weak to strong; -1 where the card does not name it."""
    card = entry("defense", defense).card
    assert isinstance(card, DefenseCard)
    known = [f"{card.strength}={value:g}" for value in card.levels]
    return known.index(knob) if knob in known else -1


def matched(dataset: str) -> list[Row]:
    """Return each defense at the strongest of its levels that keeps the victim's accuracy, by name.

    The level is chosen by the accuracy alone, and is none at which the model is no better than naming the most frequent
    class: who picks the one that leaks least reports luck on the same targets.
    """
    found = swept(dataset)
    rows: list[Row] = [("defense", "level", "accuracy", "training", *(f"`{one}` / control" for one in COMPARED))]
    bare = found.get(("none", ""))
    if bare is None:
        return rows
    least = right(victims(bare)) - MATCHED
    for defense in sorted({name for name, _ in found}, key=lambda name: (name != "none", name)):
        own = {knob: attacks for (name, knob), attacks in found.items() if name == defense}
        kept = [
            knob for knob, attacks in own.items()
            if right(victims(attacks)) >= least and not ineligible(victims(attacks))
        ]  # fmt: skip
        if kept:
            knob = max(kept, key=lambda one: place(defense, one))
            rows.append((f"`{defense}`", knob, *line(own[knob], bare)))
        else:
            rows.append((f"`{defense}`", "none keeps the accuracy", "", "", "", "", ""))
    return rows


def levels(dataset: str, *defenses: str) -> list[Row]:
    """Return every level of some defenses."""
    rows: list[Row] = [
        ("defense", "level", "epsilon", "accuracy", "training", *(f"`{one}` / control" for one in COMPARED))
    ]
    found = swept(dataset, "utility_sweep", "label_smoothing", "defense_seeds")
    chosen = {key: attacks for key, attacks in found.items() if key[0] in ("none", *defenses)}

    def order(one: tuple[str, str]) -> tuple[int, float]:
        return ("none", *defenses).index(one[0]), float(one[1].partition("=")[2] or 0)

    for defense, knob in sorted(chosen, key=order):
        attacks = chosen[defense, knob]
        rows.append((f"`{defense}`", knob, epsilon(victims(attacks)), *line(attacks, found["none", ""])))
    return rows


def repeated(*datasets: str) -> list[Row]:
    """Return what asking several times brings, against defenses that answer at random."""
    rows: list[Row] = [("dataset", "defense", "level", "attack", "asks once / control", "asks 8 times / control")]
    found: dict[tuple[str, str, str, str], dict[bool, Group]] = {}
    for one in study("utility_sweep"):
        key = (one.facts["dataset"], one.facts["defense"], level(one), one.facts["attack"])
        found.setdefault(key, {})[plain(one)] = one
    for (dataset, defense, knob, attack), both in sorted(found.items()):
        if len(both) == 2 and dataset in datasets:
            rows.append(
                (dataset, f"`{defense}`", knob, f"`{attack}`", *(beside(both[asks], *VOTE) for asks in (True, False)))
            )
    return rows


def between(values: Sequence[float]) -> str:
    """Return the range of some numbers, or the one that they are."""
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def records() -> list[Row]:
    """Return each defense of tables: over its levels, its guarantee, and the ranges of accuracy, answers and lift."""
    rows: list[Row] = [("defense", "levels", "epsilon", "accuracy", "attribute accuracy", "control", "lift")]
    found: dict[str, list[Group]] = {}
    for one in study("utility_sweep"):
        if one.facts["task"] == "attribute":
            found.setdefault(one.facts["defense"], []).append(one)
    for defense, groups in sorted(found.items(), key=lambda one: (one[0] != "none", one[0])):
        own = sorted(groups, key=lambda one: place(one.facts["defense"], level(one)))
        knobs = ", ".join(filter(None, (level(one).partition("=")[2] for one in own)))
        spent = ", ".join(filter(None, map(epsilon, own)))
        scores = [one.headline.score for one in own if one.headline is not None]
        ranges = ([one.value for one in scores], [one.control for one in scores], [one.lift for one in scores])
        rows.append((f"`{defense}`", knobs, spent, between(list(map(right, own))), *map(between, ranges)))
    return rows


def features(dataset: str) -> list[Row]:
    """Return the defenses of split features before each attacker."""
    rows: list[Row] = [("defense", "level", "sends", "accuracy", "training", "`split_decoder`: PSNR / control",
                        "SSIM / control", "`split_rmle`: PSNR / control", "SSIM / control")]  # fmt: skip
    found: dict[tuple[str, str, int], dict[str, Group]] = {}
    for one in study("utility_sweep_split"):
        if one.facts["dataset"] == dataset:
            key = (one.facts["defense"], level(one), int(one.config["setting"]["sends"]))
            found.setdefault(key, {})[one.facts["attack"]] = one
    for (defense, knob, sends), attacks in sorted(found.items(), key=lambda one: (one[0][0] != "none", one[0])):
        scores = [
            beside(attacks[attack], metric, variant) if attack in attacks else ""
            for attack in ("split_decoder", "split_rmle")
            for metric, variant in (("psnr", ""), ("ssim", "window"))
        ]
        rows.append((f"`{defense}`", knob, str(sends), *cost(attacks, found["none", "", 1]), *scores))
    return rows


def who(group: Group) -> str:
    """Return what the attacker on a client's updates knows of its defense."""
    if skipped := group.config["attack"].get("skip_last"):
        return f"leaves out {skipped} tensors"
    return "its loss" if group.config["knowledge"].get("defense_loss") else "cross-entropy"


def clients(dataset: str) -> list[Row]:
    """Return the defenses of training in clients, before who does not know of them and every way of knowing, by the
    accuracy that federated training with them reaches."""
    rows: list[Row] = [("defense", "level", "accuracy", "cross-entropy: PSNR / control", "SSIM / control",
                        "who knows: PSNR / control", "SSIM / control", "of it")]  # fmt: skip
    found: dict[tuple[str, str], dict[str, Group]] = {}
    for one in study("utility_sweep_federated"):
        if one.facts["dataset"] == dataset:
            found.setdefault((one.facts["defense"], level(one)), {})[who(one)] = one
    for (defense, knob), attackers in sorted(found.items(), key=lambda one: (one[0][0] != "none", one[0])):
        plain = attackers.pop("cross-entropy")
        for knows in sorted(attackers) or [""]:
            scores = [
                beside(one, metric, variant) if one else ""
                for one in (plain, attackers.get(knows))
                for metric, variant in (("psnr", ""), ("ssim", "window"))
            ]
            rows.append((f"`{defense}`", knob, number(right(plain)), *scores, knows))
    return rows


TABLES: dict[str, Callable[[], list[Row]]] = {
    "matched_att_faces": lambda: matched("att_faces"),
    "matched_lfw": lambda: matched("lfw"),
    "smoothing_att_faces": lambda: levels("att_faces", "neg_ls"),
    "smoothing_lfw": lambda: levels("lfw", "neg_ls"),
    "transfer_att_faces": lambda: levels("att_faces", "bido", "tl_dmi"),
    "transfer_lfw": lambda: levels("lfw", "bido", "tl_dmi"),
    "private_att_faces": lambda: levels("att_faces", "dp_sgd", "class_dp"),
    "private_lfw": lambda: levels("lfw", "dp_sgd", "class_dp"),
    "masked_att_faces": lambda: levels("att_faces", *MASKING),
    "masked_lfw": lambda: levels("lfw", *MASKING),
    "repeated": lambda: repeated("att_faces", "lfw"),
    "records": records,
    "features_att_faces": lambda: features("att_faces"),
    "features_lfw": lambda: features("lfw"),
    "clients_att_faces": lambda: clients("att_faces"),
    "clients_lfw": lambda: clients("lfw"),
}
