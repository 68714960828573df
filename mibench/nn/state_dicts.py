"""Files of weights as common training codes write them: nested under other keys, with prefixes, beside a configuration.

A file is read without executing or importing anything that it names. Of a configuration that lies beside the weights
(``argparse.Namespace``, OmegaConf, Lightning's hyper-parameters, numbers of NumPy) nothing but its place is kept.
"""

from __future__ import annotations

import logging
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mibench.errors import UserError
from mibench.limits import pickled_tensors, safetensors_of

log = logging.getLogger("mibench")

#: Keys below which training codes put the weights, those first that hold what was trained rather than its average.
NESTED = (
    "state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "student",
    "model_ema", "ema_state_dict", "state_dict_ema", "ema_model", "ema", "params_ema", "teacher",
)  # fmt: skip

#: Segments of names that torch.compile and DataParallel put in.
WRAPPED = ("_orig_mod", "module")

#: Prefixes that stand for the model itself where a file holds other networks too.
PREFIXES = ("model.", "net.", "network.", "backbone.", "encoder.", "student.")

#: How deep dictionaries are looked into.
DEPTH = 4

#: Packages whose objects stand beside the weights in checkpoints; they are read as :class:`_Inert`.
BESIDE = (
    "argparse", "collections", "datetime", "lightning", "lightning_fabric", "lightning_utilities", "numpy", "omegaconf",
    "pathlib", "pytorch_lightning", "typing", "uuid",
)  # fmt: skip

#: Plain types that a configuration names.
PLAIN = tuple(f"builtins.{kind}" for kind in ("dict", "list", "tuple", "set", "int", "float", "str", "bool", "object"))

#: How other things begin that are saved under the name of weights.
IMPOSTORS = (
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself; get it with git lfs pull"),
    (b"<!DOCTYPE", "is a web page; download the file itself"),
    (b"<html", "is a web page; download the file itself"),
)

DAMAGED = "it is damaged, cut short or no file of weights; copy or save it again"


class _Inert:
    """What stands in the place of an object that is not needed; it takes whatever it is made of and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_file(path: Path, where: str) -> Any:
    """Return what a file of weights holds; the file cannot execute anything.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.
        where: The option that names it, for messages.

    Raises:
        UserError: If it is no such file, is damaged, or wants to execute code.
    """
    if not path.is_file():
        raise UserError(f"{where} is not a file.")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UserError(f"{where} cannot be read ({error.strerror}).") from error
    if not head:
        raise UserError(f"{where} cannot be read as weights: it is empty; copy or save it again.")
    for start, said in IMPOSTORS:
        if head.startswith(start):
            raise UserError(f"{where} {said}.")
    try:
        if path.suffix == ".safetensors":
            return safetensors_of(path, where)[0]
        return _loaded(path, where)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        text = str(error)
        if "GLOBAL" in text or "reduce" in text or "create new object" in text or "build" in text:
            raise UserError(
                f"{where} is refused, because it is no plain file of tensors: it holds {_named(path)}code, which would "
                "be executed when read; save the weights alone with torch.save(model.state_dict(), FILE)."
            ) from error
        raise UserError(f"{where} is refused: {DAMAGED}.") from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise UserError(
                f"{where} is a TorchScript archive; save the weights alone with torch.save(model.state_dict(), FILE)."
            ) from error
        raise UserError(f"{where} cannot be read as weights: {DAMAGED} ({type(error).__name__}).") from error


def _loaded(path: Path, where: str) -> Any:
    """Return what ``torch.save`` wrote; objects of a configuration are read as nothing."""
    try:
        return pickled_tensors(path, where)
    except pickle.UnpicklingError:
        inert: list[Any] = [
            (OrderedDict if name.endswith("AttributeDict") else _Inert, name)
            for name in _globals(path)
            if name.partition(".")[0] in BESIDE or name in PLAIN
        ]
        if not inert:
            raise
    with torch.serialization.safe_globals(inert):
        return pickled_tensors(path, where)


def _globals(path: Path) -> list[str]:
    """Return the classes and functions that a file names and that are no tensors'; empty where they cannot be told."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []


def _named(path: Path) -> str:
    found = [name for name in _globals(path) if name.partition(".")[0] not in BESIDE]
    return f"{', '.join(found[:3])}: " if found else ""


