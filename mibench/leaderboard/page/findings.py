"""Three findings, computed from the rows: a number first, then what it means. Nothing of them is typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mibench.leaderboard.lines import number as written
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.names import Segment, amount, joined, link, listed
from mibench.leaderboard.page.rankings import Differences, Ranked, defense_rankings
from mibench.leaderboard.page.records import Record
from mibench.leaderboard.page.views import ACCESSES
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.verdicts import independent

#: How many findings a page has.
MOST = 3

#: Points of accuracy that a defense may cost in a finding.
POINTS = 5

#: Fewest defenses that a finding counts.
FEW = 3

#: Metric of independent recognisers.
RECOGNISER = "verification_rate"

Finding = dict[str, Any]


def findings(sources: Sources) -> list[Finding]:
    """Return the first three findings that the rows allow, as number, unit and text."""
    found: list[Finding] = []
    for tell in TOLD:
        if len(found) < MOST and (one := tell(sources)) is not None:
            found.append(one)
    return found


def _title(sources: Sources, axis: str, record: Record) -> Segment:
    name = record.group.facts[axis]
    title = sources.axes.title(axis, name)
    return [title, f"#/dataset/{name}"] if axis == "dataset" else link(axis, name, title)


def _undefended(sources: Sources) -> Iterator[Record]:
    return (one for one in sources.records if one.defense == "none" and one.score is not None)


# What classifiers say, and what a recogniser says


def named_and_recognised(sources: Sources) -> Finding | None:
    """Return how often classifiers name the best attack's pictures right, and how often a recogniser accepts them.

    Told of the view in which the most undefended attacks were judged by a recogniser with power, and of the attack
    there that classifiers name right most often.
    """
    own: dict[int, list[tuple[Record, Score]]] = {}
    for one in _undefended(sources):
        if one.group.facts["task"] != "class":
            continue
        said = [score for _, score in independent([number.score for number in one.group.numbers])
                if score.metric == RECOGNISER]  # fmt: skip
        if said:
            own.setdefault(one.view, []).append((one, said[0]))
    if not own:
        return None
    judged = own[min(own, key=lambda view: (-len(own[view]), view))]
    record, accepted = min(judged, key=lambda pair: (-_value(pair[0]), pair[0].group.group_id))
    most = max(score.value for _, score in judged)
    attacks = len({one.attack for one, _ in judged})
    text: list[Segment] = [
        "of ", _title(sources, "attack", record), "'s pictures of ", _title(sources, "dataset", record),
        f" are named right by the evaluation models. A face recogniser that took no part in anything accepts "
        f"{_percent(accepted.value)} % of them",
    ]  # fmt: skip
    text.append(f"; of {attacks} attacks on this model none passes {_percent(most)} %." if attacks > 1 else ".")
    return {"number": _percent(_value(record)), "unit": "%", "text": joined(text)}


def _value(record: Record) -> float:
    assert record.score is not None
    return record.score.value


def _percent(share: float) -> str:
    return written(100 * share)


# What defenses buy


def defenses_that_lower(sources: Sources) -> Finding | None:
    """Return how many defenses clearly lower an attack's lift within ``POINTS`` points of accuracy.

    Told of the attacks that see the most of the model (:data:`mibench.leaderboard.page.views.ACCESSES`), and of the
    attack and view among them with the most defenses of known accuracy; the setting of each is the
    strongest that stays within the points (:func:`mibench.leaderboard.page.rankings.defense_rankings`).
    """
    best: tuple[tuple[int, int, int, str], int, str] | None = None
    for place, table in enumerate(sources.tables):
        for attack in table.attacks:
            known = sum(
                any(one.accuracy == one.accuracy for one in row)
                for (name, defense), row in table.cells.items()
                if name == attack and defense != "none"
            )
            undefended = table.cells.get((attack, "none"), ())
            accesses = [list(ACCESSES).index(one.group.facts["access"]) for one in undefended]
            rank = (min(accesses, default=len(ACCESSES)), -known, place, attack)
            told = any(one.accuracy == one.accuracy and one.known for one in undefended)
            if told and known >= FEW and (best is None or rank < best[0]):
                best = (rank, place, attack)
    if best is None:
        return None
    _, place, attack = best
    table, records = sources.tables[place], sources.in_view(place)
    differences = Differences(sources.paired(place), "defense")
    ranked, outside = defense_rankings(attack, table, records, differences)[POINTS]
    lower = [one for one in ranked if one.word == "less"]
    return {"number": str(len(lower)), "unit": f"of {len(ranked) + len(outside)}",
            "text": joined(_lowered(sources, attack, records[0], lower, len(ranked)))}  # fmt: skip


def _lowered(sources: Sources, attack: str, record: Record, lower: Sequence[Ranked], inside: int) -> list[Segment]:
    names: list[Segment] = [_title(sources, "defense", one.record) for one in lower]
    return [
        f"defenses clearly lower{'s' if len(lower) == 1 else ''} the lift of ",
        link("attack", attack, sources.axes.title("attack", attack)),
        " on ", _title(sources, "dataset", record), f" at a cost of at most {_words(POINTS)} points of accuracy",
        *([" (", *listed(names), ")"] if names else []),
        f"; {inside} have a setting that stays within it.",
    ]  # fmt: skip


def _words(count: int) -> str:
    return {2: "two", 5: "five", 10: "ten"}.get(count, str(count))


# What one update gives away


def one_update(sources: Sources) -> Finding | None:
    """Return how well the best attack gets one example back from one update, and from the update of another network.

    Told of updates of one example without a defense, in decibels; the other network is the one on which the best attack
    gets the least.
    """
    best: dict[tuple[str, str], Record] = {}
    for one in _undefended(sources):
        facts, score = one.group.facts, one.score
        assert score is not None
        batch = one.group.config["setting"].get("batch_size")
        if facts["task"] != "instance" or facts["access"] != "gradients" or batch != 1 or score.unit != "dB":
            continue
        key = (facts["dataset"], facts["target"])
        if key not in best or _rank(one) < _rank(best[key]):
            best[key] = one
    datasets = {dataset for dataset, _ in best}
    both = {name: [one for (dataset, _), one in best.items() if dataset == name] for name in datasets}
    if not both:
        return None
    dataset = min(both, key=lambda name: (-len(both[name]), min(map(_rank, both[name])), name))
    order = sorted(both[dataset], key=_rank)
    record, least = order[0], order[-1]
    score = record.score
    assert score is not None
    text: list[Segment] = [
        f"{_metric(score)} of what ", _title(sources, "attack", record), " gets back from one update of an undefended "
        f"{record.group.facts['target']} on ", _title(sources, "dataset", record),
        f" (control {amount(score.control, score.unit)}).",
    ]  # fmt: skip
    if least is not record and least.score is not None:
        text += [
            f" From a {least.group.facts['target']}'s update the best attack, ", _title(sources, "attack", least),
            f", gets {amount(least.score.value, score.unit)} (control {amount(least.score.control, score.unit)}).",
        ]  # fmt: skip
    return {"number": written(score.value), "unit": score.unit, "text": joined(text)}


def _metric(score: Score) -> str:
    return score.metric.upper()


def _rank(record: Record) -> tuple[float, str]:
    return -_value(record), record.group.group_id


# What is left where rows hold none of that


def leaks_shown(sources: Sources) -> Finding | None:
    """Return of how many groups without a defense the number is a leak, among those with values by target."""
    known = [one for one in _undefended(sources) if not one.group.old]
    if not known:
        return None
    leaks = [one for one in known if one.score is not None and one.score.evidence == "leak"]
    text = "attacks on undefended models, each counted once per setting, are shown to get private data."
    return {"number": str(len(leaks)), "unit": f"of {len(known)}", "text": [text]}


def strongest_of_several(sources: Sources) -> Finding | None:
    """Return the worst case of the undefended victim before which the most attacks stand."""
    cases = [one for one in sources.cases if one.facts["defense"] == "none"]
    if not cases:
        return None
    case = min(cases, key=lambda one: (-one.attacks, -one.lift, one.groups[0].group_id))
    record = sources.records[sources.place_of(case.groups[0].group_id)]
    return {
        "number": written(case.lift), "unit": case.unit,
        "text": joined([f"is the lift of the strongest of {case.attacks} attacks on an undefended ",
                        f"{case.facts['target']} of ", _title(sources, "dataset", record),
                        ", each picked on targets on which it is not reported."]),
    }  # fmt: skip


def most_measured(sources: Sources) -> Finding | None:
    """Return how many pairs of attack and defense have a number."""
    pairs = {(one.attack, one.defense) for one in sources.records if one.score is not None}
    if not pairs:
        return None
    return {"number": f"{len(pairs):,}", "unit": "", "text": ["pairs of attack and defense have a number here."]}


#: Findings in the order in which they are tried.
TOLD: Sequence[Callable[[Sources], Finding | None]] = (
    named_and_recognised, defenses_that_lower, one_update, strongest_of_several, leaks_shown, most_measured,
)  # fmt: skip
