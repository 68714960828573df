"""Finding a stored cell again by its id, and the configuration that made it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mibench.errors import UnknownNameError, UserError
from mibench.leaderboard.shards import read_shard, shard_path
from mibench.planning.composition import compose, compose_paths
from mibench.planning.identity import LATER
from mibench.planning.plan import Plan, folder, plan_cell

if TYPE_CHECKING:
    import pandas as pd

#: Blocks of which a stored configuration leaves out what made no difference to the cell.
MERGED = ("knowledge", *dict.fromkeys(key.partition(".")[0] for key in LATER))


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


def replan(description: Mapping[str, Any], overrides: Sequence[str]) -> Plan:
    """Return the plan of a stored cell, with machine keys and metrics from today's command line.

    Raises:
        UserError: If a component has been revised since, so that the cell would not be the same any more.
    """
    cfg = compose(overrides)
    OmegaConf.set_struct(cfg, False)
    for key, value in description.items():
        if key in MERGED and isinstance(value, Mapping):  # what made no difference to the cell is not stored with it
            cfg[key] = {**cfg[key], **value}
        elif key != "revisions":
            cfg[key] = value
    cfg.dataset.data_root = "${paths.data}"
    plan = plan_cell(cfg)
    if plan.description["revisions"] != description["revisions"]:
        raise UserError(
            "A component of this cell has been revised since it was run; run it again with overwrite=always."
        )
    return plan


def results_folder(overrides: Sequence[str]) -> Path:
    """Return ``paths.results`` as these overrides set it."""
    if all(word.startswith("paths.") for word in overrides):
        with contextlib.suppress(HydraException, OmegaConfBaseException):  # a whole cell says better what is wrong
            return Path(str(compose_paths(overrides).results)).expanduser()
    return folder(plan_cell(compose(overrides)), "results")


def description_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the configuration stored with a cell's rows."""
    description: dict[str, Any] = json.loads(rows["config"].iloc[0])
    return description
