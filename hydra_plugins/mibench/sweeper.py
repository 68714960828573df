"""The sweeper behind ``-m``: asks mibench which cells there are, and hands packs of them to any launcher."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

log = logging.getLogger("mibench")


@dataclass
class MibenchSweeperConf:
    """The sweeper's configuration; it has no options of its own."""

    _target_: str = "hydra_plugins.mibench.sweeper.MibenchSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="mibench", node=MibenchSweeperConf, provider="mibench")


class MibenchSweeper(Sweeper):
    """Runs a grid or the products of the command line, without the cells that cannot be run or stand already."""

    config: DictConfig
    launcher: Launcher
    hydra_context: HydraContext

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepare the launcher."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Plan, launch and conclude; the exit status is kept in ``mibench.cli.run_command.outcome``."""
        from mibench.cli import sweeping
        from mibench.cli.run_command import held_back, outcome
        from mibench.planning.products import products_of
        from mibench.running.stopping import raise_if_stopped

        sweep = sweeping.gather(products_of([*arguments, *held_back]), self.config.grid, self.compose)
        packs = sweep.packs(sweeping.pack_size(self.config))
        log.info(
            "sweep     %d cells to run in %d jobs, %d that cannot be run, %d that stand already%s",
            len(sweep.run), len(packs), len(sweep.skipped), len(sweep.standing),
            f", {len(sweep.undrawn)} of them without their picture" if sweep.undrawn else "",
        )  # fmt: skip
        if packs:
            jobs = sweeping.write_packs(Path(str(self.config.hydra.sweep.dir)), packs)
            if "submitit" in type(self.launcher).__module__:
                from mibench.cli.submitted import await_every_job

                await_every_job()
            try:
                self.launcher.launch(jobs, initial_job_idx=0)
            except Exception as error:  # a launcher raises where a job was killed; the others' rows stand
                raise_if_stopped()
                log.warning("The launcher ended with %s: %s", type(error).__name__, error)
        outcome.append(sweeping.conclude(sweep))

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return one composed cell."""
        from mibench.planning.composition import compose_within

        return compose_within(self.hydra_context.config_loader, overrides)
