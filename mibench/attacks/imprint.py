r"""Imprint: a server that plants a linear layer which keeps images apart.

``rtf``: Fowl et al., Robbing the Fed, ICLR 2022. The server puts a block in front of the model,

.. math:: h = \mathrm{ReLU}(W x + b), \qquad x' = V h,

in which all :math:`K` rows of :math:`W` are one and the same functional :math:`q`, the biases are :math:`-c_1 > \dots >
-c_K` with :math:`c_i` the :math:`i / (K + 1)` quantile of :math:`q \cdot x` over public images, and all columns of
:math:`V` are the same. Unit :math:`i` then passes the images above :math:`c_i`, each with the same derivative
:math:`g_n` for all of them, so that rows of the gradient sum them up and neighbouring rows differ by what lies between
:math:`c_i` and :math:`c_{i+1}`: an image that is alone there is

.. math:: x = \frac{\partial L / \partial W_i - \partial L / \partial W_{i+1}}{\partial L / \partial b_i -
          \partial L / \partial b_{i+1}}

exactly (the last row stands for itself); several come out as one weighted mean of them. Nothing is searched, no query
is sent, and sums over many clients hold as many images (:mod:`mibench.defenses.sec_agg`). ``random`` functionals have
fewer ties than the ``mean`` of coarsely quantised pixels, which no bin can part.

``cah``: Boenisch et al., When the Curious Abandon Honesty, EuroS&P 2023. Half of every row, drawn at random, is
negative Gaussian, the other half positive and ``squeeze`` times as large, the bias is 0 and :math:`x' = x + \bar h`: a
unit fires for few images, and one that fires for a single image holds it as :math:`\partial W_i / \partial b_i`.

Clients can see the planted layer, since its rows are identical; nothing hides that. With ``setting=captured`` the layer
is part of a model of one's own: ``layer`` names it, and it takes normalised inputs.

Code: https://github.com/lhfowl/robbing_the_fed and https://github.com/JonasGeiping/breaching; their reader of ``rtf``
keeps the first row, which is the sum of all images, and loses those above the last edge. Order and hits here are ours.
"""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction, Server
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.data import Examples, InputSpec
from mibench.errors import IncompatibleCellError, NotGrantedError
from mibench.model import Classifier
from mibench.optim import bias_trick
from mibench.optim.input_space import Pixels
from mibench.optim.label_recovery import LabelRule
from mibench.options import Count, Decay, Positive, Share
from mibench.seeding import generator


