"""Finding a stored cell again by its id, and the configuration that made it.

A shard may come from somebody else. What it holds is data: its configuration chooses among the components of the
catalogue, its texts are texts, and what would run the user's own code is asked for on the command line.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mibench.errors import UnknownNameError, UserError
from mibench.leaderboard.collect import parsed
from mibench.leaderboard.shards import read_shard, shard_path
from mibench.planning.choices import key_of
from mibench.planning.composition import compose, compose_paths
from mibench.planning.identity import LATER, MACHINE_KEYS, OWN, flat
from mibench.planning.plan import Plan, folder, plan_cell
from mibench.planning.veil import given_again, is_veil

if TYPE_CHECKING:
    import pandas as pd

#: Blocks of which a stored configuration leaves out what made no difference to the cell.
MERGED = ("knowledge", *dict.fromkeys(key.partition(".")[0] for key in LATER))

#: The option that names code of the user's own.
FACTORY = "target.factory"


def split_words(words: Sequence[str], command: str) -> tuple[str, list[str]]:
    """Return the cell id and the Hydra overrides of a subcommand's words.

    Raises:
        UserError: If there is not exactly one id.
    """
    ids = [word for word in words if "=" not in word]
    if len(ids) != 1:
        raise UserError(f"{command} takes one cell id, as the tables print it: python -m mibench {command} CELL_ID.")
    return ids[0], [word for word in words if "=" in word]


def stored_rows(cell_id: str, results: Path) -> pd.DataFrame:
    """Return the rows of the one shard whose id begins with ``cell_id``.

    Raises:
        UserError: If none or several begin so.
    """
    names = sorted(path.stem for path in (results / "shards").glob("*.parquet"))
    matching = [name for name in names if name.startswith(cell_id)]
    if not matching:
        raise UnknownNameError(f"cell below {results}/shards named", cell_id, names or ["no cell has been run yet"])
    if len(matching) > 1:
        raise UserError(f"Several cells begin with '{cell_id}': {', '.join(matching)}; write one more digit.")
    return read_shard(shard_path(results, matching[0]))


def completed(description: Mapping[str, Any], overrides: Sequence[str], again: str) -> tuple[dict[str, Any], list[str]]:
    """Return a stored configuration with what a row does not hold, and the other words.

    These are the values behind digests, and the factory of a target, which is code that the user chooses.

    Args:
        description: The stored configuration.
        overrides: The words of the command line.
        again: The beginning of the command, for the message.

    Raises:
        UserError: If one of them is not given, or is another one than the cell was made with.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    stored = dict(flat(description))
    asked = [key for key, value in stored.items() if is_veil(value) or (key == FACTORY and value)]
    own = [key for key in stored if key in asked or OWN.fullmatch(key.rpartition(".")[2])]
    given = {key_of(word): word for word in overrides if key_of(word) in own}
    if missing := [key for key in asked if key not in given]:
        wanted = " ".join(f"{key}=VALUE" for key in missing)
        factory = f" Its row names the factory '{stored[FACTORY]}'." if FACTORY in missing else ""
        raise UserError(
            f"This cell was made with {' and '.join(missing)}, which a row does not hold or may not choose; give what "
            f"was used then: {again} {wanted}.{factory}"
        )
    parser = OverridesParser.create()
    values = {key: parser.parse_override(word).value() for key, word in given.items()}
    return given_again(description, values), [word for word in overrides if key_of(word) not in own]


def replan(description: Mapping[str, Any], overrides: Sequence[str]) -> Plan:
    """Return the plan of a stored cell, with machine keys and metrics from today's command line.

    Raises:
        UserError: If it describes no cell, names a component that is not in the catalogue, or one has been revised
            since, so that the cell would not be the same any more.
    """
    cfg = compose(overrides)
    OmegaConf.set_struct(cfg, False)
    for key, value in description.items():
        if key in MACHINE_KEYS:
            continue
        text = literal(value)
        if key in MERGED and isinstance(value, Mapping):  # what made no difference to the cell is not stored with it
            cfg[key] = {**cfg[key], **text}
        elif key != "revisions":
            cfg[key] = text
    if not isinstance(cfg.get("dataset"), DictConfig):
        raise UserError("The configuration that is stored with this cell describes none; run the cell again.")
    cfg.dataset.data_root = "${paths.data}"
    plan = plan_cell(cfg)
    if plan.description["revisions"] != description.get("revisions"):
        raise UserError(
            "A component of this cell has been revised since it was run; run it again with overwrite=always."
        )
    return plan


def literal(value: Any) -> Any:
    r"""Return stored data as OmegaConf takes them for what they are: an interpolation in them is a text.

    >>> print(literal(["${oc.env:HOME}", 3]))
    ['\\${oc.env:HOME}', 3]
    """
    if isinstance(value, Mapping):
        return {key: literal(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [literal(one) for one in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def results_folder(overrides: Sequence[str]) -> Path:
    """Return ``paths.results`` as these overrides set it."""
    if all(word.startswith("paths.") for word in overrides):
        with contextlib.suppress(HydraException, OmegaConfBaseException):  # a whole cell says better what is wrong
            return Path(str(compose_paths(overrides).results)).expanduser()
    return folder(plan_cell(compose(overrides)), "results")


def results_of(overrides: Sequence[str]) -> Path:
    """Return ``paths.results`` as those of these overrides set it that are about paths."""
    return results_folder([word for word in overrides if word.startswith("paths.")])


def description_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the configuration stored with a cell's rows.

    Raises:
        UserError: If it is none.
    """
    try:
        return parsed(rows["config"].iloc[0])
    except UserError as reason:
        raise UserError(f"The rows of cell {rows['cell_id'].iloc[0]} hold {reason}; run the cell again.") from reason
