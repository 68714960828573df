"""The tables of docs/findings.md that compare defenses."""

from __future__ import annotations

import math
from collections.abc import Callable

from study_numbers import VOTE, Group, Row, beside, study

from mibench.card import DefenseCard
from mibench.leaderboard.render import number
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.worst import picked
from mibench.planning.catalogue import entry

#: The attack of each access level that defenses are compared by.
COMPARED = ("gmi", "inversion_network", "brepmi")

#: The defenses that mask answers.
MASKING = ("rounding", "top_k", "temperature", "score_noise", "purifier", "query_monitor", "label_only_output")

#: How much less often than the undefended victim a defended one may be right to count as matched.
MATCHED = 0.05


def level(group: Group) -> str:
    """Return the knob of a group's defense as it stood, ``a1=0.05``; empty where there is none."""
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


def lift_of(group: Group) -> float:
    """Return the lift of a group's headline number."""
    return group.headline.score.lift if group.headline is not None else float("nan")


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


def matched(dataset: str) -> list[Row]:
    """Return each defense at the level that leaks least of those that keep the victim's accuracy, the best first.

    A level leaks what the strongest of the compared attacks brings out of all targets, and of equal ones what all of
    them do; the worst case is what the one picked by one half of the targets brings out of the other. An attack that
    does not meet the defense brings out what it does of the undefended victim.
    """
    found = swept(dataset)
    bare = found.get(("none", ""), {})
    if not bare:
        return [("defense",)]
    least = right(victims(bare)) - MATCHED

    def scores(attacks: dict[str, Group]) -> list[Score]:
        return [one.headline.score for one in (bare | attacks).values() if one.headline is not None]

    def leaks(attacks: dict[str, Group]) -> tuple[float, float]:
        lifts = [score.lift for score in scores(attacks)]
        return max(lifts), sum(lifts)

    def worst(attacks: dict[str, Group]) -> float:
        return picked([(score.lift_even, score.lift_odd) for score in scores(attacks)])[2]

    kept: dict[str, tuple[str, dict[str, Group]]] = {}
    lost = []
    for (defense, knob), attacks in found.items():
        if right(victims(attacks)) < least:
            lost.append(defense)
        elif defense not in kept or leaks(attacks) < leaks(kept[defense][1]):
            kept[defense] = knob, attacks
    rows: list[Row] = [
        ("defense", "level", "accuracy", "training", *(f"`{one}` / control" for one in COMPARED), "worst case")
    ]
    for defense, (knob, attacks) in sorted(kept.items(), key=lambda one: worst(one[1][1])):
        rows.append((f"`{defense}`", knob, *line(attacks, bare), number(worst(attacks), signed=True)))
    for defense in sorted(set(lost) - set(kept)):
        rows.append((f"`{defense}`", "none keeps the accuracy", "", "", "", "", "", ""))
    return rows


def levels(dataset: str, *defenses: str) -> list[Row]:
    """Return every level of some defenses."""
    rows: list[Row] = [
        ("defense", "level", "epsilon", "accuracy", "training", *(f"`{one}` / control" for one in COMPARED))
    ]
    found = swept(dataset, "utility_sweep", "label_smoothing", "defense_seeds")
    chosen = {key: attacks for key, attacks in found.items() if key[0] in ("none", *defenses)}

    def place(one: tuple[str, str]) -> tuple[int, float]:
        return ("none", *defenses).index(one[0]), float(one[1].partition("=")[2] or 0)

    for defense, knob in sorted(chosen, key=place):
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


def records() -> list[Row]:
    """Return each defense of tables: over its levels, what its guarantee, its accuracy and its lift are."""
    rows: list[Row] = [("defense", "levels", "epsilon", "accuracy", "attribute accuracy / control", "lift")]
    found: dict[str, list[Group]] = {}
    for one in study("utility_sweep"):
        if one.facts["task"] == "attribute":
            found.setdefault(one.facts["defense"], []).append(one)
    for defense, own in sorted(found.items(), key=lambda one: (one[0] != "none", one[0])):
        worst = max(own, key=lift_of)
        knobs = ", ".join(filter(None, (level(one).partition("=")[2] for one in sorted(own, key=right))))
        spent = ", ".join(filter(None, (epsilon(one) for one in sorted(own, key=right))))
        accuracies = (
            f"{number(min(map(right, own)))} to {number(max(map(right, own)))}"
            if len(own) > 1
            else number(right(own[0]))
        )
        score = beside(worst, "attribute_accuracy")
        rows.append((f"`{defense}`", knobs, spent, accuracies, score, number(lift_of(worst), signed=True)))
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
    """Return the defenses of training in clients, before who does not know of them and who does, by the accuracy that
    federated training with them reaches."""
    rows: list[Row] = [("defense", "level", "accuracy", "cross-entropy: PSNR / control", "SSIM / control",
                        "who knows: PSNR / control", "SSIM / control", "of it")]  # fmt: skip
    found: dict[tuple[str, str], dict[str, Group]] = {}
    for one in study("utility_sweep_federated"):
        if one.facts["dataset"] == dataset:
            found.setdefault((one.facts["defense"], level(one)), {})[who(one)] = one
    for (defense, knob), attackers in sorted(found.items(), key=lambda one: (one[0][0] != "none", one[0])):
        plain = attackers.pop("cross-entropy")
        knows = max(attackers, key=lambda name: lift_of(attackers[name]), default="")
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
