r"""BiDO: bilateral dependency optimisation (Peng et al., Bilateral Dependency Optimization, KDD 2022).

The target is trained so that its hidden layers :math:`z_j` depend little on the input :math:`x` and much on the label
:math:`y`; every access to the model then sees a model that tells less of its inputs:

.. math:: L = \mathrm{CE} + \sum_j \left[ a_1 \, d(z_j, x) - a_2 \, d(z_j, y) \right].

The dependency :math:`d` of two batches of :math:`m` examples is computed from their centred kernel matrices
:math:`\tilde K = H K H`, :math:`H = I - 11^T/m`. Inputs (in [0, 1], flattened) and layers have the Gaussian kernel
:math:`K_{ij} = \exp(-\|v_i - v_j\|^2 / (2 \sigma^2 \dim v))`, one-hot labels the linear one. Two measures:

* ``hsic``, normalised: :math:`d = \mathrm{tr}(R_1 R_2)` with :math:`R = (\tilde K + \epsilon m I)^{-1} \tilde K`;
* ``coco``: :math:`d = \sqrt{\|\tilde K_1 \tilde K_2\|_F} / m`.

Official code: https://github.com/AlanPeng0897/Defend_MI. Deviations: kernels stay on the device and are float64, and
a linear solve replaces the explicit inverse of a float32 matrix; the HSIC kernels are centred on both sides, where
the code centres on one, which leaves the trace as it is; hidden layers are the outputs of the target's stages, the
last one as the head takes it (for VGG16 after its batch norm, as in the code). The recipe is the target's own; the
authors fine-tune a pre-trained VGG16 (Adam, 1e-4, 50 epochs).

The measures work unlike each other. At the authors' weights HSIC's penalty on the input does the work: without it (the
baseline ``a1=0``) nothing is gained. COCO's values are a thousand times smaller, so that with :math:`a_1 = 1` its input
term changes next to nothing, and the label term, of weight 50, makes features of one class alike; that costs accuracy
(the test has the figures).

What it does not protect from: every attack on the model meets what the loss has left, and that is little less where
the classes themselves are what is to be hidden. Layers that depend little on the input also give gradients that lead an
attack astray; whoever knows that asks for labels alone (BREP-MI). In federated learning a client's gradient is that of
this loss, and the attacker's :meth:`view.loss <mibench.access.GradientsView.loss>` plain cross-entropy, unless he knows
of the defense (``knowledge.defense_loss``). A batch of one example has no dependency, so nothing changes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mibench.defenses.base import Batch, Classifier, Defense, DefenseCard
from mibench.errors import UserError
from mibench.options import CountOrNone, NonNegative, Positive

#: Ridge of the normalised HSIC, per example of the batch.
EPSILON = 1e-5


class Bido(Defense):
    """Training under a penalty on the dependency between layers and input.

    The defaults are the authors' for HSIC on CelebA; ``bido_coco`` has those for COCO on MNIST.
    """

    card = DefenseCard(
        name="bido",
        title="BiDO",
        modalities=("image",),
        year=2022,
        revision=2,
        code="https://github.com/AlanPeng0897/Defend_MI",
        fidelity="official",
        hooks=("training",),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="a1",
        stronger="higher",
        levels=(0.0125, 0.05, 0.2, 0.8),
        baselines=(("a1", 0.0),),
        adaptive=("attack=brepmi", "setting=federated attack=inverting_gradients knowledge.defense_loss=true"),
    )

    measure: Literal["hsic", "coco"] = "hsic"
    """The dependency measure, ``hsic`` or ``coco``."""
    a1: NonNegative = 0.05
    """Weight of the dependency between layers and input, which is made small."""
    a2: NonNegative = 0.5
    """Weight of the dependency between layers and label, which is made large."""
    sigma: Positive = 5.0
    """Width of the Gaussian kernel, relative to the square root of the dimension."""
    layers: Sequence[CountOrNone] | None = None
    """Which stages of the target count, from 0; None means all."""

    def __post_init__(self) -> None:
        """Refuse a choice of no stage at all."""
        super().__post_init__()
        if self.layers is not None and not self.layers:
            raise UserError(
                "Expected defense.layers to name at least one stage, but it is empty; null means all stages."
            )

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy plus the weighted dependencies of the chosen stages."""
        logits, hidden = logits_and_layers(batch.model, batch.x)
        layers = [gaussian_kernel(values, self.sigma) for values in self._choose(hidden)]
        given = [gaussian_kernel(batch.x, self.sigma), linear_kernel(one_hot(batch.y, logits.shape[1]))]
        of_input, of_label = self._normalise(torch.stack(given))
        of_layers = self._normalise(torch.stack(layers))
        penalty = self.a1 * self._compare(of_layers, of_input) - self.a2 * self._compare(of_layers, of_label)
        return batch.objective.mean(logits, batch.y) + penalty.sum()

    def dependency(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the dependency of two batches of continuous values ``(m, ...)``, a scalar, 0 for constant ones."""
        kernels = [gaussian_kernel(values, self.sigma) for values in (first, second)]
        return self._compare(*self._normalise(torch.stack(kernels)))

    def _normalise(self, kernels: Tensor) -> Tensor:
        """Return what is compared of centred kernels ``(..., m, m)``: R for HSIC, themselves for COCO."""
        if self.measure == "coco":
            return kernels
        ridge = EPSILON * kernels.shape[-1] * torch.eye(kernels.shape[-1], dtype=kernels.dtype, device=kernels.device)
        result: Tensor = torch.linalg.solve_ex(kernels + ridge, kernels).result
        return result

    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the dependency of what :meth:`_normalise` gave, shape ``(...)``."""
        if self.measure == "hsic":
            return (first * second).sum((-2, -1))
        # The floor keeps the gradient of the root finite where there is no dependency at all.
        norm: Tensor = torch.linalg.matrix_norm(first @ second).clamp_min(1e-12)
        return norm.sqrt() / first.shape[-1]

    def _choose(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        if self.layers is None:
            return list(blocks)
        if not all(0 <= layer < len(blocks) for layer in self.layers):
            raise UserError(
                f"Expected defense.layers to lie between 0 and {len(blocks) - 1}, the stages of this target, but got "
                f"{list(self.layers)}."
            )
        return [blocks[layer] for layer in self.layers]


def logits_and_layers(model: Classifier, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return logits and the output of every stage from one forward pass, the last one as the head takes it."""
    if type(model).pool is Classifier.pool:  # as it is, but for its shape
        return model.forward_with_blocks(x)
    taken: list[Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda _module, given: taken.append(given[0]))
    logits, blocks = model.forward_with_blocks(x)
    handle.remove()
    return logits, (*blocks[:-1], taken[-1])


def gaussian_kernel(values: Tensor, sigma: float) -> Tensor:
    """Return the centred Gaussian kernel of a batch ``(m, ...)``, flattened: ``(m, m)``, float64."""
    flat = values.flatten(1).double()
    products = flat @ flat.T
    squares = products.diagonal()
    distances = (squares[:, None] + squares - 2 * products).clamp_min(0)
    return centre(torch.exp(-distances / (2 * sigma**2 * flat.shape[1])))


def linear_kernel(values: Tensor) -> Tensor:
    """Return the centred linear kernel of a batch ``(m, ...)``, flattened: ``(m, m)``, float64."""
    flat = values.flatten(1).double()
    return centre(flat @ flat.T)


def centre(kernel: Tensor) -> Tensor:
    """Return a kernel matrix with the mean of every row and column taken off."""
    rows = kernel - kernel.mean(1, keepdim=True)
    return rows - rows.mean(0, keepdim=True)
