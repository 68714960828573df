r"""PATROL: privacy-oriented pruning of the client's part (Ding et al., PATROL, WACV 2024).

The units of the client's blocks :math:`f_1, \dots, f_N` (channels of a map, entries of a vector) carry trainable soft
masks :math:`m`, and the network trains against a decoder :math:`g` that trains against it. In turn, one step each,

.. math:: \min_g L_\mathrm{adv} = \| x - g(f_e(x)) \|, \qquad
    \min_{f, m} \; \mathrm{CE} + \lambda \| m \|_1 + \alpha \sum_i k_i - \beta L_\mathrm{adv},

.. math:: k_i = \frac{\| h_i(x + \delta) - h_i(x) \|}{\| h_{i-1}(x + \delta) - h_{i-1}(x) \|}, \quad
    h_i = f_i \circ \dots \circ f_1, \quad \delta \sim \mathcal N(0, \sigma^2 I),

with the mean or the largest of a batch for :math:`k_i`. Half-way, units with :math:`|m| < t \max |m|` of their block
are removed for good, and the rest trains on without the masks' term. So a device has room for further layers: raise
``setting.cut`` to use it. Where nothing is cut, the client's part is stage 0. A removed unit's mask is 0, and so is in
the end every weight that no output depends on any more, before the unit and behind it; the fact ``pruned_share`` is
their share of all weights (without the masks), and ``pruned_units`` that of the client's units. The tensors keep their
shapes, so that the victim is stored and served as any other; whoever exports it may leave those rows and columns out.

The attacker who knows of it trains a decoder of his own on just these features (``split_decoder``), standardised,
because a small Lipschitz constant may only be a small scale: no bound holds against it, nor against ``split_rmle``, who
holds the client's weights. Units are removed for their use to the classifier, not for what they tell. Neutral are
``beta=0``, ``alpha=0`` and ``sparsity=0``, which leaves the masks out: that is plain training to the bit. The baseline
``beta=0`` prunes without a decoder to train against.

Cost: a small CNN on 8x8 digits trains 2.5 times as long; 8 times with a decoder of 4 residual blocks of 64 channels,
and some tens of times with that one on 16x16, where it dwarfs the network. What it buys depends on the cut: at stage 0
of that CNN, which sends four numbers a pixel, a fresh decoder is hardly worse off; where features are few, or a deeper
cut has its units removed, it is.

Reconstruction: the authors published the objective only
(https://github.com/shiweiding/Privacy-Oriented-Pruning-for-Collaborative-Inference-Against-Model-Inversion-Attacks,
a README). Chosen here are all weights; :math:`L_\mathrm{adv}` as a root mean square, so that :math:`\beta` fits images
of any size (the README prints it with a minus under the decoder's maximum, which is the same); removal half-way rather
than after training, which a network does not survive without training on; a threshold that is relative, because the
next layer may take up the scale of all masks; and that masks learn at a rate of their own, fast enough to fall to 0
within any recipe.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mibench.defenses.base import Batch, Classifier, DefenseCard, DefenseContext, Training
from mibench.defenses.families.against_decoder import AgainstDecoder
from mibench.nn.bottleneck import client_shapes, put_behind, replace_module
from mibench.options import Decay, NonNegative, Positive
from mibench.seeding import seeded

#: Steps of Adam at the recipe's full rate, all through the training, add up to this for a mask.
TRAVEL = 4.0

#: Share of the training after which units are removed.
REMOVAL = 0.5


class Patrol(AgainstDecoder):
    """Training against a decoder under a Lipschitz penalty, with masks by which units are removed."""

    card = DefenseCard(
        name="patrol",
        title="PATROL",
        modalities=("image",),
        year=2024,
        code="https://github.com/shiweiding/Privacy-Oriented-Pruning-for-Collaborative-Inference-Against-Model-Inversion-Attacks",
        fidelity="reconstruction",
        hooks=("architecture", "training"),
        affects=("white_box", "scores", "labels", "explanations", "features"),
        strength="beta",
        stronger="higher",
        levels=(0.3, 1.0, 3.0),
        baselines=(("beta", 0.0),),
        adaptive=("setting=split attack=split_decoder",),
    )

    beta: NonNegative = 1.0
    """Weight of the decoder's error."""
    alpha: NonNegative = 0.01
    """Weight of the blocks' local Lipschitz constants."""
    sparsity: NonNegative = 0.01
    """Weight of the masks' l1 norm; 0 leaves the masks out."""
    threshold: Decay = 0.2
    """Units are removed whose masks are below this share of their block's largest."""
    deviation: Positive = 0.1
    """Deviation of the noise that the constants are taken at, for pixels in [0, 1]."""
    bound: Literal["mean", "max"] = "mean"
    """Whether a constant is the ``mean`` or the ``max`` of the batch."""

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with a mask behind every stage of the client's part.

        Raises:
            UserError: If the target runs as one piece.
        """
        if self.sparsity:
            for number, shape in enumerate(client_shapes(model, context.spec.shape)):
                put_behind(model, number, SoftMask(shape), self.card.name)
        return model

    def fit(self, training: Training) -> Classifier:
        """Train the network in turn with a decoder of its features, and remove the units that it needs least."""
        model = training.model
        masks = [part for part in model.modules() if isinstance(part, SoftMask)]
        attacker = self.attacker(training, root_mean_square) if self.beta else None

        def loss(batch: Batch) -> Tensor:
            if batch.progress >= REMOVAL:
                for mask in masks:
                    mask.remove(self.threshold)
            features, constants = self.sent(batch.model, batch.x)
            loss = batch.objective.mean(batch.model.server(features), batch.y)
            if masks and batch.progress < REMOVAL:
                loss = loss + self.sparsity * torch.stack([mask.weight.abs().sum() for mask in masks]).sum()
            if self.alpha:
                loss = loss + self.alpha * constants.sum()
            if attacker is not None:
                attacker.learn(features, batch.x)
                loss = loss - self.beta * attacker.error(features, batch.x)
            return loss

        steps = max(1, training.epochs * training.steps_per_epoch)
        rate = TRAVEL / (steps * training.recipe.lr)
        training.run(loss, rates=dict.fromkeys(masks, rate))
        shape = tuple(training.data.x.shape[1:])
        self.found = removed(model, shape) if masks else {}
        return model

    def sent(self, model: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features that a client sends, and its blocks' local Lipschitz constants where they are asked for.

        Images and their noisy copies go through the client's part as one batch.

        Args:
            model: The model.
            x: Images ``(N, C, H, W)``.

        Returns:
            Features ``(N, ...)``, and one constant per block, or none.
        """
        if not self.alpha:
            return model.client(x), x.new_zeros(0)
        first, *blocks = model.client
        both = torch.cat([x, x + self.deviation * torch.randn_like(x)])
        constants, before, h = [], distances(both), first(both)
        for block in blocks:
            h = block(h)
            after = distances(h)
            ratio = after / before.clamp_min(1e-12)
            constants.append(ratio.mean() if self.bound == "mean" else ratio.max())
            before = after
        return h[: len(x)], torch.stack(constants)


