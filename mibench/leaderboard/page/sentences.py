"""What the number of one group says, in a sentence for a reader outside the field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from mibench.leaderboard.page.names import Segment, amount, headline_name, link, title_in
from mibench.leaderboard.page.records import Record
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.verdicts import independent
from mibench.planning.sources import lineage, source_of

#: Where the control of a task comes from, before its value.
CONTROLS: Mapping[str, str] = {
    "class": "on a model that never saw these {people} the same attack gets",
    "completion": "on a model that never saw these {people} the same attack gets",
    "attribute": "a guess without the model gets",
    "sequence": "another client's update gives",
    "edges": "on a model that never saw a link the same attack gets",
}

#: The control where inputs are looked for, by access.
OF_CLIENTS: Mapping[str, str] = {
    "gradients": "another client's update gives", "features": "another client's features give",
}  # fmt: skip


def claim(record: Record) -> list[Segment]:
    """Return the sentence of a group's page, as text and links; what many sentences share stands in its own pieces."""
    group = record.group
    who = link("attack", record.attack, title_in(group.config, "attack", record.attack))
    start: list[Segment] = ["With ", *_defense(record), ", ", who]
    score = record.score
    if score is None:
        number = group.headline
        reason = next((one.reason for one in group.cells if one.reason), "") or (number.score.reason if number else "")
        return [*start, " was not measured", f": {reason}" if reason else "."]
    return [one for one in [*start, " ", *_said(record, score)] if one]


def _defense(record: Record) -> list[Segment]:
    if record.defense == "none":
        return ["no defense"]
    title = title_in(record.group.config, "defense", record.defense)
    return [link("defense", record.defense, title), *([f" ({record.level})"] if record.level else [])]


def _said(record: Record, score: Score) -> list[Segment]:
    metric = headline_name((score.metric, score.variant, ""))
    value, control = amount(score.value, score.unit), amount(score.control, score.unit)
    numbers: list[Segment] = [f"{metric} is ", value, f"; {control_words(record)} ", control]
    match score.evidence:
        case "leak":
            return ["gets private data out of this model: ", *numbers, ".", _confirmation(record, score)]
        case "unconfirmed" | "undecided" if record.group.facts["task"] == "class":
            start = "makes pictures that the classifiers name right: "
            return [start, *numbers, ".", _confirmation(record, score)]
        case "unconfirmed" | "undecided":
            return ["comes closer to private data than its control: ", *numbers, ". ", UNDECIDED]
        case "weak judge":
            return ["was judged by a model that is less accurate than the victim, which decides nothing: ",
                    *numbers, "."]  # fmt: skip
        case "below null":
            return ["gets no more than what can be answered without the model: ", f"{metric} is ", value, ", and ",
                    amount(score.null, score.unit), f" without it ({score.null_name.replace('_', ' ')})."]  # fmt: skip
        case "too few targets":
            return ["reached ", value, f" ({metric}), on too few targets for a verdict."]
        case "no evidence":
            return ["showed no leak: ", *numbers, ". ", CHANCE]
        case _:
            return ["reached ", value, f" ({metric}); there is nothing to compare it with."]


UNDECIDED = "These rows hold no more that could decide."

CHANCE = "The difference could be chance. Another attack, or more effort, may still succeed."


def control_words(record: Record) -> str:
    """Return where the control of a group comes from, as the beginning of a clause that ends with its value."""
    facts = record.group.facts
    words = OF_CLIENTS.get(facts["access"], "another client's data give") if facts["task"] == "instance" else (
        CONTROLS.get(facts["task"], "without anything to leak the same attack gets")
    )  # fmt: skip
    return words.format(people="people" if of_people(record) else "classes")


def of_people(record: Record) -> bool:
    """Whether the classes of a group's dataset are people: its module says so, or its class is of that family."""
    return "faces" in record.group.facts["dataset"] or _people(str(record.group.config["dataset"].get("_target_")))


@cache
def _people(target: str) -> bool:
    module, _, name = target.rpartition(".")
    own = module.startswith("mibench.")
    return own and any(one.name == "People" for one in lineage(source_of(module), name))


def _confirmation(record: Record, score: Score) -> str:
    """Return what independent judges say; empty where none is needed."""
    if record.group.facts["task"] != "class":
        return ""
    if score.confirmed_by:
        return f" An independent judge confirms it ({score.confirmed_by})."
    witnesses = independent([one.score for one in record.group.numbers])
    judges = [number for _, number in witnesses]
    if not judges:
        return " No independent judge was able to tell."
    if any(one.lift_low > 0 for one in judges):
        return " An independent judge finds a lift too." if score.evidence == "undecided" else ""
    return " No independent judge confirms them."
