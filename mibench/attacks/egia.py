r"""EGIA: external gradient inversion (Liang et al., IEEE TIFS 2023).

The attacker is no party of the training: it captures what clients send on the way to the server.

``black_box``: it has the messages and nothing of the model. Shapes tell whether a message begins with a linear layer
over the whole input; then the input is the least-squares solution of :math:`\partial L / \partial W = (\partial L /
\partial b)\, x^T`,

.. math:: x = \mathrm{pinv}(\partial L / \partial b) \; \partial L / \partial W

exact for a batch of one (see :mod:`mibench.optim.bias_trick`); a larger batch gives one weighted mean of its inputs,
returned in the place of each. What clients subtract from pixels and divide them by (``mean``, ``std``) is public.

``grey_box``: it knows the protocol, was listening from the first broadcast on, and rebuilds the model of the attacked
round from all uploads,

.. math:: w_t = w_0 - \eta \sum_{s < t} \frac{1}{K} \sum_{k=1}^{K} g_s^k

(differences of parameters with :math:`\eta = 1`; batch-norm statistics are those last sent), then searches as
:mod:`mibench.attacks.inverting_gradients` does. The server's model is never read. With ``setting.rounds=0`` there is
nothing to rebuild and the attack is that one; set ``setting.rounds`` to attack a later round. ``start=unknown`` is the
listener that came too late: it guesses :math:`w_0` from the layers' own initialisers, and is meant to fail.

Code: https://github.com/RuslandGadget/FCN-Inv holds the closed form alone (an MLP of 3072-120-84-10 on CIFAR-10,
normalised to [-1, 1]). The grey box is a reading of the abstract; the search in it, with its defaults, is Geiping et
al.'s.
"""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView, server_step
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.signed_search import SignedSearch
from mibench.errors import IncompatibleCellError, NotGrantedError
from mibench.optim import bias_trick
from mibench.optim.gradient_distance import DistanceName
from mibench.options import NonNegative, Positive
from mibench.seeding import seeded


class Egia(SignedSearch):
    """Inversion by an eavesdropper: a closed form from the gradients alone, or a search with the rebuilt model."""

    card = AttackCard(
        name="egia",
        title="EGIA",
        modalities=("image",),
        year=2023,
        code="https://github.com/RuslandGadget/FCN-Inv",
        fidelity="reconstruction",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        needs=("transcript",),
        uses=("labels", "local_training"),
    )

    mode: Literal["grey_box", "black_box"] = "grey_box"
    """``grey_box`` or ``black_box``."""
    start: Literal["broadcast", "unknown"] = "broadcast"
    """Whether the listener has the model as it was ``broadcast`` first (``grey_box``)."""
    mean: NonNegative = 0.5
    """What clients subtract from every pixel (``black_box``)."""
    std: Positive = 0.5
    """What they divide it by (``black_box``)."""
    boxed: bool = True
    """Whether inputs are clamped to the pixels' box after every step of the search."""
    distance: DistanceName = "cosine"
    """``cosine``, ``layer_cosine`` or ``squared``."""

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs and labels behind every message; the view's own model is not read."""
        if self.mode == "grey_box":
            return super().reconstruct(self.rebuilt(view), knowledge, goal, networks)
        labels = self.labels(view, knowledge)
        inputs = bias_trick.least_squares(*first_layer(view)).repeat_interleave(view.batch_size, 0)
        images = view.spec.boxed(inputs * self.std + self.mean).reshape(-1, *view.spec.shape)
        return Reconstruction(images, goal.target.to(view.device), labels.flatten(), inputs.isfinite().all(1))

    def rebuilt(self, view: GradientsView) -> GradientsView:
        """Return what a party of the training would see: the messages, with the model made from all uploads.

        Raises:
            NotGrantedError: If nobody listened to the earlier rounds.
        """
        if view.transcript is None:
            raise NotGrantedError("The grey box needs the uploads of all earlier rounds; run it in setting=federated.")
        heard = view.transcript()
        model = copy.deepcopy(heard.start)
        if self.start == "unknown":
            with seeded(self.draws(torch.device("cpu"), "weights").initial_seed()):
                for module in model.modules():
                    if callable(reset := getattr(module, "reset_parameters", None)):
                        reset()
        for sent in heard.rounds:
            server_step(model, sent, heard.lr)
        return view.with_model(model)


def first_layer(view: GradientsView) -> tuple[Tensor, Tensor]:
    """Return the first layer's gradients: weight ``(messages, units, inputs)`` and bias ``(messages, units)``.

    Raises:
        IncompatibleCellError: If a message's first two tensors have not the shapes of a linear layer over the input.
    """
    weight, bias = (torch.stack([list(one.values())[place] for one in view.messages]) for place in (0, 1))
    if weight.shape[1:] != (*bias.shape[1:], math.prod(view.spec.shape)):
        raise IncompatibleCellError(
            "The black box reads a first layer that is linear with a bias, but the first two tensors that clients send "
            f"have the shapes {tuple(weight.shape[1:])} and {tuple(bias.shape[1:])}; choose target=mlp, or "
            "attack.mode=grey_box."
        )
    return weight, bias
