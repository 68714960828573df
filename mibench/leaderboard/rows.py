"""The row schema: one row per measured number, the same columns for every cell."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, fields
from typing import Any

from mibench.leaderboard.scoring import Score
from mibench.leaderboard.statistics import NAN
from mibench.planning.plan import Plan
from mibench.planning.veil import redacted
from mibench.version import __version__, git_commit

#: Rows of version 1, which did not say so, have neither nulls nor values by target, and their ``n`` counts samples.
SCHEMA_VERSION = 2


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
        judged_by: The evaluation models, each with its accuracy on private test data; empty where there are none.
        judge_seconds: What their training took; NaN where there are none, or it was not measured.
        convergence: Whether twice the attack's length moves its headline: ``converged``, ``not converged``, or empty
            where that was not checked.
        defense_fidelity: As ``fidelity``, of the defense.
        schema_version: Version of the columns.
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
    judged_by: str = ""
    judge_seconds: float = NAN
    convergence: str = ""
    defense_fidelity: str = ""
    schema_version: int = SCHEMA_VERSION
    device: str = ""
    mibench_version: str = ""
    git_commit: str = ""
    notes: str = ""
    config: str = ""
    created_at: str = ""


#: Column order of a shard.
COLUMNS = (
    "cell_id", "group_id", "dataset", "modality", "setting", "target", "attack", "attack_family", "task", "access",
    "knowledge", "defense", "defense_hooks", "metric", "variant", "evaluator", "value", "ci_low", "ci_high", "n",
    "samples", "control", "lift", "lift_low", "lift_high", "null", "null_name", "null_lift", "null_lift_low",
    "evidence", "confirmed_by", "higher_is_leakier", "unit", "share", "seed", "budget", "status", "reason", "fidelity",
    "defense_fidelity", "queries", "gradient_evals", "seconds", "training_seconds", "peak_memory_mb", "senders",
    "judged_by", "judge_seconds", "convergence", "device", "mibench_version", "git_commit", "notes", "config",
    "created_at", "schema_version", "targets", "per_target", "per_target_control", "per_target_null",
)  # fmt: skip

#: Columns of sentences, which may quote what an error said.
SENTENCES = ("reason", "notes")

#: Columns of lists, in shards and studies alone.
LISTS = ("targets", "per_target", "per_target_control", "per_target_null")

#: Columns that shards of earlier versions lack; they are read as NaN, 0, false, empty or an empty list.
ADDED = (
    "training_seconds", "senders", "samples", "null", "null_name", "null_lift", "null_lift_low", "evidence",
    "confirmed_by", "share", "judged_by", "judge_seconds", "convergence", "defense_fidelity", "schema_version", *LISTS,
)  # fmt: skip

#: Columns of earlier versions that are read no more.
RETIRED = ("lift_even", "lift_odd")


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
        "defense_fidelity": cards.defense.fidelity,
        "mibench_version": __version__,
        "git_commit": git_commit(),
        "config": json.dumps(plan.description, sort_keys=True),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def make_row(facts: CellFacts, score: Score) -> dict[str, Any]:
    """Return one row: the cell's facts and one score; its sentences name no folder, user or machine."""
    row = vars(facts) | vars(score)
    row |= {name: redacted(row[name]) for name in SENTENCES}
    return {name: row[name] for name in COLUMNS}


def arrow_type(name: str) -> str:
    """Return the Arrow type of a column: ``string``, ``int64``, ``float64``, ``bool``, or ``list`` of ``string``."""
    types = {field.name: str(field.type) for owner in (CellFacts, Score) for field in fields(owner)}
    return {
        "int": "int64",
        "float": "float64",
        "bool": "bool",
        "bool | None": "bool",
        "Sequence[str]": "list of string",
        "Sequence[float]": "list of float32",
    }.get(types[name], "string")
