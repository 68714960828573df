"""What Hydra, OmegaConf, yaml and the file system raise, as one sentence for a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig

from mibench.errors import MibenchError, UnknownNameError, nearest
from mibench.planning.catalogue import AXES, choices
from mibench.planning.choices import key_of
from mibench.planning.composition import compose

#: Groups whose choice decides which keys there are.
GROUPS = (*AXES, "budget", "logger")

#: Lines of Hydra's and OmegaConf's messages that do not help a person.
NOISE = ("full_key", "object_type", "Set the environment", "Config search path", "provider=", "Key '", "To append to")

#: The longest path that a sentence quotes.
LONGEST_NAME = 200

#: What to install for each of Hydra's launchers that does not come with it.
LAUNCHERS = {
    "joblib": "mibench[joblib]",
    "submitit_local": "mibench[slurm]",
    "submitit_slurm": "mibench[slurm]",
    "ray": "mibench[ray]",
}


def explained(error: BaseException, words: Sequence[str] = ()) -> str | None:
    """Return an exception of Hydra, OmegaConf, yaml or the file system as one sentence; None for any other.

    Args:
        error: The exception.
        words: The command line, from which the keys are known that it could have meant.
    """
    import yaml
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OverrideParseException):
        return f"The option '{error.override}' cannot be read; write KEY=VALUE, with quotes around special characters."
    chain = list(_chain(error))
    if any(isinstance(one, RecursionError) for one in chain):
        return "The words of this command nest too deeply to be read; write values with fewer brackets."
    if own := next((one for one in chain if isinstance(one, MibenchError)), None):
        return str(own)
    if broken := next((one for one in chain if isinstance(one, yaml.MarkedYAMLError)), None):
        mark = broken.problem_mark
        where = f"{mark.name}, line {mark.line + 1}" if mark else "A file of the configuration"
        return f"{where}, is no valid yaml: {broken.problem}."
    if isinstance(error, HydraException | OmegaConfBaseException):
        text = next((str(one) for one in chain if str(one).strip()), type(error).__name__)
        return _known(text, words) or _shortened(text)
    file = next((one for one in chain if isinstance(one, OSError)), None)
    if file is not None and (file is error or _raised_in(error) == "logging"):  # which wraps what the system says
        name = str(file.filename or "A file")
        name = name if len(name) <= LONGEST_NAME else f"A file whose path has {len(name)} characters"
        return f"{name} cannot be used ({file.strerror or file}); choose another folder or file."
    if isinstance(error, ValueError | TypeError) and _raised_in(error) in ("hydra", "omegaconf", "antlr4", "logging"):
        return f"The options cannot be composed ({str(error).rstrip('.') or type(error).__name__})."
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _raised_in(error: BaseException) -> str:
    """Return the package whose code raised an exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _known(text: str, words: Sequence[str]) -> str | None:
    """Return the sentence for a mistake of which mibench can say more than Hydra; None for any other."""
    if missing := re.search(r"Could not (?:find|load) '([^']+)/([^'/]*)'", text):
        group, name = missing.groups()
        if group == "hydra/launcher":
            meant = [one for one in LAUNCHERS if name in one] or [*LAUNCHERS]
            return (
                f"There is no launcher '{name}' here; choose {' or '.join(meant)}, and if it is not installed: "
                f"pip install '{LAUNCHERS[meant[-1]]}'."
            )
        return str(UnknownNameError(group, name, choices(group)))
    if unknown := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(unknown[1], keys_there(words))
    if "resolving interpolation '" in text:  # '${target}__${attack}' is that by which a calibration is looked up
        asked = ("target", "attack") if "'${target}__${attack}'" in text else ()
        for word in words:
            if ((axis := key_of(word)) in asked and word[0] in "~+") or (axis in GROUPS and "$" in word):
                got = word.partition("=")[2] or "nothing"
                return (
                    f"Expected {axis} to be a block chosen from conf/{axis}, but got '{got}'; choose one with "
                    f"{axis}=NAME."
                )
    if several := re.search(r"Ambiguous value for argument '(.+)'", text):
        return (
            f"{several[1]} gives several values to one cell; write -m in front for a cell of each, or KEY=[A,B] for a "
            "list."
        )
    return None


def _unknown_key(key: str, known: Sequence[str]) -> str | None:
    block, _, option = key.partition(".")
    if key in known:  # it was deleted by another word
        return None
    if block == "metric":
        return f"There is no option '{key}'; metrics have options where they are chosen: metric=[NAME]."
    if block in known and option:
        inside = ", ".join(one.removeprefix(f"{block}.") for one in known if one.startswith(f"{block}."))
        there = f"{block} has {inside or 'no options'}"
        another = f", and {block}=NAME chooses another" if block in GROUPS else ""
        return f"There is no option '{key}'; {nearest(key, known, f'{there}{another}.')}"
    outermost = sorted(one for one in known if "." not in one)
    otherwise = nearest(block, outermost, f"known: {', '.join(outermost)}.")
    return f"There is no option '{key}'; {nearest(key, known, otherwise)}"


def _shortened(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    parts = [line for line in lines if not line.startswith(NOISE)] or lines
    keys = [line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")]
    where = f" (at {keys[0]})" if keys and keys[0] and keys[0] not in parts[0] else ""
    return " ".join(parts[:4]).rstrip(".") + f"{where}."


def keys_there(words: Sequence[str]) -> list[str]:
    """Return the dotted keys of the cell that the choices among the words make, or of the default one."""
    choices = [word for word in words if key_of(word) in GROUPS and word[0] not in "+~"]
    for given in (choices, []):
        try:
            return list(dotted(compose(given)))
        except Exception:  # the choices are wrong too
            continue
    return []


def dotted(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a configuration, blocks and values, without those that describe a component."""
    for key, value in node.items_ex(resolve=False):
        if key not in ("name", "variant_of", "_target_"):
            yield f"{prefix}{key}"
            if isinstance(value, DictConfig) and not value._is_none() and not value._is_interpolation():
                yield from dotted(value, f"{prefix}{key}.")
