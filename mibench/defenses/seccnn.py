r"""SecCNN: up-sampling before a convolution (Liu et al., Construct a Secure CNN, PAKDD 2024).

Recursive gradient inversion, R-GAP (Zhu and Blaschko, ICLR 2021), solves a convolution for its input: the linear
equations are those of its known output and of its known kernel gradient, the unknowns the entries of its input. The
input is lost where the unknowns are more than the equations' rank. SecCNN puts an up-sampling by :math:`s` before the
convolution, whose stride grows by :math:`s`: :math:`s^2` times as many unknowns, and not one equation more,

.. math:: \mathrm{index} = s^2 \, C H W - \mathrm{rank} \ge s^2 \, C H W - (C' H' W' + C' C k^2).

The right-hand side, which counts the equations, is what is computed here; where it is positive, the index is. Without
``factor`` the smallest :math:`s` is taken that makes it so. R-GAP itself refuses a target with an up-sampling in it.

Reconstruction: only the abstract was at hand, which names an up-sampling layer in the network and rank analysis as its
reason. That the analysis is R-GAP's, where the layer stands, how the size comes back (by the stride, so that no
equation is gained), and the choice of :math:`s` are inferred; padding changes where the size would not come back
otherwise.

What it does not protect from: the up-sampling is known and deterministic. The attacker who solves for the image
*before* it has the old number of unknowns, and the same equations: the system has full rank again (the test shows
it), as it has for every attack that searches the model's input (DLG and its kin). Before a kernel of 3 with copied
pixels every factor gives one and the same function: such a kernel sees two pixels a side, the second of them twice,
at any factor from 2 on. There is no official code.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import nn

from mibench.defenses.base import Classifier, Defense, DefenseCard, DefenseContext
from mibench.errors import UserError
from mibench.nn.bottleneck import plain_convolutions, replace_module
from mibench.options import Count

#: The largest factor that is tried.
LARGEST = 16


class SecCnn(Defense):
    """An up-sampling layer before a convolution that takes larger strides."""

    card = DefenseCard(
        name="seccnn",
        title="SecCNN",
        modalities=("image",),
        year=2024,
        fidelity="reconstruction",
        hooks=("architecture",),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="factor",
        stronger="higher",
        levels=(2, 3, 4),
    )

    factor: Count | None = None
    """Enlargement of the convolution's input; 1 for none, None for the least with more unknowns than equations."""
    mode: Literal["nearest", "bilinear"] = "nearest"
    """``nearest`` or ``bilinear``."""
    position: Count = 1
    """Which convolution it stands before, from 1."""

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with an up-sampling before the chosen convolution.

        Raises:
            UserError: If it has no such convolution, or no factor up to 16 does what is asked.
        """
        plain = plain_convolutions(model)
        if len(plain) < self.position:
            raise UserError(
                f"defense.position={self.position} asks for that convolution, but this target has {len(plain)} plain "
                "ones; lower it or choose another target."
            )
        conv = plain[self.position - 1]
        shape = input_shape(model, conv, context.spec.shape)
        factor = self.factor or smallest_factor(conv, shape)
        self.found = {"factor": factor, "rank_index": surplus(conv, shape, factor)}  # below 0: it can be solved
        if factor > 1:
            stretch(conv, shape, factor)
            smooth = None if self.mode == "nearest" else False
            replace_module(
                model, conv, nn.Sequential(nn.Upsample(scale_factor=factor, mode=self.mode, align_corners=smooth), conv)
            )
        return model


def input_shape(model: Classifier, conv: nn.Conv2d, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the shape ``(C, H, W)`` of what a convolution is given for inputs of ``shape``."""
    seen: list[tuple[int, ...]] = []
    handle = conv.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape[1:])))
    mode = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    model.train(mode)
    handle.remove()
    return cast(tuple[int, int, int], seen[0])


def surplus(conv: nn.Conv2d, shape: tuple[int, int, int], factor: int) -> int:
    """Return how many more unknowns than equations there are where the input is enlarged by ``factor``."""
    unknowns = factor**2 * math.prod(shape)
    outputs = conv.out_channels * math.prod(_sizes(conv, shape, 1, conv.padding))
    return unknowns - outputs - conv.weight.numel()


def smallest_factor(conv: nn.Conv2d, shape: tuple[int, int, int]) -> int:
    """Return the least factor from 2 on with more unknowns than equations.

    Raises:
        UserError: If there is none up to 16.
    """
    for factor in range(2, LARGEST + 1):
        if surplus(conv, shape, factor) > 0:
            return factor
    raise UserError(
        f"Up to a factor of {LARGEST} the convolution has as many equations as unknowns; set defense.factor, "
        "defense.position or another target."
    )


def stretch(conv: nn.Conv2d, shape: tuple[int, int, int], factor: int) -> None:
    """Change a convolution's stride, and its padding where need be, to give its old output's size.

    Raises:
        UserError: If no padding gives that size.
    """
    before, padding = _sizes(conv, shape, 1, conv.padding), cast(tuple[int, int], conv.padding)
    for added in (padding, *((one, one) for one in range(factor * conv.kernel_size[0]))):
        if _sizes(conv, shape, factor, added) == before:
            conv.stride = (conv.stride[0] * factor, conv.stride[1] * factor)
            conv.padding = added
            return
    raise UserError(
        f"No padding gives the convolution's output its size back after an up-sampling by {factor}; set another "
        "defense.factor or defense.position."
    )


def _sizes(conv: nn.Conv2d, shape: tuple[int, int, int], factor: int, padding: object) -> list[int]:
    """Return height and width of the output for an input enlarged by ``factor``, with a stride as much larger."""
    added = cast(tuple[int, int], padding)
    return [
        (factor * shape[1 + axis] + 2 * added[axis] - conv.kernel_size[axis]) // (factor * conv.stride[axis]) + 1
        for axis in range(2)
    ]
