"""Which choice of every axis the words of a cell compose to, read from the defaults lists alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mibench.planning.catalogue import AXES, base_of, choices, conf_dir, conf_dirs, defaults_of, read_yaml


def key_of(override: str) -> str:
    """Return the key of ``KEY=VALUE``, without Hydra's ``+`` or ``~``."""
    return override.partition("=")[0].lstrip("+~")


def quoted(text: str) -> str:
    r"""Return a text as a value that Hydra reads as that text, whatever characters are in it.

    >>> print(quoted("/home/o'brien/a b"), quoted("${paths.data}"))
    '/home/o\'brien/a b' '\${paths.data}'
    """
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)  # which would be another value of the configuration
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text) + "'"


def choices_of(overrides: Sequence[str]) -> dict[str, str]:
    """Return the choice of every axis that Hydra would compose, read from the defaults lists alone."""
    said = {key_of(override): override.partition("=")[2] for override in overrides}
    order, chosen = _defaults()
    chosen = {**chosen, **{axis: said[axis] for axis in order if axis in said}}
    for _ in order:  # a choice may change an axis that stands before it, whose yaml then counts
        before = dict(chosen)
        for axis in order:
            base = said.get(f"{axis}@{axis}.base", "")
            for other, name in _overridden(axis, chosen[axis], base, conf_dirs()).items():
                if other not in said:
                    chosen[other] = name
        if chosen == before:
            break
    return {axis: chosen[axis] for axis in AXES if axis in chosen and axis != "metric"}


@cache
def _defaults() -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the axes in the order of ``cell.yaml`` and their default choices."""
    listed = read_yaml((conf_dir() / "cell.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {axis: name for one in listed if isinstance(one, dict) for axis, name in one.items() if axis in AXES}
    return tuple(chosen), chosen


@cache
def _overridden(axis: str, name: str, base: str, _search_path: tuple[Path, ...]) -> dict[str, str]:
    """Return which other axes a choice sets, from its own ``override /AXIS: NAME`` lines and those of what it wraps.

    Args:
        axis: The axis.
        name: The choice.
        base: What it wraps in place of what its yaml says; empty keeps that.
    """
    file = choices(axis).get(name)
    if file is None:
        return {}
    inner = base or base_of(axis, file)
    found = _overridden(axis, inner, "", _search_path) if inner and base_of(axis, file) else {}
    prefix = "override /"
    own = {
        key.removeprefix(prefix).partition("@")[0]: value
        for key, value in defaults_of(file).items()
        if key.startswith(prefix)
    }
    return {**found, **own}
