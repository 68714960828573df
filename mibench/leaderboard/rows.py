"""The row schema: one row per measured number, the same columns for every cell."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from mibench.leaderboard.scoring import NAN, Score
from mibench.planning.plan import Plan
from mibench.version import __version__, git_commit


@dataclass(frozen=True, kw_only=True)
class CellFacts:
    """What all rows of a cell share.

    Attributes:
        cell_id: Hash of the cell without metrics, machine and logger.
        group_id: Hash of the cell without the seed.
        knowledge: What the attacker was given, comma-separated.
        seconds: Wall time of the attack.
        training_seconds: What training the defended target, and what its defense learned of it, took: seconds of the
            processor where that computes, wall time on a GPU. NaN where neither took place, or it was not measured.
        senders: Clients behind one message; NaN where none are sent.
        notes: What a reader of the numbers must know, one sentence a line.
        created_at: UTC, ISO 8601.
        config: The resolved configuration as JSON.
    """

    cell_id: str
    group_id: str
    dataset: str
    modality: str
    setting: str
    target: str
    attack: str
    attack_family: str
    task: str
    access: str
    knowledge: str
    defense: str
    defense_hooks: str
    seed: int
    budget: str
    fidelity: str
    queries: int = 0
    gradient_evals: int = 0
    seconds: float = NAN
    training_seconds: float = NAN
    peak_memory_mb: float = NAN
    senders: float = NAN
    device: str = ""
    mibench_version: str = ""
    git_commit: str = ""
    notes: str = ""
    config: str = ""
    created_at: str = ""


#: Column order of a shard; beside the interval of the value stand ``lift_low`` and ``lift_high``, that of the lift, and
#: the lift over either half of the targets.
COLUMNS = (
    "cell_id", "group_id", "dataset", "modality", "setting", "target", "attack", "attack_family", "task", "access",
    "knowledge", "defense", "defense_hooks", "metric", "variant", "evaluator", "value", "ci_low", "ci_high", "n",
    "control", "lift", "lift_low", "lift_high", "lift_even", "lift_odd", "higher_is_leakier", "unit", "seed",
    "budget", "status", "reason", "fidelity", "queries", "gradient_evals", "seconds", "training_seconds",
    "peak_memory_mb", "senders", "device", "mibench_version", "git_commit", "notes", "config", "created_at",
)  # fmt: skip

#: Numbers that shards of earlier versions lack; they are read as NaN.
ADDED = ("lift_even", "lift_odd", "training_seconds", "senders")


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return the facts of a cell that are known before it runs, without ids, knowledge, modality and cost."""
    cards, config = plan.cards, plan.config
    return {
        "dataset": cards.dataset.name,
        "setting": cards.setting.name,
        "target": cards.target.name,
        "attack": cards.attack.name,
        "attack_family": cards.attack.family,
        "task": cards.attack.task,
        "access": plan.access,
        "defense": cards.defense.name,
        "defense_hooks": ",".join(cards.defense.hooks),
        "seed": int(config["seed"]),
        "budget": config["budget"]["name"],
        "fidelity": cards.attack.fidelity,
        "mibench_version": __version__,
        "git_commit": git_commit(),
        "config": json.dumps(plan.description, sort_keys=True),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def make_row(facts: CellFacts, score: Score) -> dict[str, Any]:
    """Return one row: the cell's facts and one score."""
    row = asdict(facts) | asdict(score)
    return {name: row[name] for name in COLUMNS}


def arrow_type(name: str) -> str:
    """Return the Arrow type of a column: ``string``, ``int64``, ``float64`` or ``bool``."""
    types = {field.name: str(field.type) for owner in (CellFacts, Score) for field in fields(owner)}
    return {"int": "int64", "float": "float64", "bool | None": "bool"}.get(types[name], "string")
