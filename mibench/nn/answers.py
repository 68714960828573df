"""What a user's own module answers to trial inputs, refused in one sentence where attacks cannot use it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.nn.foreign import MOVES, first_line, misplaced
from mibench.nn.records import encoded_width
from mibench.seeding import generator

#: Where wrappers to copy stand.
WRAPPERS = "docs/audit.md has wrappers to copy"

#: What ends a graph of operations in probabilities, by the name of its backward function.
ENDS = {"SigmoidBackward": "sigmoid", "HardsigmoidBackward": "hard sigmoid", "SoftmaxBackward": "softmax"}

#: Operations that change how values lie and not what they are.
SHAPING = (
    "View",
    "Squeeze",
    "Unsqueeze",
    "Clone",
    "Copy",
    "Alias",
    "Slice",
    "Select",
    "Reshape",
    "Transpose",
    "ToCopy",
)


@dataclass(frozen=True)
class Answers:
    """What a module answered to trial inputs in evaluation mode.

    Attributes:
        layer: Name of its last layer: the last linear one that runs, or the last one with weights where none is linear.
        logits: The answers, shape ``(N, classes)``; of a module with one output ``(N, 1)``.
        remarks: Sentences on what a reader of its numbers must know.
    """

    layer: str
    logits: Tensor
    remarks: tuple[str, ...] = ()


def trial_inputs(spec: InputSpec, n: int = 8) -> Tensor:
    """Return ``n`` different canonical inputs, shape ``(n, *shape)``, always the same ones."""
    draws = generator(0)
    if not spec.columns:
        return spec.low + (spec.high - spec.low) * torch.rand(n, *spec.shape, generator=draws)
    columns = []
    for column in spec.columns:
        if column.categorical:
            columns.append(torch.randint(len(column.values), (n,), generator=draws).float())
        elif column.low is not None and column.high is not None:
            columns.append(column.low + (column.high - column.low) * torch.rand(n, generator=draws))
        else:
            columns.append(torch.randn(n, generator=draws))
    return torch.stack(columns, 1)


def asked(inner: nn.Module, x: Tensor, spec: InputSpec) -> Answers:
    """Return what a module answers; it is run twice, and torch's global generators are left as they were.

    Args:
        inner: The module.
        x: Inputs as the module takes them.
        spec: Facts of the data, for messages.

    Raises:
        UserError: If it does not take the inputs, returns no logits, returns probabilities, or has no weights.
    """
    inner.eval()
    names = {module: name for name, module in inner.named_modules()}
    stays = [name or "the model itself" for module, name in names.items() if module.training]
    ran: list[nn.Module] = []
    with contextlib.ExitStack() as hooks, torch.random.fork_rng(devices=[]), torch.enable_grad():
        for module in names:
            if not list(module.children()) and list(module.parameters()):
                handle = module.register_forward_hook(lambda one, _i, _o: ran.append(one))
                hooks.callback(handle.remove)
        moved = x.detach().clone().requires_grad_()  # so that what made the answers can be told of frozen modules too
        given = moved.clone()
        try:
            first, again = inner(given), inner(moved.clone())
        except Exception as error:
            raise _not_taken(error, x, spec) from error
    if not torch.equal(given.detach(), x):
        raise UserError(
            "The model changes its inputs in place, which would change the data themselves; write x = x - mean in its "
            "code instead of x -= mean or x.sub_(mean)."
        )
    logits = _as_logits(first, x)
    if not bool(torch.isfinite(logits).all()):
        raise UserError(
            "The model's answers are not finite (NaN or infinite), as of a training that diverged or of a wrong "
            "target.mean or target.std; give weights that answer with numbers."
        )
    _refuse_probabilities(logits)
    if not ran:
        raise UserError("The model has no layer with weights, so there is nothing to attack.")
    linear = [module for module in ran if isinstance(module, nn.Linear)]
    remarks = []
    if stays or not torch.allclose(logits, _as_logits(again, x), rtol=1e-4, atol=1e-5):
        where = f" ({', '.join(stays[:3])} stays in training mode)" if stays else ""
        remarks.append(
            f"The model answers the same input differently each time, as with dropout that is on in evaluation{where}: "
            "accuracy, queries and gradients are of single draws; switch it off with model.eval() and "
            "dropout(x, training=self.training) unless it is meant."
        )
    return Answers(names[(linear or ran)[-1]], logits.detach(), tuple(remarks))


def _not_taken(error: Exception, x: Tensor, spec: InputSpec) -> UserError:
    if not isinstance(error, UserError) and (elsewhere := misplaced(error, x.device)) is not None:
        return elsewhere
    shape = " x ".join(str(side) for side in x.shape[1:])
    remedy = "dataset.channels and dataset.size say what the data are, target.size resizes inside the model"
    if spec.columns:
        remedy = f"the data have {len(spec.columns)} columns, {encoded_width(spec.columns)} with categories one-hot"
    return UserError(f"The model cannot take inputs of {shape} ({first_line(error)}); {remedy}.")


def _as_logits(answer: Any, x: Tensor) -> Tensor:
    """Return an answer as logits ``(N, classes)``; a vector ``(N,)`` is one output per example."""
    if isinstance(answer, Tensor) and answer.dim() == 1 and len(answer) == len(x):
        answer = answer[:, None]
    if not isinstance(answer, Tensor) or answer.dim() != 2 or len(answer) != len(x):
        raise UserError(
            f"Expected the model to return logits of shape (N, classes), but it returns {_described(answer)}; wrap it: "
            f"{WRAPPERS}."
        )
    if answer.device != x.device:
        raise UserError(f"The model answers on {answer.device} though its inputs lie on {x.device}: {MOVES}.")
    if not answer.is_floating_point():
        raise UserError(f"The model returns whole numbers (its best class?), not logits; wrap it: {WRAPPERS}.")
    return answer


def _described(answer: Any) -> str:
    if isinstance(answer, Tensor):
        return f"shape {tuple(answer.shape)}"
    kind = type(answer).__name__
    if hasattr(answer, "logits") or (isinstance(answer, Mapping) and "logits" in answer):
        return f"{kind} with the logits inside (.logits)"
    return f"{kind} of {len(answer)}" if isinstance(answer, tuple | list | Mapping) else kind


def _refuse_probabilities(logits: Tensor) -> None:
    """Raise where the answers are probabilities: by the operation that made them, or by their values."""
    end = next((word for name, word in ENDS.items() if _made_by(logits).startswith(name)), "")
    positive, sums = bool((logits >= 0).all()), logits.sum(1)
    if not end and logits.shape[1] > 1 and positive and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
        end = "softmax"
    if end:
        one = " of each class by itself" if "sigmoid" in end and logits.shape[1] > 1 else ""
        raise UserError(
            f"The model returns probabilities{one}; give the one without {end} at its end, which returns logits: "
            f"{WRAPPERS}."
        )


def _made_by(values: Tensor) -> str:
    """Return the name of the backward function of what computed ``values``, behind what only shapes them."""
    made = values.grad_fn
    while made is not None and made.name().startswith(SHAPING) and made.next_functions:
        made = made.next_functions[0][0]
    return "" if made is None else str(made.name())


def with_two_logits(inner: nn.Module, answers: Answers, x: Tensor) -> Answers:
    """Make of a module with one output ``z`` one with the logits 0 and ``z``, in place, and return what that answers.

    Its last linear layer gets a first row of zeros, so that softmax is the sigmoid of ``z``.

    Raises:
        UserError: If its last layer is no linear one, or something follows that does not pass two numbers through.
    """
    layer = inner.get_submodule(answers.layer)
    refusal = UserError(
        "The model has one output and cannot be read as two classes by itself; wrap it, so that it returns the logits "
        f"0 and z: {WRAPPERS}."
    )
    if not isinstance(layer, nn.Linear) or layer.out_features != 1 or not answers.layer:
        raise refusal
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        wide = nn.Linear(layer.in_features, 2, layer.bias is not None)
        for name, value in layer.named_parameters():
            widened = wide.get_parameter(name)
            widened.zero_()
            widened[1] = value[0]
    parent, _, last = answers.layer.rpartition(".")
    setattr(inner.get_submodule(parent), last, wide.eval())
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            now = inner(x)
        expected = torch.cat([torch.zeros_like(answers.logits), answers.logits], 1)
        fits = isinstance(now, Tensor) and now.shape == expected.shape
        fits = fits and (bool(answers.remarks) or torch.allclose(now, expected, rtol=1e-4, atol=1e-5))
    except Exception:
        fits = False
    if not fits:
        raise refusal
    return Answers(answers.layer, now, answers.remarks)
