"""What a cell is: which parts of a configuration identify it, and what may be added without moving an id."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mibench.card import JUDGED, AttackCard, DatasetCard
from mibench.errors import UserError
from mibench.knowledge import GRANTS
from mibench.planning.calibration import CALIBRATED
from mibench.planning.catalogue import card_of, later_options
from mibench.planning.sources import spec_of
from mibench.storage.image_files import class_folders, files_below, nested, refuse_without_images
from mibench.storage.progress import progress
from mibench.storage.public_sets import PUBLIC_SETS

log = logging.getLogger("mibench")

#: From so many files, or bytes, of a folder on it is said that it is read.
MANY = 20_000, 1_000_000_000

#: Keys of the configuration that change neither what a cell is nor what it measures.
MACHINE_KEYS = (
    "metric", "convergence", "paths", "device", "threads", "overwrite", "verbose", "logger", "grid", "pack",
    "time_limit",
)  # fmt: skip

#: Keys that were added after the first cells had been measured, with the value that was the only behaviour before. At
#: that value a key is left out of identity, description and reproduction. A component says the same of an option that
#: it gains in its field: ``option(False, since=2)``.
LATER: Mapping[str, Any] = {
    "seeds": "victim",
    "budget.gradients": None,
    "knowledge.defense_loss": False,
    "knowledge.repeats": 1,
    "evaluation.min_steps": None,
    "evaluation.rounds": 3,  # came with the second revision of the evaluation models, which counts for what they judge
    "evaluation.embeddings": ["mobilefacenet", "face_resnet"],
}

#: Counts the recipe of the evaluation models; part of what a cell that they judge is, and of their keys, from 2 on.
EVALUATION_REVISION = 2


def evaluation_key(task: str) -> dict[str, int]:
    """Return what the recipe of the evaluation models adds to the key of whatever of a task they judge."""
    return {"revision": EVALUATION_REVISION} if task in JUDGED and EVALUATION_REVISION > 1 else {}


#: Keys of seeds that a cell may let follow its own (``prior.seed=${seed}``, or ``seeds=all``), so that its seeds stay
#: one group.
SEEDS = ("prior.seed", "evaluation.seed", "dataset.seed")

#: The axes whose revisions a stored configuration lists, in their order.
REVISED = ("dataset", "setting", "target", "attack", "defense")

#: How a digest begins that stands in a stored configuration for a value; see :mod:`mibench.planning.veil`.
VEIL = "sha256:"

#: Options that name the user's own folders, files and modules.
OWN = re.compile(r"(?!data_root)(\w+_)?(root|file)|weights|starts_from|factory|truth")


def without_later(block: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block without the keys of :data:`LATER`, and a component's later options, that stand at their default.

    Args:
        block: The key below which the block stands.
        node: The block; those within it, as of a wrapped attack and of a stack's parts, are treated alike.
    """
    target = node.get("_target_")
    later = {**_later_of(block), **(later_options(target) if isinstance(target, str) else {})}
    kept = {}
    for key, value in node.items():
        if key == CALIBRATED or (key in later and value == later[key]):
            continue
        if key == "base" and isinstance(value, Mapping):
            value = without_later(f"{block}.{key}", value)
        if key == "parts" and isinstance(value, Sequence):
            value = [without_later(block, one) if isinstance(one, Mapping) else one for one in value]
        kept[key] = value
    return kept


def later_keys(config: Mapping[str, Any]) -> set[str]:
    """Return the dotted keys that a stored configuration holds only where they differ from what was before.

    These are those of :data:`LATER` and the later options of its components.
    """
    blocks = {key: node for key, node in config.items() if isinstance(node, Mapping)}
    blocks |= {f"{key}.base": node["base"] for key, node in blocks.items() if isinstance(node.get("base"), Mapping)}
    own = {
        f"{key}.{name}"
        for key, node in blocks.items()
        if "_target_" in node
        for name in later_options(node["_target_"])
    }
    return {*LATER, *own}


def _later_of(block: str) -> dict[str, Any]:
    return {key.rpartition(".")[2]: value for key, value in LATER.items() if key.rpartition(".")[0] == block}


def essential(config: Mapping[str, Any], attack: AttackCard) -> dict[str, Any]:
    """Return a cell's configuration without what makes no difference to it.

    These are the keys of the machine, the grants that only some attacks use where the cell's does not, and what was
    added later (:data:`LATER`) and stands at the value of before.
    """
    kept = without_later("", {key: value for key, value in config.items() if key not in MACHINE_KEYS})
    for block, node in kept.items():
        kept[block] = without_later(block, node) if isinstance(node, Mapping) else node
    used = {grant for grant, one in GRANTS.items() if one.part_of(grant, attack)}
    kept["knowledge"] = {grant: value for grant, value in kept["knowledge"].items() if grant in used}
    return kept


