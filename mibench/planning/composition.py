"""From a composed configuration to components: cards first, then objects, and the identity of the cell."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from mibench.card import (
    AttackCard,
    Card,
    CellCards,
    DatasetCard,
    DefenseCard,
    MetricCard,
    PriorCard,
    SettingCard,
    TargetCard,
    compatible,
)
from mibench.errors import IncompatibleCellError, UnknownNameError, UserError
from mibench.options import Count, CountOrNone, Positive, check_types, check_value, shown
from mibench.planning.catalogue import AXES, card_of, conf_dir, entries, entry, search_path_override
from mibench.storage.public_sets import PUBLIC_SETS
from mibench.storage.store import digest_of

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

BUDGETS = ("smoke", "standard", "paper")

#: Keys of the configuration that change neither what a cell is nor what it measures.
MACHINE_KEYS = ("metric", "paths", "device", "threads", "overwrite", "verbose", "logger", "grid", "pack", "time_limit")

#: The keys that belong to no component, with their types.
TOP_KEYS: Mapping[str, Any] = {
    "seed": int,
    "device": Literal["auto", "cpu", "cuda"],
    "precision": Literal["float32", "bfloat16"],
    "threads": Count | None,
    "overwrite": Literal["never", "failed", "always"],
    "control": Literal["retrain", "none"],
    "query_budget": Count | None,
    "pack": Count,
    "time_limit": Positive | None,
    "verbose": bool,
    "knowledge.labels": bool,
    "knowledge.local_training": bool,
    "knowledge.buffers": bool,
    "knowledge.defense_loss": bool,
    "knowledge.repeats": Count,
    "knowledge.encoder": Literal["weights", "query", "architecture", "none"],
    "knowledge.marginals": bool,
    "knowledge.confusion": bool,
    "knowledge.companions": list[str],
    "knowledge.masked_image": Literal["centre", "face_t"],
    "knowledge.known_columns": list[str] | None,
    "evaluation.models": list[str],
    "evaluation.count": CountOrNone,
    "evaluation.seed": int,
    "evaluation.min_steps": Count | None,
    "budget.name": Literal["smoke", "standard", "paper"],
    "budget.targets": Count,
    "budget.samples": Count,
    "budget.records": Count,
    "paths.data": str,
    "paths.store": str,
    "paths.results": str,
    "paths.weights": str,
}

#: Grants that are part of a cell only where its attack uses them (its task, of a masked image), so that a new grant
#: changes no other cell.
GRANTS_ON_USE = ("companions", "masked_image", "local_training", "buffers", "encoder", "defense_loss")

#: Grants that are part of a cell only where they differ from this, which was all there was when they were added.
GRANTS_WHEN_SET = {"defense_loss": False, "repeats": 1}

#: Options of the evaluation models that are part of a cell only where they are set, for the same reason.
EVALUATION_WHEN_SET = ("min_steps",)

#: The axis of a component, from its kind of card.
AXIS_OF: Mapping[type, str] = {
    DatasetCard: "dataset",
    SettingCard: "setting",
    TargetCard: "target",
    PriorCard: "prior",
    AttackCard: "attack",
    DefenseCard: "defense",
    MetricCard: "metric",
}

#: Options that name the user's own folders, files and modules.
OWN = re.compile(r"(?!data_root)(\w+_)?(root|file)|weights|factory|truth")

#: Keys of a component's block that describe it and are no arguments of its class.
DESCRIPTIONS = ("name", "variant_of", "recipe", "access")


def register_with_hydra() -> None:
    """Register the resolvers that yamls may use, and the sweeper.

    - ``${by_budget:smoke,standard,paper}``: a method's own lengths, once per budget.
    - ``${by_batch:{1:2e-3,4:1e-3}}``: settings calibrated for some sizes of a client's batch; the largest of these that
      is not above ``setting.batch_size`` counts.

    Hydra looks for plugins in folders, and does not see those of an editable installation from another folder.
    """
    from hydra.core.plugins import Plugins

    from hydra_plugins.mibench.sweeper import MibenchSweeper

    Plugins.instance().register(MibenchSweeper)

    def by_budget(*values: Any, _root_: DictConfig) -> Any:
        check_value("budget.name", TOP_KEYS["budget.name"], _root_.budget.name)
        return values[BUDGETS.index(_root_.budget.name)]

    def by_batch(calibrated: Mapping[int, Any], *, _root_: DictConfig) -> Any:
        size = max(_root_.setting.batch_size, min(calibrated))
        return calibrated[max(known for known in calibrated if known <= size)]

    OmegaConf.register_new_resolver("by_budget", by_budget, replace=True)
    OmegaConf.register_new_resolver("by_batch", by_batch, replace=True)


def opened(words: Sequence[str]) -> list[str]:
    """Return the words of a command line with those that set options of a stack's parts as Hydra takes new keys.

    >>> opened(["defense=stack", "defense.options.bido.a1=0.1"])
    ['defense=stack', '++defense.options.bido.a1=0.1']
    """
    return [f"++{word}" if word.startswith("defense.options.") else word for word in words]


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Return the configuration that a command line with these overrides would run."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    register_with_hydra()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return hydra_compose(config_name="cell", overrides=[*opened(overrides), *search_path_override()])


def compose_within(loader: ConfigLoader, overrides: Sequence[str]) -> DictConfig:
    """Return one cell as a running Hydra application would compose it, with its search path."""
    from hydra.types import RunMode

    words = [*opened(overrides), *search_path_override()]
    cfg = loader.load_configuration(config_name="cell", overrides=words, run_mode=RunMode.RUN)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def plain(node: DictConfig) -> dict[str, Any]:
    """Return a configuration node as resolved plain data."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def block(cfg: DictConfig, axis: str) -> dict[str, Any]:
    """Return the resolved block of one axis.

    Raises:
        UserError: If something else than a block stands there.
    """
    node = cfg.get(axis)
    if not isinstance(node, DictConfig) or not isinstance(node.get("name"), str):
        raise UserError(
            f"Expected {axis} to be a block chosen from conf/{axis}, but got '{shown(node)}'; choose one with "
            f"{axis}=NAME and set its options with {axis}.OPTION=VALUE."
        )
    return plain(node)