class Imprint(GradientSearch):
    """A planted layer whose gradient holds single images."""

    card = AttackCard(
        name="imprint",
        title="Imprint (Robbing the Fed)",
        modalities=("image",),
        year=2022,
        code="https://github.com/JonasGeiping/breaching",
        fidelity="reconstruction",
        family="closed form",
        task="instance",
        access=("gradients",),
        uses=("labels", "public"),
        plants=True,
    )
    length = ()

    variant: Literal["rtf", "cah"] = "rtf"
    """``rtf`` (bins of one functional) or ``cah`` (units that fire for few images)."""
    bins: Count = 64
    """Units of the planted layer (K)."""
    functional: Literal["random", "mean"] = "random"
    """What ``rtf`` sorts images by: a ``random`` direction, or their ``mean``."""
    gain: Positive = 1.0
    """Size of the planted layer's output."""
    sigma: Positive = 0.5
    """Deviation of the weights of ``cah``."""
    squeeze: Share = 0.95
    """Positive weights of ``cah``, as a share of the negative ones."""
    eps_rel: Decay = 1e-7
    """Share of the largest bias gradient below which a bin is empty."""
    dedup_cos: Share = 0.99999
    """Cosine from which two units of ``cah`` hold the same image."""
    layer: str | None = None
    """Name of such a layer in a model of one's own; null: the layer that this attack plants."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""

    def server(self, public: Examples | None, spec: InputSpec, seed: int) -> Server:
        """Return the server that sends a model with the block in front.

        Raises:
            NotGrantedError: If ``rtf`` has no public images to take quantiles from.
        """
        size, draws = math.prod(spec.shape), generator(seed)
        noise = torch.randn(self.bins, size, generator=draws)
        if self.variant == "cah":
            half = torch.rand(self.bins, size, generator=draws).argsort(1) < size // 2
            magnitude = self.sigma * noise.abs()
            return PlantingServer(torch.where(half, -magnitude, self.squeeze * magnitude), torch.zeros(self.bins), None)
        if public is None:
            raise NotGrantedError("attack=imprint sorts images by quantiles of public ones, and the dataset has none.")
        row = noise[0] / math.sqrt(size) if self.functional == "random" else torch.full((size,), 1 / size)
        shares = torch.arange(1, self.bins + 1) / (self.bins + 1)
        edges = torch.quantile(public.x.flatten(1).double() @ row.double(), shares.double()).float()
        column = self.gain * torch.randn(size, generator=draws) / math.sqrt(size)
        return PlantingServer(row.expand(self.bins, -1).clone(), -edges, column)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the images that the planted layer holds, with the labels read off; others are missing.

        Raises:
            IncompatibleCellError: If the model has no such layer.
        """
        labels, name = self.labels(view, knowledge), self.layer or PLANTED
        images, there = [], []
        for message in view.messages:
            names = [key.removesuffix(".weight") for key in message if f".{key}".endswith(f".{name}.weight")]
            if not names:
                raise IncompatibleCellError(
                    f"attack=imprint finds no layer '{name}' in the messages; set attack.layer to that of your model."
                )
            found, valid = self.read(message[f"{names[0]}.weight"], message[f"{names[0]}.bias"], view)
            images.append(found)
            there.append(valid)
        values = view.spec.boxed(torch.cat(images))
        return Reconstruction(values, goal.target.to(view.device), labels.flatten(), torch.cat(there))

    def read(self, weight: Tensor, bias: Tensor, view: GradientsView) -> tuple[Tensor, Tensor]:
        """Return the images of one message, shape ``(batch, *spec.shape)``, and which of them are there.

        Args:
            weight: Gradient of the planted weight, shape ``(K, inputs)``.
            bias: Gradient of the planted bias, shape ``(K,)``.
            view: Says how many images there are, and what the layer's inputs are.
        """
        pixels, shape = Pixels.of(view), view.spec.shape

        def images(inputs: Tensor) -> Tensor:
            inputs = inputs.reshape(-1, *shape)
            return inputs if self.layer is None else pixels.to_inputs(inputs)

        if self.variant == "cah":
            count, box = view.batch_size, (view.spec.low, view.spec.high)
            return bias_trick.distinct(weight, bias, images, count, self.eps_rel, self.dedup_cos, box)
        weight, bias = (torch.cat([one[:-1] - one[1:], one[-1:]]) for one in (weight, bias))
        inputs, defined = bias_trick.rows(weight, bias, self.eps_rel)
        order = bias.abs().where(defined, 0.0).argsort(descending=True)[: view.batch_size]
        found, there = view.spec.blank(view.batch_size, view.device), torch.zeros(view.batch_size, dtype=torch.bool)
        found[: len(order)] = images(inputs[order]).to(found)
        there[: len(order)] = defined[order].cpu()
        return found, there.to(view.device)


#: The planted layer's name among a model's parameters.
PLANTED = "normalise.planted"


class Planted(nn.Module):
    """A model's first module behind a planted block.

    Args:
        weight: Shape ``(K, inputs)``.
        bias: Shape ``(K,)``.
        column: What every unit adds to the image, shape ``(inputs,)``; None adds the units' mean to the image itself.
        inner: The model's own first module.
    """

    def __init__(self, weight: Tensor, bias: Tensor, column: Tensor | None, inner: nn.Module) -> None:
        super().__init__()
        self.planted = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            self.planted.weight.copy_(weight)
            self.planted.bias.copy_(bias)
        self.register_buffer("column", column)
        self.adds = column is None
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return what the model's own first module makes of the block's output, for images ``(N, C, H, W)``."""
        passed = self.planted(x.flatten(1)).relu()
        if self.adds:
            image = x + passed.mean(1).reshape(-1, *[1] * (x.dim() - 1))
        else:
            image = (passed.sum(1, keepdim=True) * self.column).reshape(x.shape)
        result: Tensor = self.inner(image)
        return result


class PlantingServer(Server):
    """A server that sends every model with the same block in front."""

    def __init__(self, weight: Tensor, bias: Tensor, column: Tensor | None) -> None:
        self.weight, self.bias, self.column = weight, bias, column

    def broadcast(self, number: int, model: Classifier) -> Classifier:
        """Return a copy of the global model behind the block."""
        changed = copy.deepcopy(model)
        changed.normalise = Planted(self.weight, self.bias, self.column, changed.normalise).to(model.device)
        return changed
