"""A cell before anything is built: its resolved blocks, cards and ids, every key checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import DictConfig, OmegaConf

from mibench.card import AttackCard, Card, DatasetCard, DefenseCard, MetricCard, PriorCard, SettingCard, TargetCard
from mibench.errors import IncompatibleCellError, UnknownNameError, UserError
from mibench.knowledge import GRANTS
from mibench.options import Count, CountOrNone, Decay, Seconds, Threads, check_value, shown
from mibench.planning.catalogue import AXES, card_of, check_known, entries, entry
from mibench.planning.compatibility import CellCards, arriving, compatible
from mibench.planning.composition import Part, block, part_of, plain, with_parts
from mibench.planning.identity import (
    OWN,
    REVISED,
    SEEDS,
    content_of,
    essential,
    evaluation_key,
    flat,
    grouped,
    revision_of,
    version_of,
)
from mibench.planning.veil import env_given, is_veil, veiled
from mibench.precision import precision_key
from mibench.storage.public_sets import PUBLIC_SETS
from mibench.storage.store import digest_of

#: The keys that belong to no component, with their types.
TOP_KEYS: Mapping[str, Any] = {
    "seed": int,
    "seeds": Literal["victim", "all"],
    "device": Literal["auto", "cpu", "cuda"],
    "precision": Literal["float32", "bfloat16"],
    "threads": Threads | None,
    "overwrite": Literal["never", "failed", "always"],
    "control": Literal["retrain", "none"],
    "query_budget": Count | None,
    "convergence": Literal["check"] | None,
    "pack": Count,
    "time_limit": Seconds | None,
    "verbose": bool,
    **{f"knowledge.{name}": grant.kind for name, grant in GRANTS.items()},
    "evaluation.models": list[str],
    "evaluation.count": CountOrNone,
    "evaluation.seed": int,
    "evaluation.min_steps": Count | None,
    "evaluation.rounds": Count,
    "evaluation.embeddings": list[str],
    "budget.name": Literal["smoke", "standard", "paper"],
    "budget.targets": Count,
    "budget.samples": Count,
    "budget.records": Count,
    "budget.gradients": Count | None,
    "paths.data": str,
    "paths.store": str,
    "paths.results": str,
    "paths.weights": str,
}


@dataclass(frozen=True)
class Plan:
    """A cell before anything is built: its resolved blocks and cards.

    Attributes:
        config: The whole resolved configuration.
        cards: The cards by axis.
        follows: The seeds of components that follow the cell's own (``prior.seed``).
        secret: The dotted keys whose texts the environment gave.
    """

    config: Mapping[str, Any]
    cards: CellCards
    follows: tuple[str, ...] = ()
    secret: tuple[str, ...] = ()

    @property
    def access(self) -> str:
        """The access level of the cell."""
        return self.cards.access

    @cached_property
    def description(self) -> dict[str, Any]:
        """What is stored with the rows: configuration and revisions, with digests for what a row does not say."""
        return veiled(self._described, self.secret)

    @cached_property
    def _described(self) -> dict[str, Any]:
        """Configuration and revisions, without metrics and machine."""
        config = essential(self.config, self.cards.attack)
        config["dataset"] = {k: v for k, v in config["dataset"].items() if k != "data_root"}
        return {**config, "revisions": [revision_of(self.config[axis]) for axis in REVISED]}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the cell is: its description, with the content of the user's own folders and files for their paths."""
        said = self._described
        revisions = [self.version(axis) for axis in REVISED]
        files = {axis: content_of(said[axis]) for axis in ("dataset", "target")}
        prior = content_of(said["prior"])
        prior = prior if (version := self.version("prior")) == 1 else {**prior, "version": version}
        judges = {**said["evaluation"], **evaluation_key(self.cards.attack.task)}
        computed = precision_key(said["precision"])
        return {**said, **files, "prior": prior, "revisions": revisions, "evaluation": judges, **computed}

    def part(self, axis: str) -> Part:
        """Return the component of an axis before it is made; its class is imported here.

        Raises:
            UserError: If one of its options is unknown or has a wrong type.
        """
        if axis not in self._parts:
            node = {key: value for key, value in self.config[axis].items() if axis != "prior" or key != "seed"}
            self._parts[axis] = part_of(node)
        return self._parts[axis]

    def metrics(self) -> list[Part]:
        """Return the metrics to compute, before they are made; those that use weights get the folder of these."""
        blocks = metric_blocks(self)
        folders = [{"weights": folder(self, "weights")} if one.get("weights", "") is None else {} for one in blocks]
        return [part_of(one, more=more) for one, more in zip(blocks, folders, strict=True)]

    @cached_property
    def _parts(self) -> dict[str, Part]:
        return {}

    def version(self, axis: str) -> int | list[Any]:
        """What changes where a component's numbers may have changed; see :func:`version_of`."""
        return version_of(self.config[axis])

    @cached_property
    def cell_id(self) -> str:
        """Hash of the identity."""
        return digest_of(self.identity)

    @cached_property
    def group_id(self) -> str:
        """Hash of the identity without the seed, and with the word ``seed`` for seeds that follow it."""
        return digest_of(grouped(self.identity, self.follows))


