r"""The input of a biased linear layer in closed form (Phong et al., IEEE TIFS 2018; Geiping et al., NeurIPS 2020).

Where the first layer is :math:`z = W x + b`, the client's gradient holds its input: with :math:`\delta = \partial L /
\partial z`

.. math:: \partial L / \partial W = \delta x^T, \qquad \partial L / \partial b = \delta
    \qquad\Rightarrow\qquad
    x^T = \frac{(\partial L / \partial b)^T \, \partial L / \partial W}{\|\partial L / \partial b\|^2}

exactly, whatever the loss and the layers above, and whatever the weights (Phong et al., section 3; Geiping et al.,
proposition 3.1). Nothing is searched; after several local steps on one example it holds still. Of a batch each row's
ratio :math:`\partial W_i / \partial b_i` is a mean of the inputs that activate unit :math:`i`, and exact where only one
does. Several such units of one input agree, so ratios inside the pixels' box are returned in the order of how many
others agree with them; those that are left may be mixtures, and inputs for which no ratio is left are missing. The
labels of a batch are in no order of its images. What reaches the layer is the *normalised* image: one probe of a black
and a white image finds the first layer and undoes the normalisation, two queries in all.

Followed is the text, with the box and the removal of duplicates of later work (the ``analytic`` attack of
https://github.com/JonasGeiping/breaching); ranking by agreement and its threshold are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.errors import IncompatibleCellError
from mibench.optim import bias_trick
from mibench.optim.label_recovery import LabelRule
from mibench.options import Decay, Share


class AnalyticLinear(GradientSearch):
    """Division of the first linear layer's weight gradient by its bias gradient."""

    card = AttackCard(
        name="analytic_linear",
        title="Analytic inversion of a linear layer",
        modalities=("image",),
        year=2018,
        fidelity="paper",
        family="closed form",
        task="instance",
        access=("gradients",),
        uses=("labels",),
    )
    length = ()

    combine: Literal["pinv", "max_row", "rows"] = "pinv"
    """Of one example: ``pinv`` (least squares), ``max_row`` (largest bias gradient) or ``rows`` (as of a batch)."""
    eps_rel: Decay = 1e-12
    """Share of the largest bias gradient from which a row counts (``rows``)."""
    dedup_cos: Share = 0.99999
    """Cosine from which two ratios are of the same input (``rows``)."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs behind every message, with the labels read off.

        Raises:
            IncompatibleCellError: If the first layer is not linear, has no bias, or is not in the messages.
        """
        labels = self.labels(view, knowledge)
        layer, pixels = first_layer(view)
        weight, bias = (torch.stack([one[f"{layer}.{kind}"] for one in view.messages]) for kind in ("weight", "bias"))
        if view.batch_size > 1 or self.combine == "rows":
            box = (view.spec.low, view.spec.high)
            found = [
                bias_trick.distinct(w, b, pixels, view.batch_size, self.eps_rel, self.dedup_cos, box)
                for w, b in zip(weight, bias, strict=True)
            ]
            images, valid = torch.cat([one for one, _ in found]), torch.cat([there for _, there in found])
        else:
            solve = bias_trick.least_squares if self.combine == "pinv" else bias_trick.steepest_row
            images = pixels(solve(weight, bias))
            valid = images.isfinite().all(1)
        images = view.spec.boxed(images).reshape(-1, *view.spec.shape)
        return Reconstruction(images, goal.target.to(view.device), labels.flatten(), valid)


def first_layer(view: GradientsView) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Return the name of the layer that takes the model's input, and what turns its inputs back into pixels.

    A black and a white image are sent through the model; the normalisation is affine in each pixel.

    Raises:
        IncompatibleCellError: If the module reached first is no linear layer with a trained bias, over whole inputs.
    """
    model, reached = view.model, list[tuple[str, nn.Module, Tensor]]()
    dtype = next(model.parameters()).dtype
    probe = torch.stack([torch.full(view.spec.shape, level, dtype=dtype, device=view.device) for level in (0.0, 1.0)])

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, inputs: reached.append((name, module, inputs[0].detach()))

    trained = {name: module for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    hooks = [module.register_forward_pre_hook(note(name)) for name, module in trained.items()]
    try:
        with torch.no_grad(), view.phase("initialise"):
            model(probe)
    finally:
        for hook in hooks:
            hook.remove()
    name, module, inputs = reached[0]
    sent = view.messages[0]
    whole = isinstance(module, nn.Linear) and inputs.shape == (2, math.prod(view.spec.shape))
    if not (whole and f"{name}.weight" in sent and f"{name}.bias" in sent):
        raise IncompatibleCellError(
            f"The closed form reads the input of a first layer that is linear with a bias, but the target's first "
            f"layer, '{name}', is {module}; choose target=mlp."
        )
    black, white = inputs
    return name, lambda u: (u - black) / (white - black)
