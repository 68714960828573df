"""``mibench fetch``: files of datasets, public sets, targets, metrics and judges that do not travel with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from mibench.card import DatasetCard
from mibench.errors import UnknownNameError, UserError
from mibench.planning.catalogue import Entry, conf_dir, entries
from mibench.planning.sources import downloads_of, source_of
from mibench.storage.fetching import Download, fetch, found
from mibench.storage.judge_files import JUDGE_FILES
from mibench.storage.public_sets import PUBLIC_SETS, fetch_set

#: The axes whose components may have files, with the key of ``paths`` that says where these lie.
ROOTS = {"dataset": "data", "metric": "weights", "target": "weights"}


def run(words: Sequence[str]) -> int:
    """Fetch what a dataset, public set, target, metric or judge needs (``fetch mnist paths.data=DIR``), or list it."""
    names = [word for word in words if "=" not in word]
    folders = folders_of([word for word in words if "=" in word and not word.startswith("verbose=")])
    if len(names) > 1:
        raise UserError(f"fetch takes one name at a time, but got {', '.join(names)}.")
    known = {one.name: one for axis in reversed(ROOTS) for one in entries(axis) if axis == "dataset" or downloads(one)}
    if not names:
        for one in sorted(known.values(), key=lambda one: (one.axis, one.name)):
            print(f"{one.axis:<8}  {one.name:<18}  {state(one, folders[one.axis])}")
        for name, chosen_set in PUBLIC_SETS.items():
            print(f"{'public':<8}  {name:<18}  {state_of(chosen_set.downloads, name, folders['dataset'])}")
        for name, files in JUDGE_FILES.items():
            print(f"{'judges':<8}  {name:<18}  {state_of(files, name, folders['metric'])}")
        return 0
    if names[0] in JUDGE_FILES:
        for file in JUDGE_FILES[names[0]]:
            print(f"{names[0]}: {fetch(file, folders['metric'])}", flush=True)
        return 0
    if names[0] in PUBLIC_SETS:
        for said in fetch_set(PUBLIC_SETS[names[0]], folders["dataset"]):
            print(f"{names[0]}: {said}", flush=True)
        return 0
    if names[0] not in known:
        raise UnknownNameError("dataset, target or metric with files", names[0], [*known, *PUBLIC_SETS, *JUDGE_FILES])
    chosen = known[names[0]]
    if not (wanted := downloads(chosen)):
        print(f"{chosen.name}: {state(chosen, folders[chosen.axis])}")
    for file in wanted:
        print(f"{chosen.name}: {fetch(file, folders[chosen.axis])}", flush=True)
    return 0


def downloads(one: Entry) -> tuple[Download, ...]:
    """Return the files of a component, read from its source without importing it."""
    module, _, name = str(one.node["_target_"]).rpartition(".")
    return downloads_of(source_of(module), name)


def state(one: Entry, root: Path) -> str:
    """Return what can be said of a component's files without reading or fetching them."""
    files = downloads(one)
    if not files:
        embedded = isinstance(one.card, DatasetCard) and one.card.embedded
        return "travels with mibench: nothing to fetch" if embedded else "your own files: nothing to fetch"
    return state_of(files, one.name, root)


def state_of(files: Sequence[Download], name: str, root: Path) -> str:
    """Return which of some files are there, or what to do."""
    missing = [file for file in files if found(file, root) is None]
    if not missing:
        return f"there, below {root}"
    if hand := [file.by_hand for file in missing if not file.source]:
        return f"missing below {root}, by hand: {hand[0]}"
    return f"missing below {root}: python -m mibench fetch {name}"


def folders_of(overrides: Sequence[str]) -> dict[str, Path]:
    """Return the folder of each axis' files, from ``conf/paths`` and the command line, without composing a cell."""
    allowed = [f"paths.{key}=" for key in ROOTS.values()]
    for word in overrides:
        if not word.startswith(tuple(allowed)):
            raise UserError(f"fetch takes a name, paths.data=DIR and paths.weights=DIR, but got '{word}'.")
    defaults = OmegaConf.create({"paths": OmegaConf.load(conf_dir() / "paths" / "default.yaml")})
    config = OmegaConf.merge(defaults, OmegaConf.from_dotlist(list(overrides)))
    return {axis: Path(str(config.paths[key])).expanduser() for axis, key in ROOTS.items()}
