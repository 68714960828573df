"""The words of a command line before Hydra reads them: its own options behind the overrides, one choice an axis."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

from mibench.errors import UserError, nearest
from mibench.planning.catalogue import AXES
from mibench.planning.choices import key_of

#: The keys that choose a file of ``conf``.
GROUPS = (*AXES, "budget", "logger", "grid", "paths")


#: The keys by which a sweep tells a launcher's job which cells it runs.
PACKS = ("pack_file", "pack_index")


def checked(words: Sequence[str]) -> list[str]:
    """Return the words in an order that Hydra can read, which refuses ``-m`` between overrides.

    Raises:
        UserError: If there is an option that Hydra does not have, or two choices for one axis.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        odd = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        if odd == message.split(" ")[0]:
            raise UserError(f"The words cannot be read: {message}.")
        flags = [flag for action in parser._actions for flag in action.option_strings]
        hint = nearest(odd, flags, "python -m mibench --help shows what there is.")
        raise UserError(f"There is no option '{odd}'; {hint}")

    parser.error = refuse  # type: ignore[method-assign]
    try:
        given = parser.parse_intermixed_args(list(words))
    except argparse.ArgumentError as error:
        refuse(str(error))
    if given.shell_completion and "COMP_LINE" not in os.environ:
        raise UserError("--shell-completion is what a shell calls while it completes a line; leave it out.")
    if given.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun reads a pickle, which could run anything; python -m mibench reproduce CELL_ID prints "
            "the command of a cell."
        )
    overrides = given.overrides
    if own := [one for one in overrides if key_of(one) in PACKS]:
        raise UserError(f"{key_of(own[0])} is what a sweep tells its own jobs; leave it out.")
    said: dict[str, str] = {}
    for override in overrides:  # of an option's value the last counts, as a script with "$@" at its end expects
        if key_of(override) in GROUPS and "=" in override and said.setdefault(key_of(override), override) != override:
            first = said[key_of(override)]
            raise UserError(f"{key_of(override)} is set twice, by {first} and by {override}; leave one of them out.")
    check_choices(overrides)
    rest = list(words)
    for override in overrides:
        rest.remove(override)
    return [*overrides, *rest]


def check_choices(overrides: Sequence[str]) -> None:
    """Refuse what is no name where one of a folder of ``conf`` is chosen; only metrics may be several.

    Raises:
        UserError: Naming the key and what it got.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in OverridesParser.create().parse_overrides(list(overrides)):
        group, value = override.key_or_group, override.value()
        if group not in GROUPS or override.is_sweep_override() or override.is_delete() or isinstance(value, str | dict):
            continue
        names = value if isinstance(value, list) and all(isinstance(one, str) for one in value) else []
        if len(names) == 1 or (names and group == "metric"):
            continue
        raise UserError(f"Expected {group} to be the name of one choice, but got '{override.get_value_string()}'.")
