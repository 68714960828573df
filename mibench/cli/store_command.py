"""``mibench store``: the artifacts on disk, and the removal of those no stored cell could have used."""

from __future__ import annotations

from collections.abc import Sequence

from mibench.errors import UnknownNameError, UserError
from mibench.planning.composition import compose
from mibench.planning.plan import folder, plan_cell
from mibench.storage.store import Store

#: What ``store collect`` calls all that was set aside.
DAMAGED = "damaged"


def run(words: Sequence[str]) -> int:
    """List the artifacts, or delete those of the kinds named: ``store collect kinds=victim,prior``.

    The kind ``damaged`` is what was set aside, of whatever kind it was.
    """
    commands = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word and not word.startswith("kinds=")]
    kinds = [word.removeprefix("kinds=") for word in words if word.startswith("kinds=")]
    if len(commands) > 1 or (commands and commands[0] != "collect"):
        raise UnknownNameError("store command", " ".join(commands), ["collect"])
    store = Store(folder(plan_cell(compose(overrides)), "store"))
    artifacts, unfinished = list(store.artifacts()), list(store.unfinished())
    damaged = list(store.damaged())
    if commands:
        if not kinds:
            there = sorted({one.kind for one in [*artifacts, *unfinished]}) + [DAMAGED] * bool(damaged)
            raise UserError(
                "store collect deletes artifacts that would have to be built again; say which, for instance "
                f"kinds=reconstruction (there are: {', '.join(there) or 'none'})."
            )
        doomed = set(kinds[0].split(","))
        freed = store.collect(set(), doomed - {DAMAGED}, damaged=DAMAGED in doomed)
        print(f"freed {freed / 2**20:.1f} MiB below {store.root}")
        return 0
    listed = [(one, describe(one.key)) for one in artifacts]
    listed += [(one, "unfinished: its cell will go on from here") for one in unfinished]
    listed += [(one, f"set aside as damaged: store collect kinds={DAMAGED} deletes it") for one in damaged]
    for one, said in listed:
        print(f"{one.kind:<16}{one.digest}  {one.size / 2**20:8.2f} MiB  {said}")
    print(f"{len(artifacts)} artifacts, {sum(one.size for one, _ in listed) / 2**20:.1f} MiB below {store.root}")
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