def take(module: nn.Module, content: Any, where: str) -> None:
    """Give a module the weights that a file's content holds for it, wherever they lie in it.

    Args:
        module: The module.
        content: What :func:`read_file` returned.
        where: The option that names the file, for messages.

    Raises:
        UserError: If there are none, they do not fit, or are not finite.
    """
    found = list(_state_dicts(content))
    if not found:
        raise UserError(f"{where} holds no state dict; save it with torch.save(model.state_dict(), FILE).")
    fitting = [(path, state) for path, raw in found if (state := fitted(raw, module, where)) is not None]
    path, state = fitting[0] if fitting else (found[0][0], _nearest([raw for _, raw in found], module))
    if others := [other for other, _ in fitting[1:]]:
        names = ", ".join("its top" if not other else f"'{other}'" for other in others)
        log.info("weights   %s: the weights at '%s' are taken; others that fit lie at %s", where, path, names)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()] or [str(error)]
        raise UserError(
            f"{where} does not fit the model that target.factory builds: {reasons[0][:200].rstrip('. ')}; give the "
            "factory and the arguments that it was saved from."
        ) from error
    broken = [name for name, value in module.named_parameters() if not bool(torch.isfinite(value).all())]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise UserError(
            f"{where} holds NaN or infinite numbers in '{broken[0]}'{more}: the training that it comes from diverged; "
            "give weights from before."
        )


def _state_dicts(content: Any, path: str = "", depth: int = DEPTH) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every dictionary of tensors by name inside ``content``, with the keys that lead to it."""
    if not isinstance(content, Mapping) or not content:
        return
    if all(isinstance(key, str) for key in content):
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        plain = not any(isinstance(value, Mapping) for value in content.values())
        if tensors and (len(tensors) == len(content) or plain):
            yield path, tensors
    if depth:
        keys = [key for key in NESTED if key in content]
        for key in (*keys, *(key for key in content if key not in keys)):
            yield from _state_dicts(content[key], f"{path}.{key}" if path else str(key), depth - 1)


def _nearest(found: Sequence[Mapping[str, Tensor]], module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict whose names fit though its shapes do not, for the message; the first one where none is."""
    for raw in found:
        if (state := fitted(raw, module, shapes=False)) is not None:
            return state
    return _unwrapped(found[0])


def _unwrapped(state: Mapping[str, Tensor], segments: Sequence[str] = WRAPPED) -> dict[str, Tensor]:
    """Return a state dict without the segments that wrappers put into names."""
    return {".".join(part for part in key.split(".") if part not in segments): value for key, value in state.items()}


def fitted(
    raw: Mapping[str, Tensor], module: nn.Module, where: str = "the file", shapes: bool = True
) -> dict[str, Tensor] | None:
    """Return the part of a state dict that is the module's, under the module's names; None where it has none.

    Names may have prefixes that all of the module's share (``model.``, ``module.``), or lack one where all that the
    module has lies in one child of it, as in a wrapper.

    Args:
        raw: The state dict.
        module: The module.
        where: What names the file, for messages.
        shapes: Whether shapes have to fit too.

    Raises:
        UserError: If it holds several networks that fit, and none of them is called as the model itself is.
    """
    own = module.state_dict()
    for state in (dict(raw), _unwrapped(raw, ("_orig_mod",)), _unwrapped(raw)):
        if (found := _with_prefix(state, own, where, shapes)) is not None:
            return found
        shared = ""
        while (child := _only_child(own, shared)) is not None:
            shared = child
            inner = {name.removeprefix(shared): value for name, value in own.items()}
            if (found := _with_prefix(state, inner, where, shapes)) is not None:
                return {f"{shared}{name}": value for name, value in found.items()}
    return None


def _only_child(own: Mapping[str, Tensor], shared: str) -> str | None:
    """Return the prefix, one segment longer than ``shared``, that all names have; None where they have none."""
    heads = {name.removeprefix(shared).partition(".")[0] for name in own}
    longer = f"{shared}{next(iter(heads))}." if len(heads) == 1 else ""
    return longer if longer and all(name.startswith(longer) for name in own) else None


def _with_prefix(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str, shapes: bool
) -> dict[str, Tensor] | None:
    """Return the tensors of ``state`` under one prefix that are those of ``own`` by name and shape; None if none are.

    Of several prefixes the empty one counts first, then :data:`PREFIXES`.
    """
    wanted = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    if not wanted:
        return None
    last = max(wanted, key=len)
    found = {}
    for prefix in {key[: len(key) - len(last)] for key in state if key.endswith(last)}:
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        names = set(wanted) <= set(part) <= set(own)
        if names and (not shapes or all(part[name].shape == value.shape for name, value in wanted.items())):
            found[prefix] = part
    known = [prefix for prefix in ("", *PREFIXES) if prefix in found]
    if len(found) > 1 and not known:
        raise UserError(
            f"{where} holds several networks that fit ({', '.join(sorted(found))}); save the one that is meant with "
            "torch.save(model.state_dict(), FILE)."
        )
    return found[known[0]] if known else next(iter(found.values()), None)