class SoftMask(nn.Module):
    """A trainable factor for every channel of a map, or for every entry of a vector or token.

    Args:
        shape: Shape of one example's features.
    """

    kept: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.map = len(shape) == 3
        self.weight = nn.Parameter(torch.ones(shape[0] if self.map else shape[-1]))
        self.register_buffer("kept", torch.ones_like(self.weight))
        self._whole = True

    def forward(self, h: Tensor) -> Tensor:
        """Return features ``(N, ...)`` times the mask, which is 0 for removed units."""
        mask = self.weight * self.kept
        result: Tensor = h * (mask[:, None, None] if self.map else mask)
        return result

    @torch.no_grad()
    def remove(self, threshold: float) -> None:
        """Remove, the first time it is called, the units below a share of the largest mask."""
        if self._whole:
            size = self.weight.abs()
            self.kept.copy_(size >= threshold * size.max())
        self._whole = False


def root_mean_square(made: Tensor, truth: Tensor) -> Tensor:
    """Return the root of the mean squared difference of two batches of images, a scalar."""
    return (mse_loss(made, truth) + 1e-12).sqrt()


def distances(both: Tensor) -> Tensor:
    """Return the Euclidean distance of every example of the first half to its own in the second, shape ``(N,)``."""
    first, second = both.flatten(1).float().chunk(2)
    lengths: Tensor = torch.linalg.vector_norm(first - second, dim=1)
    return lengths


@torch.no_grad()
def removed(model: Classifier, shape: tuple[int, ...]) -> dict[str, float | str]:
    """Set weights to 0 that no output depends on since units were removed, and say how much went.

    What the model answers stays as it is.
    """
    masks = [part for part in model.modules() if isinstance(part, SoftMask)]
    before, after = reaching(model, shape, whole=True), reaching(model, shape)
    weights = pruned = 0
    for name, parameter in model.named_parameters():
        if name in before:
            dead = (before[name] & ~after[name]).to(parameter.device)
            parameter[dead] = 0.0
            weights, pruned = weights + dead.numel(), pruned + int(dead.sum())
    kept = torch.cat([mask.kept for mask in masks])
    return {"pruned_share": pruned / weights, "pruned_units": float(1 - kept.double().mean())}


@torch.enable_grad()
def reaching(model: Classifier, shape: tuple[int, ...], whole: bool = False) -> dict[str, Tensor]:
    """Return by name which entries of every parameter but the masks the logits depend on, for inputs of ``shape``.

    With ``whole`` as if no unit had been removed.

    An entry does if the gradient by it is not exactly 0, on a copy in doubles that hides no path by chance: a ReLU is
    smooth there and a maximum a mean, which have a gradient everywhere, and to every weight a random one is added.
    """
    smooth = copy.deepcopy(model).cpu().double().eval().requires_grad_(True)
    for part in list(smooth.modules()):
        if isinstance(part, nn.ReLU | nn.ReLU6):
            replace_module(smooth, part, nn.Softplus())
        if isinstance(part, nn.MaxPool2d):
            replace_module(smooth, part, nn.AvgPool2d(part.kernel_size, part.stride, part.padding, part.ceil_mode))
    masks = [part for part in smooth.modules() if isinstance(part, SoftMask)]
    own = {id(mask.weight) for mask in masks}
    weights = {name: value for name, value in smooth.named_parameters() if id(value) not in own}
    with seeded(0), torch.no_grad():
        for mask in masks:
            mask.weight.fill_(1.0)
            mask.kept.copy_(torch.ones_like(mask.kept) if whole else mask.kept)
        for value in weights.values():
            value.add_(torch.randn_like(value) * (value.abs().mean() + 1e-3))
        x = torch.rand(4, *shape).double()
    logits = smooth(x)
    gradients = torch.autograd.grad((logits * logits.detach()).sum(), list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value, dtype=torch.bool) if gradient is None else gradient != 0
        for (name, value), gradient in zip(weights.items(), gradients, strict=True)
    }
