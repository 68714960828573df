r"""SCA: sparse-coding layers (Dibbo et al., Improving Robustness ... via Sparse Coding Architectures, ECCV 2024).

The first convolutions give way to layers that answer with a sparse code of their input. For an input :math:`x`,
standardised by itself, and a dictionary :math:`\Phi` of kernels of unit norm, the code solves

.. math:: \min_{a \ge 0} \tfrac12 \| x - \Phi \star a \|^2 + \lambda \| a \|_1,

approached by the locally competitive algorithm, ``iterations`` steps of

.. math:: a = \max(u - \lambda, 0), \qquad u \leftarrow u + \tfrac1\tau \left( \Phi^T \star x - u - (\Phi^T \Phi - I)
    \star a \right).

Most of what a convolution would pass on is left out, and with it what an inversion builds on. Dropout follows each
such layer. The kernels stay as they were drawn; with ``learn_dictionary`` they learn in training as in the library,
:math:`\Delta \Phi = \eta \, a \otimes (x - \Phi \star a) / (\mathrm{times\ active} + 1)`, and are normalised again. In
federated learning they are no parameters, so that a message says nothing of them directly, and stay as they are.

What it does not protect from: a code of a fixed, known dictionary is no secret, and :math:`\Phi \star a` is a picture
of the input; :math:`\lambda` decides how good a one. The steps are differentiable and the white-box attacker's
gradient runs through all of them: nothing is masked.

Official code: https://github.com/SayantonDibbo/SCA, on https://github.com/lanl/lca-pytorch (BSD-3); no update of the
dictionary was found in its scripts. Deviations: 25 steps with :math:`\tau = 5` where the code has 500 with 100, the
same time and within a hundredth the same code (a training step still costs 14 of a plain small CNN's); the layers
stand where the target's first convolutions stood, with as many outputs, and what follows there follows here (the
paper's own network pools, then has batch norm); float32 throughout.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.nn.grad import conv2d_weight

from mibench.defenses.base import Classifier, Defense, DefenseCard, DefenseContext
from mibench.errors import UserError
from mibench.nn.bottleneck import plain_convolutions, replace_module
from mibench.options import Count, CountOrNone, Decay, NonNegative, Positive


class Sca(Defense):
    """Sparse-coding layers in the place of the first convolutions."""

    card = DefenseCard(
        name="sca",
        title="Sparse-coding architecture",
        modalities=("image",),
        year=2024,
        code="https://github.com/SayantonDibbo/SCA",
        fidelity="official",
        hooks=("architecture",),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="threshold",
        stronger="higher",
        levels=(0.1, 0.5, 1.0),
    )

    layers: CountOrNone = 2
    """How many convolutions are replaced; 0 leaves the target as it is."""
    threshold: NonNegative = 0.5
    """What a code's entry must be worth (lambda), for inputs of unit variance."""
    kernel: Count = 5
    """Pixels per side of the kernels; a convolution that could not keep its output's size keeps its own."""
    iterations: Count = 25
    """Steps towards the code."""
    tau: Positive = 5.0
    """Time constant of a step; too small a one oscillates."""
    dropout: Decay = 0.09
    """Share of the code that is dropped in training."""
    learn_dictionary: bool = False
    """Whether the kernels learn in training."""
    eta: Positive = 0.01
    """Step size of their learning."""

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with a :class:`SparseCoding` in the place of each of its first convolutions.

        Raises:
            UserError: If it has fewer plain ones.
        """
        plain = [one for one in plain_convolutions(model) if _is_square(one)]
        if len(plain) < self.layers:
            raise UserError(
                f"defense=sca replaces the first {self.layers} convolutions, but this target has {len(plain)}; lower "
                "defense.layers or choose another target."
            )
        for old in plain[: self.layers]:
            kernel, padding = self._geometry(old)
            coding = SparseCoding(
                old.in_channels,
                old.out_channels,
                kernel,
                stride=old.stride[0],
                padding=padding,
                threshold=self.threshold,
                iterations=self.iterations,
                tau=self.tau,
                eta=self.eta if self.learn_dictionary else 0.0,
            )
            replace_module(model, old, nn.Sequential(coding, nn.Dropout(self.dropout)))
        return model

    def _geometry(self, old: nn.Conv2d) -> tuple[int, int]:
        """Return kernel and padding that give an output of the same size as ``old`` does."""
        own, padding = old.kernel_size[0], cast(tuple[int, int], old.padding)[0]
        more = self.kernel - own
        return (own, padding) if more % 2 or 2 * padding + more < 0 else (self.kernel, padding + more // 2)


class SparseCoding(nn.Module):
    """The sparse code of an image, or of a map of features, in convolutional kernels of unit norm.

    Args:
        channels: Channels of the input.
        kernels: Kernels, the channels of the code.
        size: Pixels per side of a kernel.
        stride: Stride of the code.
        padding: Zeros around the input.
        threshold: The weight of the code's l1 norm.
        iterations: Steps.
        tau: Time constant of a step.
        eta: Step size of the kernels' learning; 0 leaves them as they are drawn.
    """

    dictionary: Tensor

    def __init__(
        self,
        channels: int,
        kernels: int,
        size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        threshold: float = 0.5,
        iterations: int = 25,
        tau: float = 5.0,
        eta: float = 0.0,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = padding
        self.threshold = threshold
        self.iterations = iterations
        self.tau = tau
        self.eta = eta
        self.register_buffer("dictionary", _normalised(torch.randn(kernels, channels, size, size)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the code ``(N, kernels, h, w)``, not negative, of inputs ``(N, channels, H, W)``."""
        x = self.standardised(x)
        dictionary = self.dictionary.clone()  # which learning may change before a backward pass needs it
        driven = self.matched(x, dictionary)
        potential = torch.zeros_like(driven)
        for _ in range(self.iterations):
            code = (potential - self.threshold).relu()
            competing = self.matched(self.composed(code, x, dictionary), dictionary) - code
            potential = potential + (driven - potential - competing) / self.tau
        code = (potential - self.threshold).relu()
        if self.training and self.eta:
            self._learn(x.detach(), code.detach())
        return code

    @staticmethod
    def standardised(x: Tensor) -> Tensor:
        """Return inputs of which each has mean 0 and variance 1 over all its values."""
        centred = x - x.mean((1, 2, 3), keepdim=True)
        return centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-6).sqrt()

    def matched(self, x: Tensor, dictionary: Tensor) -> Tensor:
        """Return the products of every kernel with every place of an input."""
        return conv2d(x, dictionary, stride=self.stride, padding=self.padding)

    def composed(self, code: Tensor, like: Tensor, dictionary: Tensor) -> Tensor:
        """Return what a code says its input is, of the size of ``like``."""
        size = dictionary.shape[-1]
        made = [(places - 1) * self.stride - 2 * self.padding + size for places in code.shape[2:]]
        beyond = [whole - part for whole, part in zip(like.shape[2:], made, strict=True)]
        return conv_transpose2d(code, dictionary, stride=self.stride, padding=self.padding, output_padding=beyond)

    @torch.no_grad()
    def _learn(self, x: Tensor, code: Tensor) -> None:
        """Move every kernel towards what its places lack, and normalise it again."""
        lacking = x - self.composed(code, x, self.dictionary)
        change: Tensor = conv2d_weight(
            lacking, list(self.dictionary.shape), code, stride=self.stride, padding=self.padding
        )
        active = (code > 0).sum((0, 2, 3)).reshape(-1, 1, 1, 1)
        self.dictionary.copy_(_normalised(self.dictionary + self.eta * change / (active + 1)))


def _normalised(kernels: Tensor) -> Tensor:
    lengths: Tensor = kernels.flatten(1).norm(dim=1).clamp_min(1e-12)
    return kernels / lengths.reshape(-1, 1, 1, 1)


def _is_square(layer: nn.Conv2d) -> bool:
    """Whether kernel, stride and padding of a convolution are alike on both axes."""
    return all(axis[0] == axis[1] for axis in (layer.kernel_size, layer.stride, layer.padding))