def own_files(plan: Plan) -> list[str]:
    """Return the options of a cell that name the user's own folders, files and modules, as ``KEY=VALUE``."""
    return [
        f"{axis}.{option}={value}"
        for axis in ("dataset", "target", "prior")
        for option, value in plan.config[axis].items()
        if value and OWN.fullmatch(option) and str(value) not in PUBLIC_SETS
    ]


def plan_cell(cfg: DictConfig) -> Plan:
    """Read the cards of a composed cell; nothing heavy is imported.

    Raises:
        UserError: If a key is unknown or its value of a wrong type or range, or a block names no component of its axis.
    """
    config = plain(cfg)
    follows = tuple(key for key in SEEDS if follows_seed(cfg, key))
    check_keys("", config)
    check_top(config)
    for axis in ("dataset", "setting", "target", "prior", "attack", "defense", "budget", "logger"):
        config[axis] = block(cfg, axis)
    config["defense"] = with_parts(config["defense"], cfg)
    check_known("logger", config["logger"])
    if config["seeds"] == "all":
        follows = seeded_alike(config, follows)
    card: dict[str, Card] = {
        axis: card_of_axis(axis, config[axis])
        for axis in ("dataset", "setting", "target", "prior", "attack", "defense")
    }
    for name, node in (config.get("metric") or {}).items():
        if not isinstance(node, Mapping) or node.get("name") != name:
            raise UserError(f"Expected metric.{name} to be a metric's block, but got '{shown(node)}'; choose metrics "
                            "with metric=[NAME,NAME].")  # fmt: skip
        card_of_axis("metric", node)
    attack = cast(AttackCard, card["attack"])
    batch_size = 1
    check_value("prior.seed", int, config["prior"].get("seed", 0))
    for key in ("batch_size", "clients_per_message"):
        check_value(f"setting.{key}", CountOrNone, config["setting"].get(key, 0))
        batch_size *= config["setting"].get(key, int(key != "batch_size"))
    if cast(DefenseCard, card["defense"]).cohort:  # of which one message stands for all clients that arrive
        clients, dropout = (config["setting"].get(key, least) for key, least in (("clients", 1), ("dropout", 0.0)))
        check_value("setting.clients", Count, clients)
        check_value("setting.dropout", Decay, dropout)
        batch_size *= arriving(clients, dropout)
    if "batch_size" in config["dataset"]:  # a captured update brings its own
        batch_size = config["dataset"]["batch_size"]
        check_value("dataset.batch_size", Count, batch_size)
    cards = CellCards(
        dataset=cast(DatasetCard, card["dataset"]),
        setting=cast(SettingCard, card["setting"]),
        target=cast(TargetCard, card["target"]),
        attack=attack,
        defense=cast(DefenseCard, card["defense"]),
        access=str(config["attack"].get("access", attack.access[0])),
        prior=None if config["prior"]["name"] == "none" else cast(PriorCard, card["prior"]),
        batch_size=batch_size,
        finished=bool(config["target"].get("weights")),
        rounds=config["setting"].get("rounds"),
    )
    return Plan(config, cards, follows, env_given(cfg))


def follows_seed(cfg: DictConfig, key: str) -> bool:
    """Return whether a key is written as ``${seed}``."""
    block, _, name = key.partition(".")
    node = cfg.get(block)
    if not isinstance(node, DictConfig) or name not in node or not OmegaConf.is_interpolation(node, name):
        return False
    return str(OmegaConf.to_container(node, resolve=False)[name]).strip("${.} ") == "seed"  # type: ignore[index,call-overload]