def grouped(identity: Mapping[str, Any], follows: Sequence[str]) -> dict[str, Any]:
    """Return an identity without its seed; the seeds that follow it (``evaluation.seed``) are the word ``seed``."""
    kept = {key: value for key, value in identity.items() if key != "seed"}
    for key in follows:
        block, _, name = key.partition(".")
        kept[block] = {**kept[block], name: "seed"}
    return kept


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested configuration as ``a.b.c`` and value; lists are leaves."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def content_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component's block with the content of the user's own folders and files instead of their paths.

    Raises:
        UserError: If a folder that should hold class folders of images does not.
    """
    card = card_of(node) if "_target_" in node else None
    classes = card.class_folders if isinstance(card, DatasetCard) else ()
    return {option: content_at(option, value, option in classes) for option, value in node.items()}


def content_at(option: str, value: Any, classes: bool = False) -> Any:
    """Return a digest for what ``root``, ``file``, ``weights`` and ``factory`` name, any other value as is.

    A folder of class folders is looked at before it is read.
    """
    if not value or not isinstance(value, str | Path) or not OWN.fullmatch(option) or str(value) in PUBLIC_SETS:
        return value
    if str(value).startswith(VEIL):
        return str(value).removeprefix(VEIL)
    if option == "factory":
        return [str(value), source_digest(str(value).partition(":")[0])]
    path = Path(value).expanduser()
    if option.endswith("root"):
        if not path.is_dir():
            return value
        if not classes:
            return folder_digest(path)
        refuse_without_images(option, path)
        deep = nested(class_folders(option, path))  # images in sub-folders of a class were passed over once
        return [folder_digest(path), "sub-folders"] if deep else folder_digest(path)
    return file_digest(path, path.stat().st_mtime_ns) if path.is_file() else value


@cache
def file_digest(path: Path, changed: int) -> str:
    """Return the SHA-256 of a file, read once for every time at which it was ``changed``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def source_digest(module: str) -> str:
    """Return the SHA-256 of a module's source file, empty where there is none; the module is not imported."""
    found = spec_of(module)
    try:
        return hashlib.sha256(Path(str(found and found.origin)).read_bytes()).hexdigest()
    except (OSError, ValueError):
        return ""


@cache
def folder_digest(root: Path) -> str:
    """Return the SHA-256 of the names and contents of all files below a folder, behind a progress bar.

    Raises:
        UserError: If a file cannot be read.
    """
    files = []
    for file in progress(files_below(root), f"listing {root.name}"[:24]):
        files.append(file)
        if len(files) == MANY[0]:
            log.info("reading   %s holds more than %s files; all are listed and then read", root, f"{MANY[0]:,}")
    try:
        size = sum(file.stat().st_size for file in files)
        if size > MANY[1] or len(files) > MANY[0]:
            amount = f"{len(files):,} files ({size / 1e9:.1f} GB)"
            log.info("reading   %s below %s, to know the data by content", amount, root)
        sha = hashlib.sha256()
        for file in progress(sorted(files), f"reading {root.name}"[:24]):
            sha.update(os.fsencode(file.relative_to(root)))
            with file.open("rb") as content:
                sha.update(hashlib.file_digest(content, "sha256").digest())
    except OSError as error:
        raise UserError(
            f"{error.filename or root} cannot be read ({error.strerror}); make it readable or take it out of {root}."
        ) from error
    return sha.hexdigest()


def revision_of(node: Mapping[str, Any]) -> int:
    """Return the revision of the component that a block describes, the one before where the last did not concern it.

    See :attr:`mibench.card.Card.unrevised`.
    """
    card = card_of(node)
    spared = bool(card.unrevised) and all(node.get(option) == value for option, value in card.unrevised)
    return card.revision - spared


def version_of(node: Mapping[str, Any]) -> int | list[Any]:
    """Return the revision of a component, and of one outside mibench the digest of its file beside it.

    Whoever writes a method of their own changes it often, and would not raise ``revision`` each time.
    """
    revision = revision_of(node)
    if "parts" in node:
        return [revision, *(version_of(part) for part in node["parts"])]
    module = node["_target_"].rpartition(".")[0]
    return revision if module.startswith("mibench.") else [revision, source_digest(module)]
