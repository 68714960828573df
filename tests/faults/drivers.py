"""The commands whose files fail, and what each begins with."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import composing
import pytest
from faults.harness import STATUSES, Case, Driver, renamed, run_forked

CONF = Path(__file__).with_name("conf")
WHERE = ("paths.results=r", "paths.store=s")

#: A cell of a few milliseconds: it trains a victim, checkpoints it, attacks it, stores and draws what it got.
TOY = (
    f"--config-dir={CONF}", "attack=fault_toy", "budget=smoke", "dataset.size=8", "target=mlp",
    "target.recipe.epochs=1", "target.recipe.min_steps=0", "target.recipe.batch_size=226", "control=none",
    "evaluation.count=0", "metric=[target_accuracy,knn_distance]", "threads=1", "device=cpu", "logger=none",
    "overwrite=failed", "time_limit=100", *WHERE,
)  # fmt: skip

#: A cell as users run it.
REAL = (
    "attack=mi_face", "budget=smoke", "dataset.size=8", "evaluation.count=1", "evaluation.rounds=1", "threads=1",
    "device=cpu", "overwrite=failed", "time_limit=1000", *WHERE,
)  # fmt: skip

SWEEP = ("-m", *TOY, "seed=0,1", "pack=2")


def study_and_cache(folder: Path) -> None:
    """Make a study of one cell, and leave a cache that has not yet seen the other cell."""
    shards = sorted((folder / "r" / "shards").iterdir())
    studies = folder / "r" / "studies"
    studies.mkdir()
    shutil.copy(shards[0], studies / "one.parquet")
    kept = shards[1].rename(folder / "kept")
    assert run_forked(("leaderboard", WHERE[0]), folder).status == 0
    kept.rename(shards[1])


def with_leftovers(folder: Path) -> None:
    """Leave in the store what interrupted commands leave: of a known artifact just now, of an unknown one days ago."""
    kind = folder / "s" / "victim"
    (digest,) = (one.name for one in kind.iterdir() if one.is_dir())
    (kind / f".tmp-{digest}-1-abcdef").mkdir()
    for name in (f".tmp-{digest}-1-abcdef/tensors.safetensors", ".tmp-abc", ".unfinished-0123456789abcdef"):
        (kind / name).write_bytes(b"half")
    os.utime(kind / ".tmp-abc", (0, 0))


CELL = Driver("cell", TOY)
DRIVERS = (
    CELL,
    Driver("sweep", SWEEP),
    Driver("leaderboard", ("leaderboard", WHERE[0]), before=(SWEEP,), prepare=study_and_cache),
    Driver("score", ("score", "CELL", TOY[0], "metric=[knn_distance,target_accuracy]", *WHERE), before=(TOY,)),
    Driver(
        "collect",
        ("store", "collect", "kinds=victim", WHERE[1]),
        before=(TOY,),
        prepare=with_leftovers,
        remains=False,
    ),
)
REAL_CELL = Driver("real cell", REAL, every=60.0)
RANDOM = (renamed(CELL, "cell at random times"), renamed(DRIVERS[1], "sweep at random times"))


@contextmanager
def warmed(home: Path, drivers: Sequence[Driver] = DRIVERS) -> Iterator[dict[str, Case]]:
    """Give the cases of some drivers, by name, in a process that has imported and read all they need."""
    import torch

    from mibench.cli.main import main

    torch.set_num_threads(1)
    before = os.getcwd()
    with composing.remembered_files(), composing.composed_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("mibench.version.git_commit", lambda: "")
        os.environ["MIBENCH_PROGRESS"] = "0"
        try:
            (home / "warm").mkdir(parents=True)
            os.chdir(home / "warm")
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                for words in dict.fromkeys(words for one in drivers for words in (*one.before, one.words)):
                    if main([word for word in words if word != "CELL"]) not in STATUSES:
                        raise KeyboardInterrupt
            yield {one.name: Case(one, home / one.name.replace(" ", "-")) for one in drivers}
        finally:
            os.chdir(before)
