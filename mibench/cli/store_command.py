"""``mibench store``: the artifacts on disk, and the removal of those no stored cell could have used."""

from __future__ import annotations

from collections.abc import Sequence

from mibench.errors import UnknownNameError, UserError
from mibench.planning.composition import compose
from mibench.planning.plan import folder, plan_cell
from mibench.storage.store import Store


def run(words: Sequence[str]) -> int:
    """List the artifacts, or delete those of the kinds named: ``store collect kinds=victim,prior``."""
    commands = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word and not word.startswith("kinds=")]
    kinds = [word.removeprefix("kinds=") for word in words if word.startswith("kinds=")]
    if len(commands) > 1 or (commands and commands[0] != "collect"):
        raise UnknownNameError("store command", " ".join(commands), ["collect"])
    store = Store(folder(plan_cell(compose(overrides)), "store"))
    artifacts, unfinished = list(store.artifacts()), list(store.unfinished())
    if commands:
        if not kinds:
            there = ", ".join(sorted({one.kind for one in [*artifacts, *unfinished]})) or "none"
            raise UserError(
                "store collect deletes artifacts that would have to be built again; say which, for instance "
                f"kinds=reconstruction (there are: {there})."
            )
        doomed = set(kinds[0].split(","))
        freed = store.collect({one.digest for one in [*artifacts, *unfinished] if one.kind not in doomed})
        print(f"freed {freed / 2**20:.1f} MiB below {store.root}")
        return 0
    for one in artifacts:
        print(f"{one.kind:<16}{one.digest}  {one.size / 2**20:8.2f} MiB  {describe(one.key)}")
    for one in unfinished:
        print(f"{one.kind:<16}{one.digest}  {one.size / 2**20:8.2f} MiB  unfinished: its cell will go on from here")
    size = sum(one.size for one in [*artifacts, *unfinished])
    print(f"{len(artifacts)} artifacts, {size / 2**20:.1f} MiB below {store.root}")
    return 0


def describe(key: object) -> str:
    """Return what an artifact is, from its key: the names of the components in it."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("name"), str):
                found.append(value["name"])
            for inner in value.values():
                walk(inner)

    walk(key)
    return " ".join(dict.fromkeys(found))
