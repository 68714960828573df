"""What may be compared with each other, and what each such view is called in plain words."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mibench.leaderboard.compare import shared
from mibench.leaderboard.groups import Group

#: Blocks of a configuration that may differ within a view: attacker and defense.
VARIED = ("attack", "prior", "knowledge", "defense")

#: What an attacker sees, by access.
ACCESSES: Mapping[str, str] = {
    "white_box": "weights", "scores": "scores", "labels": "labels only", "explanations": "explanations",
    "gradients": "client updates", "features": "split features", "generate": "continuations",
    "encrypted_images": "scrambled images", "two_models": "two models", "none": "nothing",
}  # fmt: skip

#: What attackers of a setting see, by its name.
SEES: Mapping[str, str] = {
    "central": "the trained model", "federated": "client updates", "split": "split features",
    "captured": "a captured update",
}  # fmt: skip

#: What of the data is looked for, where the setting does not say it.
SOUGHT: Mapping[str, str] = {
    "completion": "hidden parts of pictures", "attribute": "a sensitive attribute", "sequence": "texts",
    "edges": "links",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """Groups that may be compared with each other.

    Attributes:
        id: Ten hexadecimal digits, the hash of what they have in common.
        groups: They, with and without numbers.
        sees: What the attacker sees, in words.
        under: Target and conditions in words; no other view of this dataset and ``sees`` has the same.
    """

    id: str
    groups: Sequence[Group]
    sees: str
    under: str

    @property
    def facts(self) -> Mapping[str, str]:
        """What all of them share: ``dataset``, ``task``, ``setting``, ``target``."""
        return self.groups[0].facts


def view_id(group: Group) -> str:
    """Return the view of a group: ten hexadecimal digits of the hash of what must be equal to be compared.

    That is the whole configuration but for attack, prior, knowledge, defense and seed, the task, and the revisions of
    all components but attack and defense.
    """
    return hashlib.sha256(shared(group, VARIED, (*VARIED, "access")).encode()).hexdigest()[:10]


#: What of a budget says what is attacked; the rest says for how long.
ATTACKED = ("targets", "samples", "records")


def but_for_length(group: Group) -> str:
    """Return what views have in common that differ in the length of attacks alone."""
    budget = [group.config["budget"].get(name) for name in ATTACKED]
    return shared(group, (*VARIED, "budget"), (*VARIED, "access")) + json.dumps(budget)


def views_of(groups: Sequence[Group]) -> list[View]:
    """Return the views of all groups, the one to look at first at the beginning.

    First stand those in which it is known what defenses cost, since else none can be ranked at the same utility. Of
    these the first is the one of whose table of attacks and defenses the most is filled, weighed by the share that is
    filled; then the one of more groups, and the dataset of more groups.
    """
    own: dict[str, list[Group]] = {}
    for one in groups:
        own.setdefault(view_id(one), []).append(one)
    measured = {name: mine for name, mine in own.items() if any(map(has_lift, mine))}
    of_dataset: dict[str, int] = {}
    for one in groups:
        of_dataset[one.facts["dataset"]] = of_dataset.get(one.facts["dataset"], 0) + 1
    order = sorted(
        measured, key=lambda name: (not _costed(own[name]), -_filled(own[name]), -len(own[name]),
                                    -of_dataset[own[name][0].facts["dataset"]], name),
    )  # fmt: skip
    said = {name: sees(measured[name][0]) for name in order}
    conditions = _conditions([(name, said[name], measured[name][0]) for name in order])
    return [View(name, measured[name], said[name], conditions[name]) for name in order]


def has_lift(group: Group) -> bool:
    """Whether a group has the number of its task, with a lift over the control."""
    number = group.headline
    return number is not None and number.seeds > 0 and number.score.lift == number.score.lift


def _costed(groups: Sequence[Group]) -> bool:
    """Whether the accuracy of most of the groups that have a lift is known."""
    known = [one for one in groups if has_lift(one)]
    return 2 * sum(not math.isnan(one.accuracy) for one in known) > len(known)


def _filled(groups: Sequence[Group]) -> float:
    known = {(one.facts["attack"], one.facts["defense"]) for one in groups if has_lift(one)}
    attacks, defenses = {attack for attack, _ in known}, {defense for _, defense in known}
    return len(known) ** 2 / (len(attacks) * len(defenses)) if known else 0.0


def sees(group: Group) -> str:
    """Return what attackers of a group's setting see, and what they look for where that does not go without saying."""
    setting, task = group.facts["setting"], group.facts["task"]
    what = SEES.get(setting, setting.replace("_", " "))
    return f"{what}, {SOUGHT[task]}" if task in SOUGHT else what


