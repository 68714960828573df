"""One cell, or with ``-m`` a grid of them, composed by Hydra."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from mibench.cli.table import print_scores
from mibench.cli.words import checked
from mibench.errors import IncompatibleCellError, NotGrantedError, UserError
from mibench.planning.catalogue import AXES, conf_dir, search_also, search_path_override
from mibench.planning.composition import block, compose_within, opened, register_with_hydra
from mibench.planning.grid import ADAPTIVE, every_attack
from mibench.planning.plan import Plan, plan_cell, refuse_incompatible
from mibench.running.standing import (
    draw_again,
    finished,
    lacks_picture,
    leave_row,
    logged,
    picture_path,
    run_under_claim,
)

if TYPE_CHECKING:
    pass

log = logging.getLogger("mibench")

#: What the last command led to: the status of its cell, or of its sweep.
outcome: list[int] = []

#: What ended the last command, raised again after Hydra is done, which would print its own lines around it.
mistakes: list[Exception] = []

#: The words of a sweep that Hydra does not see; see :func:`hold_back`.
held_back: list[str] = []

register_with_hydra()  # on import, because a launcher's workers import this module and nothing else of mibench


def run(words: Sequence[str]) -> int:
    """Hand the words to Hydra and return 0, or 1 where a cell failed.

    Raises:
        UserError: If a word or an option is wrong.
    """
    import hydra

    outcome.clear()
    mistakes.clear()
    before = sys.argv
    held_back.clear()
    words = opened(checked(words))
    if {"-m", "--multirun"} & {*words}:
        words = hold_back(every_attack(words))
    elif "attack=worst_case" in words:
        raise UserError("attack=worst_case is many cells; run them with: python -m mibench -m attack=worst_case ...")
    elif f"attack={ADAPTIVE}" in words:
        raise UserError("attack=adaptive may be several cells; run them with: python -m mibench -m attack=adaptive ...")
    sys.argv = ["mibench", *search_path_override(), *words]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="cell")(cell_task)()
    finally:
        sys.argv = before
    if mistakes:
        raise mistakes[0]
    return max(outcome, default=0)


def hold_back(words: Sequence[str]) -> list[str]:
    """Keep the options of components that a sweep sets from Hydra, and return the other words.

    Before it sweeps, Hydra composes the default cell with every word that has one value, and refuses an option that
    only another choice has: ``-m attack=dlg,idlg attack.restarts=1``; nor is there an attack of the name ``adaptive``.
    The sweeper composes cells with all of them.
    """
    option = re.compile(rf"[+~]*({'|'.join(AXES)})\.|attack={ADAPTIVE}$")
    held_back.extend(word for word in words if option.match(word))
    return [word for word in words if not option.match(word)]


def cell_task(cfg: DictConfig) -> None:
    """What Hydra runs: one cell, or in a sweep the cells of one pack."""
    from hydra.core.hydra_config import HydraConfig

    search_also(HydraConfig.get().searchpath)  # which a launcher's worker knows from here alone
    if "pack_file" in cfg:
        run_pack(cfg)
        return
    try:
        name = block(cfg, "grid")["name"]
        if name != "none":
            raise UserError(f"grid={name} is many cells; run them with: python -m mibench -m grid={name}")
        outcome.append(run_composed(cfg))
    except Exception as error:
        mistakes.append(error)


def run_pack(cfg: DictConfig) -> None:
    """Run the cells of one launcher job, each whatever became of those before it."""
    from hydra.core.global_hydra import GlobalHydra

    from mibench.cli.sweeping import read_pack

    loader = GlobalHydra.instance().config_loader()
    for overrides in read_pack(cfg):
        log.info("cell      %s", " ".join(overrides))
        run_composed(compose_within(loader, overrides), sweeping=True)


def run_composed(cfg: DictConfig, sweeping: bool = False) -> int:
    """Run one composed cell, print its table, and return 0, or 1 where it failed.

    In a sweep a cell whose parts cannot meet, or whose attack needs what the threat model does not grant, leaves a
    ``skipped`` row, one that meets any other mistake of the user a ``failed`` one, and the sweep goes on; alone it is
    refused.

    Raises:
        UserError: If the cell or one of its options is wrong.
    """
    plan = plan_cell(cfg)
    try:
        refuse_incompatible(plan)
        if (path := finished(plan)) is not None:
            return print_stored(path, plan)
        return run_planned(plan)
    except UserError as reason:
        if not sweeping:
            raise
        skipped = isinstance(reason, IncompatibleCellError | NotGrantedError)
        status = "skipped" if skipped else "failed"
        log.warning("%s   %s", status, reason)
        try:
            leave_row(plan, status, str(reason) if skipped else logged(plan, str(reason)))
        except UserError as unwritten:
            log.warning("%s", unwritten)
            return 1
        return 0 if skipped else 1


def run_planned(plan: Plan) -> int:
    """Run a compatible cell, print what it left, and return 0, or 1 where it failed."""
    ended = run_under_claim(plan)
    if ended.status == "elsewhere":
        log.info("%s", ended.sentence)
        return 0
    if ended.status == "stands":
        assert ended.shard is not None
        return print_stored(ended.shard, plan)
    if ended.error is not None:
        traceback.print_exception(ended.error)
        print(ended.sentence, file=sys.stderr)
        return 1
    done = ended.outcome
    assert done is not None
    print_scores(done.scores, plan, done.notes)
    print(f"rows      {done.shard}")
    if done.picture is not None:
        print(f"pictures  {done.picture}")
    return 0


def print_stored(path: Path, plan: Plan) -> int:
    """Print the table of a shard that stands already; return 1 where it tells of a failure, 0 otherwise."""
    from mibench.cli.table import notes_of, scores_of
    from mibench.leaderboard.shards import read_shard

    rows = read_shard(path)
    if "failed" in set(rows["status"]):
        reason = rows.loc[rows["status"] == "failed", "reason"].iloc[0]
        print(f"This cell failed before ({reason}); overwrite=failed runs it again.", file=sys.stderr)
        return 1
    log.info("This cell has been run; its rows are kept (overwrite=always runs it again).")
    scores = scores_of(rows)
    print_scores(scores, plan, notes_of(rows))
    print(f"rows      {path}")
    if lacks_picture(plan, path):
        draw_again(plan, scores)
    if (picture := picture_path(plan)).exists():
        print(f"pictures  {picture}")
    return 0
