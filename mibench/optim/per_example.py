"""Whether Opacus can take the gradient of every example by itself: tried on a copy, and said in one sentence where not.

Opacus hooks every module that has weights. What such a module returns may then not be changed in place, as residual
networks do that add with ``out += x``; :func:`stand_apart` has every hooked module return a copy there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mibench.data import Examples
from mibench.errors import UserError
from mibench.model import Classifier

#: What can be done about a network that has no gradients of single examples.
INSTEAD = "change that module, or choose a defense that needs no gradient of every example, such as defense=bido"

#: How torch says that what a hooked module returned was changed in place.
IN_PLACE = ("modified inplace", "in-place", "inplace")


def needs_copies(model: Classifier, data: Examples) -> bool:
    """Return whether hooked modules have to return copies, as the network changes in place what they return.

    Gradients of a few examples are taken on copies of the model; torch's global generators are left as they were.

    Args:
        model: The model as it is to be trained.
        data: Its training data.

    Raises:
        UserError: If there are no gradients of single examples; it names the module.
    """
    few = data[torch.arange(min(3, len(data)))].to(model.device)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        _refuse_mixing(copy.deepcopy(model).train(), few.x)
        try:
            _try(copy.deepcopy(model).train(), few, apart=False)
        except _ChangedInPlace:
            _try(copy.deepcopy(model).train(), few, apart=True)
            return True
    return False


class _ChangedInPlace(Exception):
    """What a hooked module returned was changed in place."""


def _try(model: Classifier, batch: Examples, apart: bool) -> None:
    """Take the gradient of every example of a batch.

    Raises:
        _ChangedInPlace: If hooked modules have to return copies for it.
        UserError: If it cannot be taken.
    """
    names = {module: name for name, module in model.named_modules()}
    try:
        outer = hooked(model)
        if apart:
            stand_apart(model)
        model.objective.mean(outer(batch.x), batch.y).backward()
    except Exception as error:
        said = " ".join(str(error).split())
        if not apart and any(word in said for word in IN_PLACE):
            raise _ChangedInPlace from error
        name = _last_entered(error, names) or _with_buffers(model)
        what = f"The module '{_own(name)}' of the model" if name else "The model"
        raise UserError(
            f"{what} has no gradient of every example by itself ({type(error).__name__}: {said[:200].rstrip('.')}); "
            f"{INSTEAD}."
        ) from error
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or getattr(parameter, "grad_sample", None) is not None:
            continue
        owner = _own(name.rpartition(".")[0])
        if parameter.grad is None:
            raise UserError(
                f"The module '{owner}' of the model takes no part in its answers, so DP-SGD has no gradient of it; "
                "leave it out, or set requires_grad=False for its weights in target.factory."
            )
        raise UserError(
            f"The weights of the module '{owner}' are used outside its own forward, so they have no gradient of every "
            f"example by itself; {INSTEAD}."
        )


def hooked(model: nn.Module) -> Any:
    """Return Opacus' module around a model, with one hook on a module that has several names.

    Opacus hooks it once per name, and its gradient would count as often: a user's network holds its last layer as its
    own and as the classifier's head.
    """
    from opacus import GradSampleModule

    made = GradSampleModule(model)
    found = list(made.iterate_submodules(model))
    if len(once := list(dict.fromkeys(found))) < len(found):
        made.remove_hooks()
        vars(made)["iterate_submodules"] = lambda module: iter(once)
        made.add_hooks()
    return made


def stand_apart(model: nn.Module) -> None:
    """Have every module with weights of its own return a copy, which may be changed in place; hooks see the original.

    It stands where torch keeps a module's compiled call, which is outside all hooks; see :func:`together`.
    """
    for module in model.modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            module._compiled_call_impl = partial(_copied, module)


@contextmanager
def together(model: nn.Module) -> Iterator[None]:
    """Take back what :func:`stand_apart` did when the block ends."""
    try:
        yield
    finally:
        for module in model.modules():
            vars(module).pop("_compiled_call_impl", None)


def _copied(module: nn.Module, *inputs: Any, **words: Any) -> Any:
    answer = module._call_impl(*inputs, **words)
    return answer.clone() if isinstance(answer, Tensor) else answer


@torch.no_grad()
def _refuse_mixing(model: Classifier, x: Tensor) -> None:
    """Raise where what the model answers to an example depends on the others of its batch."""
    if len(x) < 3:
        return
    seen: list[list[tuple[nn.Module, Tensor]]] = [[], []]
    for pair, kept in zip(([0, 1], [0, 2]), seen, strict=True):
        handles = [
            module.register_forward_hook(lambda one, _i, out, kept=kept: kept.append((one, out)))
            for module in model.modules()
            if not list(module.children())
        ]
        torch.manual_seed(0)
        kept.append((model, model(x[pair])))
        for handle in handles:
            handle.remove()
    names = {module: name for name, module in model.named_modules()}
    for (module, one), (_, other) in zip(*seen, strict=False):
        if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.shape != other.shape or not one.dim():
            continue
        if not torch.allclose(one[0], other[0], rtol=1e-3, atol=1e-4):
            what = f"module '{_own(names[module])}' of the model" if module is not model else "model"
            raise UserError(
                f"The {what} mixes the examples of a batch in training ({type(module).__name__}), so none has a "
                f"gradient by itself; {INSTEAD}."
            )


def _last_entered(error: BaseException, names: Mapping[nn.Module, str]) -> str:
    """Return the name of the module in which, or in whose backward pass, an error rose; empty where none is known."""
    found, step = "", error.__traceback__
    while step is not None:
        for word in ("self", "module", "layer"):
            one: Any = step.tb_frame.f_locals.get(word)
            if isinstance(one, nn.Module):
                found = names.get(one) or found
        step = step.tb_next
    return str(found)


def _with_buffers(model: nn.Module) -> str:
    """Return the name of a module with weights and buffers of its own, which Opacus does not take; empty without."""
    for name, module in model.named_modules():
        own = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if name and own and list(module.buffers(recurse=False)):
            return str(name)
    return ""


def _own(name: str) -> str:
    """Return a module's name as its owner calls it, without the wrapper's own part of it."""
    for wrapper in ("_module.", "stages.0.inner."):
        name = name.removeprefix(wrapper)
    return name