def with_parts(node: dict[str, Any], cfg: DictConfig) -> dict[str, Any]:
    """Return the block of a stack with its parts' own blocks in place of their names; any other as it is.

    Raises:
        UserError: If a part does not exist or stands there twice, or options are those of no part.
    """
    if "parts" not in node:
        return node
    names, options = node["parts"], node.get("options", {})
    check_value("defense.parts", list[str], names)
    check_value("defense.options", Mapping, options)
    if not names or len({*names}) < len(names) or {"none", node["name"]} & {*names}:
        raise UserError(
            f"Expected defense.parts to be several different defenses, but got '{shown(names)}'; set for instance "
            "defense.parts=[bido,rounding]."
        )
    if odd := [name for name in options if name not in names]:
        raise UserError(f"defense.options.{odd[0]} is for no part of this stack; defense.parts has {', '.join(names)}.")
    parts = []
    for name in names:
        own = OmegaConf.create(dict(entry("defense", name).node))
        own._set_parent(cfg)
        check_value(f"defense.options.{name}", Mapping, options.get(name, {}))
        parts.append({**plain(own), **options.get(name, {})})
    return {key: value for key, value in node.items() if key != "options"} | {"parts": parts}


def component_of(node: Mapping[str, Any], key: str = "") -> tuple[Any, dict[str, Any]]:
    """Return the class that a resolved block names, and its options, which are found to be known and of its types.

    Args:
        node: The block.
        key: The key below which its options stand, where that is not its axis.

    Raises:
        UserError: If an option is unknown or has a wrong type.
    """
    from hydra.utils import get_class

    options = {name: value for name, value in node.items() if name not in (*DESCRIPTIONS, "_target_")}
    component = get_class(node["_target_"])
    if isinstance(base := options.get("base"), Mapping):
        options["base"] = build(base)
    if "parts" in options:
        made = [component_of(part, f"defense.options.{part['name']}") for part in options["parts"]]
        options["parts"] = [part(**own) for part, own in made]
    check_types(key or key_of_block(node["name"], component), component, options)
    return component, options