def seeded_alike(config: dict[str, Any], follows: Sequence[str]) -> tuple[str, ...]:
    """Set every seed of a component (:data:`SEEDS`) to the cell's own, and return which there are.

    Raises:
        UserError: If one of them has been set to another number.
    """
    found = []
    for key in SEEDS:
        block, _, name = key.partition(".")
        if name not in config[block]:
            continue
        if key not in follows and config[block][name] not in (0, config["seed"]):
            raise UserError(
                f"seeds=all lets every seed follow the cell's, but {key}={shown(config[block][name])} is set too; "
                "leave out one of them."
            )
        config[block] = {**config[block], name: config["seed"]}
        found.append(key)
    return tuple(found)


def card_of_axis(axis: str, node: Mapping[str, Any]) -> Card:
    """Return the card of a block.

    Raises:
        UserError: If the block names a component of another axis, or bears another name than the component.
    """
    if isinstance(node.get("_target_"), str):
        check_known(axis, node)
    card, own = card_of(node), card_of({"_target_": node.get("_target_")}).name
    if own != (node.get("variant_of") or node["name"]):
        raise UserError(f"{axis} '{node['name']}' is another name for '{own}'; choose it with {axis}={own}.")
    return card


def check_keys(block: str, node: Any) -> None:
    """Refuse keys that are no words, such as those of ``{1: a}``.

    Raises:
        UserError: Naming the key and where it stands.
    """
    inner = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        if isinstance(node, Mapping) and not isinstance(key, str):
            raise UserError(f"Expected the keys below {block} to be words, but got '{shown(key)}'.")
        check_keys(f"{block}.{key}".lstrip("."), value)


def check_top(config: Mapping[str, Any]) -> None:
    """Refuse keys outside the components' blocks that are unknown, missing, or of a wrong type or range.

    Raises:
        UserError: Naming the key, what it should be and what it is.
    """
    blocks: dict[str, list[str]] = {}
    for key in TOP_KEYS:
        outer, _, inner = key.rpartition(".")
        blocks.setdefault(outer, []).append(inner)
    for outer, keys in blocks.items():
        there = config.get(outer) if outer else config
        if not isinstance(there, Mapping):
            raise UserError(f"Expected {outer} to be a block of options, but got '{shown(there)}'.")
        known = keys if outer else [*keys, *filter(None, blocks), *AXES, "logger", "grid"]
        if odd := [key for key in there if key not in known]:
            raise UnknownNameError(f"option of {outer} called" if outer else "option", str(odd[0]), known)
        for inner in keys:
            key = f"{outer}.{inner}" if outer else inner
            if inner not in there:
                raise UserError(f"The option {key} was deleted, but a cell needs it; set it with {key}=VALUE.")
            check_value(key, TOP_KEYS[key], there[inner])


def refuse_incompatible(plan: Plan) -> None:
    """Raise where the cell's parts cannot meet.

    Raises:
        IncompatibleCellError: With the reason in the threat model's words.
        UserError: If an option is a digest that stands in rows for its value.
    """
    for key, value in flat(plan.config):
        if is_veil(value):
            raise UserError(
                f"{key}={shown(value)} is the digest that stands in a row for a value; give the value: {key}=VALUE."
            )
    if reason := compatible(plan.cards):
        raise IncompatibleCellError(reason)


def metric_blocks(plan: Plan) -> list[dict[str, Any]]:
    """Return the blocks of the metrics to compute: those chosen, or the task's own where none were.

    Raises:
        UserError: If a chosen metric is of another task or modality.
    """
    task, modality = plan.cards.attack.task, plan.cards.modalities
    chosen = list((plan.config.get("metric") or {}).values())
    if not chosen:
        return [
            dict(one.node)
            for one in entries("metric")
            if (card := cast(MetricCard, one.card)).default
            and task in card.tasks
            and (not card.updates or "update" in plan.cards.setting.training_hooks)
            and set(modality) & set(card.modalities)
        ]
    for node in chosen:
        card = cast(MetricCard, card_of(node))
        if task not in card.tasks or not set(modality) & set(card.modalities):
            raise UserError(
                f"Metric '{card.name}' measures {', '.join(card.tasks)} tasks on {', '.join(card.modalities)} data, "
                f"but the cell's task is '{task}' on {', '.join(modality)} data; leave it out of metric=[...]."
            )
    return chosen


def target_block(plan: Plan, name: str) -> dict[str, Any]:
    """Return the resolved block of another architecture than the cell's own (an evaluation model's)."""
    root = OmegaConf.create({"budget": dict(plan.config["budget"])})
    root.target = OmegaConf.load(entry("target", name).file)
    return plain(root.target)


def folder(plan: Plan, name: str) -> Path:
    """Return one of the folders of ``paths``."""
    return Path(plan.config["paths"][name]).expanduser()
