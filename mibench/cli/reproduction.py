"""The command that makes a stored cell again, from its configuration and today's defaults."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mibench.card import AttackCard
from mibench.errors import UnknownNameError, UserError
from mibench.files import write_text
from mibench.leaderboard.page import Reproduction
from mibench.limits import TEXT, content
from mibench.planning.catalogue import AXES, card_of, check_known, choices, conf_dir
from mibench.planning.choices import quoted
from mibench.planning.composition import compose, plain
from mibench.planning.identity import REVISED, SEEDS, essential, flat, later_keys, revision_of
from mibench.storage.store import digest_of

#: The axes of a command, in the order in which they are written; the first ones always stand there.
ALWAYS = ("attack", "defense", "dataset", "target", "budget")
WHERE_CHANGED = ("setting", "prior")

#: Words that Hydra would read as something else than a string.
RESERVED = re.compile(r"null|true|false|yes|no|on|off|nan|[+-]?inf|[+-]?[\d_.]+(e[+-]?\d+)?", re.IGNORECASE)


@dataclass
class Commands:
    """Derives commands; compositions are kept, so that a thousand cells need few of them.

    Attributes:
        file: Where compositions are kept between runs; None keeps them in memory only. They are dropped when
            the configuration folder changes.
    """

    file: Path | None = None

    def __post_init__(self) -> None:
        self._stamp = folder_stamp()
        self._known: dict[str, Any] = {}
        self._grown = False
        try:
            kept = json.loads(content(self.file, str(self.file), TEXT)) if self.file else {}
            if kept.get("stamp") == self._stamp and kept["digest"] == digest_of(kept["composed"]):
                self._known = dict(kept["composed"])
        except (UserError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
            self._known = {}

    def save(self) -> None:
        """Write what was composed to ``file``, where anything is new; where it cannot be, that costs time alone."""
        if self.file and self._grown:
            kept = {"stamp": self._stamp, "digest": digest_of(self._known), "composed": self._known}
            with contextlib.suppress(OSError):
                write_text(self.file, json.dumps(kept, sort_keys=True))

    def __call__(self, config: Mapping[str, Any]) -> Reproduction:
        """Return the command of a stored configuration, the seed included where it has one.

        What a component was then and cannot be set to now (another class, an option that is gone, a revision) is
        named in ``changed``: the command then runs today's cell, not that one.
        """
        try:
            today, words = self._today(config)
            known = _known(config)
            later = {key for key in later_keys(known) if not key.startswith("knowledge.")}  # the page words grants
            changed = revised(known)
        except (UserError, KeyError, TypeError, AttributeError) as error:
            return Reproduction("", (), (f"One of its components is not in the catalogue: {error}",))
        options: list[str] = []
        differing = {key for key in config.keys() | today.keys() if config.get(key, _ABSENT) != today.get(key, _ABSENT)}
        then = dict(flat({key: value for key, value in config.items() if key in differing}))
        now = dict(flat({key: value for key, value in today.items() if key in differing}))
        changed = [
            *(
                f"{key} is new since then (today {now[key]})"
                for key in now
                if key not in (*then, "dataset.data_root", "seed")
            ),
            *changed,
        ]
        seeds = SEEDS if config.get("seeds") == "all" else ()
        for key, value in then.items():
            if key in ("seed", "revisions", *seeds) or now.get(key, _ABSENT) == value:
                continue
            unknown = key not in now and key not in later
            if unknown or key.rpartition(".")[2] in ("_target_", "name", "variant_of"):
                changed.append(f"{key} was {value}")
            else:
                options.append(f"{key}={written(value)}")
        if "seed" in config:
            words.append(f"seed={written(config['seed'])}")
        command = " ".join(["python -m mibench", *(shlex.quote(word) for word in [*words, *options])])
        wrapped = [word.replace("attack@", "", 1) for word in words if word.startswith("attack@")]
        return Reproduction(command, (*wrapped, *options), tuple(changed))

    def _today(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return what the cell's choices compose to today, and the words that choose them.

        A block depends on its own choice and on the budget, so blocks of several compositions may stand together; the
        attack's composition leads, because an attack may set the axes before it.
        """
        chosen = {axis: str(config[axis]["name"]) for axis in (*ALWAYS, *WHERE_CHANGED)}
        for axis, name in chosen.items():
            if name not in (known := choices(axis)):  # what Hydra would read in the name is not asked for
                raise UnknownNameError(axis, name, known)
        budget = f"budget={chosen['budget']}"
        today = dict(self._composed(f"attack={chosen['attack']}", budget))
        words = [f"{axis}={chosen[axis]}" for axis in ALWAYS]
        if (base := _base(config["attack"])) != _base(today["attack"]):
            if base not in (known := choices("attack")):
                raise UnknownNameError("attack", base, known)
            words.insert(1, f"attack@attack.base={base}")
            today = dict(self._composed(words[0], words[1], budget))
        words += [f"{axis}={chosen[axis]}" for axis in WHERE_CHANGED if today[axis]["name"] != chosen[axis]]
        for axis in ("defense", "dataset", "target", *WHERE_CHANGED):
            if today[axis]["name"] != chosen[axis]:
                today[axis] = self._composed(f"{axis}={chosen[axis]}", budget)[axis]
        return today, words

    def _composed(self, *overrides: str) -> Mapping[str, Any]:
        key = " ".join(overrides)
        if key not in self._known:
            from hydra.errors import HydraException

            try:
                config = plain(compose(overrides))
            except HydraException as error:
                raise UserError(f"{key} cannot be composed ({type(error).__name__}).") from error
            self._known[key] = essential(config, cast(AttackCard, card_of(config["attack"])))
            self._grown = True
        composed: Mapping[str, Any] = self._known[key]
        return composed


_ABSENT = object()


def _base(attack: Mapping[str, Any]) -> str:
    """Return the name of the attack that an attack's block wraps; empty where it wraps none."""
    base = attack.get("base")
    return str(base.get("name", "")) if isinstance(base, Mapping) else ""


def _known(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration without the blocks whose class is not in the catalogue today."""
    kept = {}
    for key, node in config.items():
        if key in (*AXES, "logger") and isinstance(node, Mapping):
            with contextlib.suppress(UserError):
                check_known(key, node)
                kept[key] = node
        elif key not in AXES:
            kept[key] = node
    return kept


def revised(config: Mapping[str, Any]) -> list[str]:
    """Return which components have been revised since a configuration was stored."""
    return [
        f"{axis} '{config[axis]['name']}' is at revision {now}, then {then}"
        for axis, then in zip(REVISED, config.get("revisions", ()), strict=False)
        if axis in config and (now := revision_of(config[axis])) != then
    ]


def folder_stamp() -> str:
    """Return the SHA-256 of the configuration folder's yamls, by name and content."""
    sha = hashlib.sha256()
    for file in sorted(conf_dir().rglob("*.yaml")):
        sha.update(f"{file.relative_to(conf_dir())}\0".encode())
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()


def written(value: Any) -> str:
    """Return a value as Hydra's command line reads it back.

    >>> written([1, "mlp", None]), written("a b"), written(1e-05), written("true")
    ('[1,mlp,null]', "'a b'", '1e-05', "'true'")

    An interpolation in a stored value is a text: its ``${`` is written so that nothing is put in its place.
    """
    if isinstance(value, list | tuple):
        return f"[{','.join(written(one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{written(one)}' for key, one in value.items())}}}"
    if not isinstance(value, str):
        return json.dumps(value)
    if re.fullmatch(r"[\w/.:~-]+", value) and not RESERVED.fullmatch(value):
        return value
    return quoted(value)
