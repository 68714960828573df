"""A user's own module: built by a factory function, filled from a file of weights that cannot execute anything."""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mibench.errors import UserError
from mibench.nn.state_dicts import read_file, take

#: Words of an error about where tensors lie, and what to do about it.
PLACED = re.compile(r"\bcuda\b|NVIDIA|same device|\bdevice\b", re.IGNORECASE)
MOVES = (
    "it moves inputs or tensors to a device itself; leave that to mibench (device=auto, cpu or cuda): take .cuda() and "
    ".to(DEVICE) out of its code, and make tensors that it holds buffers (register_buffer)"
)

#: Factories of this process, by the name that stands for them in a configuration.
_registered: dict[str, Callable[[], nn.Module]] = {}


def register(name: str, build: Callable[[], nn.Module]) -> str:
    """Make ``build`` known to this process and return what to give as ``target.factory``."""
    factory = f"mibench.registered:{name}"
    _registered[factory] = build
    return factory


def built(factory: str | None, arguments: Mapping[str, Any]) -> nn.Module:
    """Return the module that ``factory`` makes, on the CPU.

    Raises:
        UserError: If it cannot be found or called, or returns no module.
    """
    if factory is None:
        raise UserError(
            "target=checkpoint needs the function that builds the model: target.factory=package.module:name."
        )
    where = f"target.factory={factory}"
    build = _registered[factory] if factory in _registered else _imported(factory)
    try:
        module = build(**arguments)
    except Exception as error:
        said = first_line(error)
        if PLACED.search(said):
            raise UserError(f"{where} cannot run here ({said}): {MOVES}.") from error
        raise UserError(f"{where} cannot be called ({said}); see target.arguments.") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{where} returned {type(module).__name__}, not a torch.nn.Module.")
    return module.cpu()


def _imported(factory: str) -> Callable[..., Any]:
    where = f"target.factory={factory}"
    path, _, name = factory.partition(":")
    if path == "mibench.registered":
        raise UserError(
            f"{where} stands for a model that was handed over in Python and is gone; audit it again from there."
        )
    if not path or not name:
        raise UserError(f"Expected target.factory to read package.module:function, but got '{factory}'.")
    try:
        found: Any = importlib.import_module(path)
    except Exception as error:
        raise UserError(
            f"{where}: the module '{path}' cannot be imported ({first_line(error)}); run from the folder that "
            "holds it, or put that on PYTHONPATH."
        ) from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UserError(f"{where}: the module '{path}' has no function '{name}'.")
    call: Callable[..., Any] = found
    return call


def load(module: nn.Module, weights: str) -> None:
    """Load a file of weights into ``module``; the file cannot execute anything.

    Raises:
        UserError: If the file is missing or damaged, is no state dict, wants to execute code, does not fit, or holds
            numbers that are not finite.
    """
    where = f"target.weights={weights}"
    take(module, read_file(Path(weights).expanduser(), where), where)


def misplaced(error: BaseException, device: object) -> UserError | None:
    """Return the sentence for a model that puts tensors where it does not run; None for any other error."""
    said = first_line(error)
    return UserError(f"The model cannot run on {device} ({said}): {MOVES}.") if PLACED.search(said) else None


def first_line(error: BaseException) -> str:
    """Return an exception's type and the first line of what it says, short enough to stand in a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200].rstrip('.')}" if lines else type(error).__name__


def hand_over(model: nn.Module, models: Path, retrain: bool) -> tuple[str, Path]:
    """Return a factory for untrained copies of ``model``, and the file that its weights were saved to.

    Raises:
        UserError: If a copy is to be trained and a layer of it cannot be given fresh weights.
    """
    from safetensors.torch import save_file

    if retrain and (stuck := [name for name, layer in model.named_modules() if not _can_reset(layer)]):
        raise UserError(
            f"The layer '{stuck[0]}' has weights of its own and no reset_parameters(), so no untrained copy can be "
            "made for the control; give audit a factory (package.module:function) with weights=FILE, or control='none'."
        )
    blank = copy.deepcopy(model).cpu()
    kinds = {type(layer) for layer in model.modules() if not type(layer).__module__.startswith("torch.")}
    described = [repr(model), *sorted(_source(kind) for kind in kinds)]
    name = hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]

    def build() -> nn.Module:
        fresh = copy.deepcopy(blank)
        return _reset(fresh) if retrain else fresh

    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    content = hashlib.sha256(name.encode())
    for key, value in sorted(state.items()):
        content.update(f"{key}{value.dtype}".encode() + value.float().numpy().tobytes())
    file = models / f"{content.hexdigest()[:16]}.safetensors"
    if not file.exists():
        models.mkdir(parents=True, exist_ok=True)
        save_file(state, file)
    return register(name, build), file


def _can_reset(layer: nn.Module) -> bool:
    return not list(layer.parameters(recurse=False)) or _resetter(layer) is not None


def _resetter(layer: nn.Module) -> object:
    return getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)


def _reset(module: nn.Module) -> nn.Module:
    """Give every layer fresh weights, all of which are then trained."""
    for layer in module.modules():
        if callable(reset := _resetter(layer)):
            reset()
    return module.requires_grad_(True)


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"