def build(node: Mapping[str, Any], **extra: Any) -> Any:
    """Return the component that a resolved block describes.

    Raises:
        UserError: If an option is unknown or has a wrong type.
    """
    component, options = component_of(node)
    return component(**{**options, **extra})


def key_of_block(name: str, component: type) -> str:
    """Return the key under which a component's block stands in a cell: ``attack``, ``metric.psnr``."""
    axis = AXIS_OF.get(type(getattr(component, "card", None)), "logger")
    return f"{axis}.{name}" if axis == "metric" else axis


def content_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component's block with the content of the user's own folders and files instead of their paths."""
    return {option: _content(option, value) for option, value in node.items()}


def own_files(plan: Plan) -> list[str]:
    """Return the options of a cell that name the user's own folders, files and modules, as ``KEY=VALUE``."""
    return [
        f"{axis}.{option}={value}"
        for axis in ("dataset", "target", "prior")
        for option, value in plan.config[axis].items()
        if value and OWN.fullmatch(option) and str(value) not in PUBLIC_SETS
    ]


def _content(option: str, value: Any) -> Any:
    """Return a digest for what ``root``, ``file``, ``weights`` and ``factory`` name, any other value as is."""
    if not value or not isinstance(value, str | Path) or not OWN.fullmatch(option) or str(value) in PUBLIC_SETS:
        return value
    if option == "factory":
        return [str(value), source_digest(str(value).partition(":")[0])]
    path = Path(value).expanduser()
    if option.endswith("root"):
        return folder_digest(path) if path.is_dir() else value
    return file_digest(path, path.stat().st_mtime_ns) if path.is_file() else value


@cache
def file_digest(path: Path, changed: int) -> str:
    """Return the SHA-256 of a file, read once for every time at which it was ``changed``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def source_digest(module: str) -> str:
    """Return the SHA-256 of a module's source file, empty where there is none; the module is not imported."""
    try:
        found = importlib.util.find_spec(module)
        return hashlib.sha256(Path(str(found and found.origin)).read_bytes()).hexdigest()
    except (ImportError, OSError, ValueError):
        return ""


@cache
def folder_digest(root: Path) -> str:
    """Return the SHA-256 of the names and contents of all files below a folder."""
    sha = hashlib.sha256()
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        sha.update(str(file.relative_to(root)).encode())
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()


@dataclass(frozen=True)
class Plan:
    """A cell before anything is built: its resolved blocks and cards.

    Attributes:
        config: The whole resolved configuration.
        cards: The cards by axis.
        access: The access the attack is run with.
    """

    config: Mapping[str, Any]
    cards: CellCards

    @property
    def access(self) -> str:
        """The access level of the cell."""
        return self.cards.access

    @cached_property
    def description(self) -> dict[str, Any]:
        """Configuration and revisions, without metrics and machine: what is stored with the rows."""
        config = essential(self.config, self.cards.attack)
        config["dataset"] = {k: v for k, v in config["dataset"].items() if k != "data_root"}
        parts = (self.cards.dataset, self.cards.setting, self.cards.target, self.cards.attack, self.cards.defense)
        return {**config, "revisions": [card.revision for card in parts]}

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the cell is: its description, with the content of the user's own folders and files for their paths."""
        said = self.description
        revisions = [self.version(axis) for axis in ("dataset", "setting", "target", "attack", "defense")]
        files = {axis: content_of(said[axis]) for axis in ("dataset", "target")}
        prior = content_of(said["prior"])
        prior = prior if (version := self.version("prior")) == 1 else {**prior, "version": version}
        return {**said, **files, "prior": prior, "revisions": revisions}

    def version(self, axis: str) -> int | list[Any]:
        """What changes where a component's numbers may have changed; see :func:`version_of`."""
        return version_of(self.config[axis])

    @cached_property
    def cell_id(self) -> str:
        """Hash of the identity."""
        return digest_of(self.identity)

    @cached_property
    def group_id(self) -> str:
        """Hash of the identity without the seed."""
        return digest_of({key: value for key, value in self.identity.items() if key != "seed"})


