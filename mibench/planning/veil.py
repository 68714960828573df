"""What a row does not say: where files lie, who runs mibench on which machine, and what the environment gave.

Rows, pages, studies and copies in a tracker travel. In the place of such a value they hold its digest: of what a path
leads to the SHA-256 of the content, as in the id of the cell, and of any other text that of the text. Whoever makes the
cell again gives the value, and it is compared with the digest. A digest hides a path or a long token; a short word can
be found by trying all.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from mibench.errors import UserError
from mibench.planning.identity import MACHINE_KEYS, VEIL, content_at

#: Keys whose values are words of the catalogue.
WORDS = ("_target_", "name", "variant_of", "access")

#: Names of users and machines that say nothing of anybody, or are words that a sentence needs.
COMMON = (
    "root", "user", "ubuntu", "admin", "runner", "jovyan", "docker", "localhost", "data", "home", "test", "model",
    "node", "none", "mibench", "the", "and", "main",
)  # fmt: skip

#: An absolute path of at least two parts, or one below a home folder, outside of an address.
PATH = re.compile(r"(?<![\w.:/~$>})-])(?:~|(?:/|[A-Za-z]:[\\/])[\w.@%+~-]+)(?:[\\/][\w.@%+~=-]+)+")

#: The fewest characters of a value of the environment that is looked for in sentences.
SHORTEST = 4

#: Variables of the environment that were read while the last leaf was resolved.
_heard: list[str] = []

#: What the environment gave to cells of this process, which no sentence of a row repeats.
_given: set[str] = set()


def register() -> None:
    """Register the resolver of ``${oc.env:NAME}`` that remembers what it gave."""

    def env(key: str, *default: Any) -> Any:
        if key in os.environ:
            _heard.append(key)
        return oc.env(key, *default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)


def env_given(cfg: DictConfig) -> tuple[str, ...]:
    """Return the dotted keys of the texts, outside of the machine's, that the environment gave a part of."""
    found = [key for block in cfg if block not in MACHINE_KEYS for key in _heard_in(cfg, block, "")]
    for key in found:
        value = OmegaConf.select(cfg, key)
        _given.update(one for one in texts(value) if len(one) >= SHORTEST)
    return tuple(found)


def _heard_in(node: DictConfig, name: Any, prefix: str) -> list[str]:
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return []
    key = f"{prefix}{name}"
    inner = node._get_node(name)
    if OmegaConf.is_interpolation(node, name) or isinstance(inner, ListConfig):
        _heard.clear()
        value = node[name]
        if isinstance(value, DictConfig | ListConfig):
            OmegaConf.to_container(value, resolve=True)
        return [key] if _heard else []
    if isinstance(inner, DictConfig) and not inner._is_none():
        return [found for one in inner for found in _heard_in(inner, one, f"{key}.")]
    return []


def texts(value: Any) -> list[str]:
    """Return the texts of a value of a configuration, of a list or a block those in it."""
    if isinstance(value, Mapping | DictConfig):
        return [text for one in value.values() for text in texts(one)]
    if isinstance(value, Sequence | ListConfig) and not isinstance(value, str):
        return [text for one in value for text in texts(one)]
    return [value] if isinstance(value, str) else []


def is_veil(value: Any) -> bool:
    """Return whether a value of a configuration is a digest that stands for another one."""
    return isinstance(value, str) and re.fullmatch(rf"{VEIL}[0-9a-f]{{64}}", value) is not None


def veiled(config: Mapping[str, Any], secret: Sequence[str] = ()) -> dict[str, Any]:
    """Return a configuration with digests in the place of what a row does not say.

    A path below the current folder is written relative to it.

    Args:
        config: Plain data.
        secret: Dotted keys whose texts the environment gave.
    """
    return {key: _veiled(value, key, key, key in secret, secret) for key, value in config.items()}


def _veiled(value: Any, key: str, option: str, hidden: bool, secret: Sequence[str]) -> Any:
    hidden = hidden or key in secret
    if isinstance(value, Mapping):
        return {name: _veiled(one, f"{key}.{name}", str(name), hidden, secret) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_veiled(one, f"{key}.{place}", option, hidden, secret) for place, one in enumerate(value)]
    if not isinstance(value, str) or option in WORDS or is_veil(value):
        return value
    if hidden:
        return digest_for(option, value)
    if (path := Path(value)).is_absolute() and path.is_relative_to(Path.cwd()) and path != Path.cwd():
        value = str(path.relative_to(Path.cwd()))
    return digest_for(option, value) if tells(value) else value


def digest_for(option: str, value: str) -> str:
    """Return what stands for the value of an option: of a file or folder the digest of its content."""
    content = content_at(option, value)
    digest = content if isinstance(content, str) and content != value else hashlib.sha256(value.encode()).hexdigest()
    return f"{VEIL}{digest}"


def tells(text: str) -> bool:
    """Return whether a text says where somebody's files lie, or who and on which machine."""
    if text.startswith("~") or Path(text).is_absolute() or PATH.search(text) is not None:
        return True
    return any(one.search(text) is not None for one in _names())


@cache
def _names() -> tuple[re.Pattern[str], ...]:
    """Return what finds the names of the user and of the machine as words."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # of a container whose user has no name
        user = ""
    host = socket.gethostname()
    names = {user, Path.home().name, host, host.partition(".")[0]}
    told = sorted(one for one in names if len(one) >= SHORTEST - 1 and one.lower() not in COMMON)
    return tuple(re.compile(rf"(?<![\w-]){re.escape(one)}(?![\w-])") for one in sorted(told, key=len, reverse=True))


def redacted(text: str) -> str:
    """Return a sentence without folders, names of the user and the machine, and values that the environment gave.

    Of a path below the current folder the rest is kept, of any other its last part.
    """
    for value in sorted(_given, key=len, reverse=True):
        text = text.replace(value, f"{VEIL}{hashlib.sha256(value.encode()).hexdigest()[:8]}")
    places = {f"{Path.cwd()}{os.sep}": "", str(Path.home()): "~"}
    places |= {os.environ[name]: f"${name}" for name in ("MIBENCH_DATA", "TORCH_HOME") if os.environ.get(name)}
    for place, name in sorted(places.items(), key=lambda one: len(one[0]), reverse=True):
        if len(place) > 2 and Path(place).is_absolute():
            text = text.replace(place, name)
    text = PATH.sub(lambda found: re.split(r"[\\/]", found[0])[-1] if found[0][0] != "~" else found[0], text)
    for pattern in _names():
        text = pattern.sub("...", text)
    return text


def given_again(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with the values that stand behind its digests.

    Args:
        config: The stored configuration.
        given: Values by dotted key.

    Raises:
        UserError: If a value is another one than the digest says.
    """
    return {name: _again(value, name, name, given) for name, value in config.items()}


def _again(value: Any, key: str, option: str, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping) and key not in given:
        return {name: _again(one, f"{key}.{name}", str(name), given) for name, one in value.items()}
    if key not in given:
        return value
    if is_veil(value) and value not in (digest_for(option, str(given[key])), digest_for("", str(given[key]))):
        raise UserError(
            f"{key}={given[key]} is not what this cell was made with: its SHA-256 is not {value.removeprefix(VEIL)}."
        )
    return given[key]
