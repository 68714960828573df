"""Convolutions whose second derivative costs only what is asked for.

Gradient matching differentiates the gradient with respect to the weights by the input. Torch's own rule for that
second pass also computes the derivative by the *weights*, once in the derivative of the weights' gradient and once in
that of the forward pass, and throws both away: two of a layer's nine convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_backward = torch.ops.aten.convolution_backward


#: Multiplications of a forward pass below which a convolution is left as it is: calling Python costs more there.
LEAST = 1e7


def has_large_convolutions(model: nn.Module, places: int) -> bool:
    """Whether a convolution over at most ``places`` positions (examples times height times width) may reach LEAST."""
    return any(one.dim() == 4 and places * one.numel() >= LEAST for one in model.parameters())


@contextmanager
def lean_convolutions(least: float = LEAST) -> Iterator[None]:
    """Make the 2d convolutions of forward passes inside the block leave out what gradient matching never asks for.

    The first backward pass must be taken with ``create_graph=True`` and gives what it always gives; the second one, by
    the input, likewise. A derivative of the second order *by the weights* is not there: :func:`torch.autograd.grad`
    says that they appear not to have been used. Convolutions in groups and those whose weights are themselves computed
    are left as they are.

    Args:
        least: Multiplications from which on a convolution is changed.
    """
    with _Lean(least):
        yield


class _Lean(TorchFunctionMode):
    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is nn.functional.conv2d:
            return self.conv2d(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def conv2d(
        self,
        input: Tensor,  # noqa: A002 - torch's names
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        plain = groups == 1 and input.dim() == 4 and not isinstance(padding, str) and weight.is_leaf
        if plain and input.requires_grad and weight.requires_grad:
            where = [_pair(one) for one in (stride, padding, dilation)]
            places = input[:, :1].numel() // (where[0][0] * where[0][1])
            if places * weight.numel() >= self.least:
                result: Tensor = _Convolution.apply(input, weight, bias, *where)
                return result
        return nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _pair(size: Any) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size) * (2 // len(size))


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *where: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.where, ctx.biased = where, bias is not None
        stride, padding, dilation = where
        return nn.functional.conv2d(x, weight, bias, stride, padding, dilation)

    @staticmethod
    def backward(ctx: Any, sent: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        first = torch.is_grad_enabled()  # the second pass makes no graph, and asks for the input alone
        mask = [True, first, first and ctx.biased]
        return *_ConvolutionBackward.apply(sent, x, weight, ctx.where, mask), None, None, None


class _ConvolutionBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sent: Tensor, x: Tensor, weight: Tensor, where: tuple[list[int], ...], mask: list[bool]
    ) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(sent, x, weight)
        ctx.set_materialize_grads(False)
        ctx.where = where
        found: tuple[Tensor | None, ...] = _backward(sent, x, weight, [len(weight)], *where, False, [0, 0], 1, mask)
        return found

    @staticmethod
    def backward(
        ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        sent, x, weight = ctx.saved_tensors
        terms, to_x = [], None
        if of_x is not None:
            terms.append(nn.functional.conv2d(of_x, weight, None, *ctx.where))
        if of_weight is not None:
            terms.append(nn.functional.conv2d(x, of_weight, None, *ctx.where))
            mask = [True, False, False]
            to_x = _backward(sent, x, of_weight, None, *ctx.where, False, [0, 0], 1, mask)[0]
        if of_bias is not None:
            terms.append(of_bias[:, None, None].expand_as(sent))
        return sum(terms[1:], terms[0]) if terms else None, to_x, None, None, None