def essential(config: Mapping[str, Any], attack: AttackCard) -> dict[str, Any]:
    """Return a cell's configuration without what makes no difference to it.

    These are the keys of the machine, the grants of ``GRANTS_ON_USE`` that the cell's attack does not use, those of
    ``GRANTS_WHEN_SET`` that stand at their default, and what is left to the evaluation models' own recipes.
    """
    kept = {key: value for key, value in config.items() if key not in MACHINE_KEYS}
    masked = ("masked_image",) if attack.task == "completion" else ()
    encoder = ("encoder",) if attack.encoder else ()
    unused = set(GRANTS_ON_USE) - {*attack.needs, *attack.uses, *masked, *encoder}
    kept["knowledge"] = {
        grant: value
        for grant, value in kept["knowledge"].items()
        if grant not in unused and (grant not in GRANTS_WHEN_SET or value != GRANTS_WHEN_SET[grant])
    }
    kept["evaluation"] = {
        key: value for key, value in kept["evaluation"].items() if value is not None or key not in EVALUATION_WHEN_SET
    }
    return kept


def version_of(node: Mapping[str, Any]) -> int | list[Any]:
    """Return the revision of a component, and of one outside mibench the digest of its file beside it.

    Whoever writes a method of their own changes it often, and would not raise ``revision`` each time.
    """
    revision = card_of(node).revision
    if "parts" in node:
        return [revision, *(version_of(part) for part in node["parts"])]
    module = node["_target_"].rpartition(".")[0]
    return revision if module.startswith("mibench.") else [revision, source_digest(module)]


def plan_cell(cfg: DictConfig) -> Plan:
    """Read the cards of a composed cell; nothing heavy is imported.

    Raises:
        UserError: If a key is unknown or its value of a wrong type or range, or a block names no component of its axis.
    """
    config = plain(cfg)
    check_keys("", config)
    check_top(config)
    for axis in ("dataset", "setting", "target", "prior", "attack", "defense", "budget", "logger"):
        config[axis] = block(cfg, axis)
    config["defense"] = with_parts(config["defense"], cfg)
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
    for key in ("batch_size", "clients_per_message"):
        check_value(f"setting.{key}", CountOrNone, config["setting"].get(key, 0))
        batch_size *= config["setting"].get(key, int(key != "batch_size"))
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
    )
    return Plan(config, cards)


def card_of_axis(axis: str, node: Mapping[str, Any]) -> Card:
    """Return the card of a block.

    Raises:
        UserError: If the block names a component of another axis, or bears another name than the component.
    """
    card, own = card_of(node), card_of({"_target_": node.get("_target_")}).name
    if AXIS_OF[type(card)] != axis:
        raise UserError(f"{axis}._target_={node['_target_']} is no {axis} but a {AXIS_OF[type(card)]}.")
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
    """
    if reason := compatible(plan.cards):
        raise IncompatibleCellError(reason)


def metric_blocks(plan: Plan) -> list[dict[str, Any]]:
    """Return the blocks of the metrics to compute: those chosen, or the task's own where none were.

    Raises:
        UserError: If a chosen metric is of another task or modality.
    """
    task, modality = plan.cards.attack.task, plan.cards.dataset.modalities
    chosen = list((plan.config.get("metric") or {}).values())
    if not chosen:
        return [
            dict(one.node)
            for one in entries("metric")
            if (card := cast(MetricCard, one.card)).default
            and task in card.tasks
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
