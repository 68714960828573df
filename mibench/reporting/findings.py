"""What a report says: the verdict on each cell and on all of them, in words for a reader outside the field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mibench.leaderboard.language import WORDS, Tone
from mibench.leaderboard.lines import headline, name_of
from mibench.leaderboard.scoring import Score, near_chance
from mibench.leaderboard.statistics import LEAST_TARGETS
from mibench.leaderboard.verdicts import judged

if TYPE_CHECKING:
    import pandas as pd

#: Who an attacker with an access level is, in a reader's words.
WHO = {
    "white_box": "someone who holds the model's file: a customer, a partner, a thief",
    "scores": "someone who may ask the model and sees how sure it is of every answer",
    "labels": "someone who may ask the model and sees its answer alone",
    "explanations": "someone who may ask the model and sees an explanation with its answer",
    "gradients": "the server of a federated training, or someone who listens to it",
    "features": "someone who sees what the first half of the model passes to the second",
    "none": "someone who never meets the model",
}

#: What an attacker owns or knows beside the model, by the words of the column ``knowledge``.
OWNS = {
    "public": "{data} of others",
    "prior": "a generator trained on them",
    "labels": "the true labels",
    "masked_image": "the private pictures but for a part that was hidden",
    "marginals": "how frequent each value of a column is",
    "confusion": "how often the model takes one class for another",
    "companions": "further models of the same people",
}

#: What the headline number of a task, or of a task on one modality, is, with its value and its control.
SAYS = {
    "class": (
        "Of the pictures that the attack made of the private classes, independent judges recognised {value} as the "
        "class they were made for.",
        "Of what the same attack made of a comparison model that never saw these classes, they recognised {control}.",
    ),
    "instance": (
        "The inputs rebuilt from a client's update come within {value} of the true ones (PSNR: higher is closer).",
        "What was rebuilt from another client's update comes within {control}.",
    ),
    "instance tabular": (
        "Of the columns of records rebuilt from a client's update {value} are right (numbers: to a third of a standard "
        "deviation).",
        "Of records rebuilt from another client's update it is {control}.",
    ),
    "sequence": (
        "Of the words of clients' texts the attack put {value} in their places.",
        "Of what was read of another client's update {control} stood there by chance.",
    ),
    "completion": (
        "What the attack put into the hidden part of private pictures comes within {value} of the true one (PSNR: "
        "higher is closer).",
        "What it put there with a comparison model that never saw these pictures comes within {control}.",
    ),
    "attribute": (
        "The attack filled in the hidden column rightly in {value} of the records.",
        "Without the model the best guess is right in {control}.",
    ),
    "edges": (
        "The attack ranked a linked pair of nodes above one that is not linked in {value} of all cases (half is "
        "chance).",
        "Against a comparison model that never saw a link, the same attack did so in {control}.",
    ),
}

#: What is said of a whole page by the verdicts on it, those that are asked for first standing first: heading and lead.
HEADINGS = {
    "leak": ("This model gives away private data", ""),
    "signs": ("There are signs that this model gives away private data", ""),
    "unconfirmed": ("A leak is seen, and no independent judge confirms it", ""),
    "undecided": (
        "Undecided",
        "The numbers were measured by an earlier version, without what a verdict needs today; score the cells again.",
    ),
    "weak judge": ("The judge is too weak for a verdict", ""),
    "too few targets": (
        "Too little was attacked for a verdict",
        f"Run it with budget=standard and at least {LEAST_TARGETS} classes.",
    ),
    "below null": (
        "No leak was shown",
        "What the attacks brought out can be had without the model. That is no proof of safety: see what was not "
        "tested.",
    ),
    "no evidence": (
        "No leak was shown",
        "The attacks that were tried brought out no more than they bring out of a model that never saw these data. "
        "That is no proof of safety: see what was not tested.",
    ),
    "no control": ("There is nothing to compare with", ""),
}

#: What stands for the verdict of a cell whose headline could not be measured.
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Finding:
    """One cell, read from its rows.

    Attributes:
        facts: The columns that all of its rows share.
        scores: Its numbers.
    """

    facts: dict[str, Any]
    scores: Sequence[Score]

    @cached_property
    def headline(self) -> Score | None:
        """The number its task is read by; another of the same metric where that one could not be measured."""
        return headline(self.scores, self.facts["task"], self.facts["modality"])

    @property
    def verdict(self) -> str:
        """A word of :mod:`mibench.leaderboard.verdicts`, or ``not measured``."""
        return NOT_MEASURED if self.headline is None else self.headline.evidence or "no control"

    @property
    def signs(self) -> Sequence[str]:
        """The other numbers that are evidence of a leak where the headline is none, by name."""
        if self.verdict == "leak":
            return ()
        return [name_of(one) for one in self.scores if one.evidence == "leak"]

    def accuracy(self, variant: str = "victim") -> float:
        """Accuracy of the defended model, or with ``chance`` that of naming one class always; NaN without a row."""
        found = [one.value for one in self.scores if (one.metric, one.variant) == ("target_accuracy", variant)]
        return found[0] if found else math.nan

    @property
    def blind(self) -> bool:
        """Whether the model hardly knows the data, so that nothing can be concluded; gradients tell at any age."""
        return self.facts["access"] != "gradients" and near_chance(self.accuracy(), self.accuracy("chance"))


def findings_of(rows: pd.DataFrame) -> list[Finding]:
    """Return the cells of stored rows, in their order."""
    names = [field.name for field in dataclasses.fields(Score)]
    found = []
    for _, part in rows.groupby("cell_id", sort=False):
        scores = [Score(**{str(k): v for k, v in row.items()}) for row in part[names].to_dict("records")]
        scores = judged(scores, old=bool((part["schema_version"] < 2).any()))
        facts = {str(k): v for k, v in part.iloc[0].to_dict().items() if k not in names}
        found.append(Finding(facts, scores))
    return found


def conclusion(found: Sequence[Finding]) -> tuple[str, Tone, str]:
    """Return the heading of the page, its tone and one sentence of explanation.

    They are about the model as it is: cells without defense, or where there are none, those with one.
    """
    plain = [one for one in found if one.facts["defense"] == "none" and one.headline]
    judged = plain or [one for one in found if one.headline]
    if any(one.blind for one in judged):
        return (
            "This audit says nothing yet",
            "open",
            "The model is hardly better than guessing on the data it was tested on, so it was probably read wrongly "
            "(normalisation, input size or the order of the classes); nothing can leak from a model that is misread.",
        )
    verdicts = {"signs" if one.signs else one.verdict for one in judged}
    for said, (heading, lead) in HEADINGS.items():
        if said in verdicts:
            if said in ("leak", "signs"):
                leaking = [one for one in judged if one.signs or one.verdict == "leak"]
                to_whom = dict.fromkeys(WHO[one.facts["access"]] for one in leaking)
                return heading, "leak" if said == "leak" else "open", f"To {'; and to '.join(to_whom)}."
            calm = said in ("below null", "no evidence")
            return heading, "calm" if calm else "open", lead or WORDS[said].meaning
    return "Nothing was measured", "open", "Every cell was skipped or failed; the reasons stand below."


def sentences(one: Finding) -> list[str]:
    """Return what the attacker owned, what was brought out, by comparison, and how good the model is."""
    assert one.headline is not None
    task, modality = one.facts["task"], one.facts["modality"]
    value, control = SAYS.get(f"{task} {modality}") or SAYS[task]
    knowledge = [OWNS[word] for part in one.facts["knowledge"].split(",") if (word := part.partition(":")[0]) in OWNS]
    data = "pictures" if one.facts["modality"] == "image" else "records"
    said = [f"The attacker also had {' and '.join(knowledge).format(data=data)}."] if knowledge else []
    said += [value.format(value=amount(one.headline, one.headline.value))]
    if not math.isnan(one.headline.control):
        said.append(control.format(control=amount(one.headline, one.headline.control)))
    if one.headline.null_name:
        name = one.headline.null_name.replace("_", " ")
        said.append(f"The best that can be answered without the model ({name}) reaches "
                    f"{amount(one.headline, one.headline.null)}.")  # fmt: skip
    if not math.isnan(one.accuracy()):
        said.append(f"The model itself is right on {one.accuracy():.0%} of the test data.")
    return said


def amount(score: Score, value: float) -> str:
    """Return a value of a headline number in its unit, or as per cent."""
    return f"{value:.3g} {score.unit}" if score.unit else f"{value:.0%}"


def reasons(one: Finding) -> str:
    """Return why a cell was not measured."""
    return " ".join(dict.fromkeys(score.reason for score in one.scores if score.reason)) or "Nothing was measured."