# Conditions in words


def _conditions(views: Sequence[tuple[str, str, Group]]) -> dict[str, str]:
    """Return of every view its target and what tells it from the others of its dataset and ``sees``.

    First is said what every view says (:data:`ALWAYS`). Then, for as long as two are called the same, one more fact of
    :data:`WHERE_NEEDED` in which they differ, and last their ids.
    """
    said = {name: [group.facts["target"], *filter(None, (tell(group.config) for tell in ALWAYS))]
            for name, _, group in views}  # fmt: skip
    for tell in WHERE_NEEDED:
        for alike in _alike(views, said):
            words = {name: tell(group) for name, group in alike}
            if len(set(words.values())) > 1:
                for name, word in words.items():
                    said[name] += [word] if word else []
    for alike in _alike(views, said):
        for name, _ in alike:
            said[name].append(name)
    return {name: ", ".join(words) for name, words in said.items()}


def _alike(views: Sequence[tuple[str, str, Group]], said: Mapping[str, Sequence[str]]) -> list[list[tuple[str, Group]]]:
    same: dict[tuple[str, str, str], list[tuple[str, Group]]] = {}
    for name, seen, group in views:
        same.setdefault((group.facts["dataset"], seen, ", ".join(said[name])), []).append((name, group))
    return [alike for alike in same.values() if len(alike) > 1]


def _many(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _batch(config: Mapping[str, Any]) -> str:
    size = config["setting"].get("batch_size")
    return f"batch of {size}" if size else ""


def _local(config: Mapping[str, Any]) -> str:
    epochs = config["setting"].get("local_epochs", 1)
    return _many(epochs, "local epoch") if epochs > 1 else ""


def _age(config: Mapping[str, Any]) -> str:
    setting = config["setting"]
    rounds, epochs = setting.get("rounds", 0), setting.get("pooled_epochs", 0)
    ages = ["of a trained model" if epochs is None else f"after {_many(epochs, 'epoch')}" if epochs else ""]
    ages.append(f"after {_many(rounds, 'round')}" if rounds else "")
    return ", ".join(filter(None, ages))


def _norm(config: Mapping[str, Any]) -> str:
    setting = config["setting"]
    if "batch_norm" not in setting or setting["batch_norm"] == "eval":
        return ""
    return "own batch norm, shared" if setting.get("share_buffers") else "own batch norm"


def _cut(config: Mapping[str, Any]) -> str:
    setting = config["setting"]
    if "cut" not in setting:
        return ""
    sent = setting.get("sends", 1)
    return f"cut after stage {setting['cut']}" + (f", sent {sent} times" if sent > 1 else "")


def _budget(config: Mapping[str, Any]) -> str:
    return (
        "" if config["setting"]["name"] in ("federated", "split", "captured") else f"{config['budget']['name']} budget"
    )


def _precision(config: Mapping[str, Any]) -> str:
    precision = config.get("precision", "float32")
    return "" if precision == "float32" else str(precision)


#: What every view says of itself.
ALWAYS: Sequence[Callable[[Mapping[str, Any]], str]] = (
    _cut, _batch, _local, _age, _norm, _precision, _budget,
)  # fmt: skip


def _targets(group: Group) -> str:
    budget = group.config["budget"]
    targets = _many(budget["targets"], "target")
    return f"{targets} of {_many(budget['samples'], 'sample')}" if group.facts["task"] == "class" else targets


def _public(group: Group) -> str:
    limit = group.config["dataset"].get("public_limit")
    return f"{limit:,} public images" if limit else ""


def _clients(group: Group) -> str:
    clients = group.config["setting"].get("clients")
    return _many(clients, "client") if clients else ""


def _size(group: Group) -> str:
    size = group.config["dataset"].get("size")
    return f"{size} px" if size else ""


def _judges(group: Group) -> str:
    steps = group.config["evaluation"].get("min_steps")
    return f"judges of {steps:,} steps" if steps else "judges of the usual length"


def _budget_name(group: Group) -> str:
    return f"{group.config['budget']['name']} budget"


def _revision(group: Group) -> str:
    return "revision " + ".".join(map(str, group.config.get("revisions", ())[:3]))


#: What a view says where it would be called as another one.
WHERE_NEEDED: Sequence[Callable[[Group], str]] = (
    _targets, _clients, _judges, _public, _size, _budget_name, _revision,
)  # fmt: skip
