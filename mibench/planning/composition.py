"""From the words of a command line to a configuration, and from its blocks to components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from mibench.card import AttackCard, DatasetCard, DefenseCard, MetricCard, PriorCard, SettingCard, TargetCard
from mibench.errors import UserError
from mibench.options import arguments, check_types, check_value, expected_types, shown
from mibench.planning.calibration import CALIBRATED
from mibench.planning.catalogue import conf_dir, entry, search_path_override
from mibench.planning.veil import register

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader

BUDGETS = ("smoke", "standard", "paper")

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

#: Keys of a component's block that describe it and are no arguments of its class.
DESCRIPTIONS = ("name", "variant_of", "recipe", "access", CALIBRATED)


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
    register()

    def by_budget(*values: Any, _root_: DictConfig) -> Any:
        check_value("budget.name", Literal["smoke", "standard", "paper"], _root_.budget.name)
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


def compose_paths(overrides: Sequence[str]) -> DictConfig:
    """Return ``paths`` alone as overrides of it set it: a tenth of the time that a whole cell takes."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    register_with_hydra()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        whole = hydra_compose(config_name="paths/default", overrides=[*overrides, *search_path_override()])
    return cast(DictConfig, whole.paths)


def default_results() -> Path:
    """Return the folder of results where none is named: ``MIBENCH_RESULTS``, else ``results``."""
    return Path(str(compose_paths([]).results)).expanduser()


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
            f"Expected {axis} to be a block with a name, chosen from conf/{axis}, but got '{shown(node)}'; choose one "
            f"with {axis}=NAME and set its options with {axis}.OPTION=VALUE."
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


@dataclass(frozen=True)
class Part:
    """A component before it is made: its class, and its options, which are known and of their types.

    Attributes:
        component: The class.
        options: The options; a wrapped attack and a stack's parts are parts themselves.
    """

    component: type
    options: Mapping[str, Any]

    def make(self, **more: Any) -> Any:
        """Return the component, new and with new parts; ``more`` are further arguments.

        Raises:
            UserError: If the component refuses its options together.
        """
        given = {name: _made(value) for name, value in self.options.items()} | more
        return self.component(**arguments(self.component, given))


def _made(value: Any) -> Any:
    if isinstance(value, list):
        return [_made(one) for one in value]
    return value.make() if isinstance(value, Part) else value


def part_of(node: Mapping[str, Any], key: str = "", more: Mapping[str, Any] | None = None) -> Part:
    """Return the part that a resolved block describes.

    Args:
        node: The block.
        key: The key below which its options stand, where that is not its axis.
        more: Options in place of those of the block.

    Raises:
        UserError: If an option is unknown or has a wrong type.
    """
    from hydra.utils import get_class

    options = {
        **{name: value for name, value in node.items() if name not in (*DESCRIPTIONS, "_target_")},
        **(more or {}),
    }
    component = get_class(node["_target_"])
    inner: dict[str, Any] = {}
    if isinstance(base := options.get("base"), Mapping):
        inner["base"] = part_of(base)
    if "parts" in options:
        inner["parts"] = [part_of(part, f"defense.options.{part['name']}") for part in options["parts"]]
    known = expected_types(component)
    own = {name: value for name, value in options.items() if name not in inner or name not in known}
    check_types(key or key_of_block(node["name"], component), component, own)
    return Part(component, {**options, **inner})


def build(node: Mapping[str, Any], **more: Any) -> Any:
    """Return the component that a resolved block describes.

    Raises:
        UserError: If an option is unknown or has a wrong type.
    """
    return part_of(node).make(**more)


def key_of_block(name: str, component: type) -> str:
    """Return the key under which a component's block stands in a cell: ``attack``, ``metric.psnr``."""
    axis = AXIS_OF.get(type(getattr(component, "card", None)), "logger")
    return f"{axis}.{name}" if axis == "metric" else axis
