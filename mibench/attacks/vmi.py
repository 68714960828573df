r"""VMI: variational inference of the latents behind a class.

Wang et al., Variational Model Inversion Attacks, NeurIPS 2021. The attacker owns the target's weights and a generator
:math:`G` of public images with a standard-normal latent space, trained without the target. A class :math:`y` is
described by the distribution :math:`q_y` of a family that minimises

.. math:: L(q_y) = \lambda_a \, E_{z \sim q_y}[-\log p_T(y | G(z))] + \lambda_{kl} \, \mathrm{KL}(q_y \| N(0, I))

The first term wants images that the target names, the second wants all of the prior that shows them, so unlike KEDMI's
the spread does not vanish. Families: a Gaussian with full covariance and exact KL; a mixture of such Gaussians with
straight-through Gumbel-softmax choice; a normalising flow, both with the KL estimated on the draws of the step. The
results are draws of :math:`q_y`, none of them selected. Official code: https://github.com/wangkua1/vmi.

Inferred: that code searches a StyleGAN, one flow per layer (10 additive Glow steps of 3 levels), in double precision
with SGD at 1e-4; this is the form over a single latent, for which no script is published, with affine couplings, Adam
and single precision. Weights, batch and number of steps are the script's. Its early stop looks at the evaluation model;
here every class takes all steps. Its mixture log-density subtracts the logarithm of the number of components from
weights that are normalised already; here it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mibench.access import WhiteBoxView
from mibench.attacks.base import AttackCard, ClassGoal, ClassSearch, Knowledge, Reconstruction
from mibench.model import LatentPrior
from mibench.nn.distributions import Flow, Gaussian, Mixture
from mibench.optim.descent import adam_descent
from mibench.options import Count, NonNegative, Positive
from mibench.precision import computing


class Vmi(ClassSearch):
    """Variational search for a distribution of latents per class."""

    card = AttackCard(
        name="vmi",
        title="VMI",
        modalities=("image",),
        year=2021,
        code="https://github.com/wangkua1/vmi",
        fidelity="reconstruction",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
    )
    length = ("iterations",)

    family: Literal["gaussian", "mixture", "flow"] = "flow"
    """The kind of distribution."""
    iterations: Count = 4867
    """Descent steps; the script's 31 epochs of 157."""
    lr: Positive = 1e-3
    """Adam's step size."""
    batch: Count = 64
    """Draws per class and step."""
    identity_weight: float = 1.0
    """Weight of the cross-entropy."""
    kl_weight: NonNegative = 1e-3
    """Weight of the divergence from the prior."""
    components: Count = 5
    """Gaussians of a mixture."""
    blocks: Count = 6
    """Couplings of a flow."""
    width: Count = 64
    """Hidden units of a coupling."""
    together: Count = 10
    """Classes that are searched at a time, which bounds the memory."""

    def distributions(self, classes: int, dim: int, device: torch.device) -> nn.Module:
        """Return one distribution per class, close to the prior."""
        draws = self.draws(device, "start")
        if self.family == "gaussian":
            return Gaussian(classes, dim, device)
        if self.family == "mixture":
            return Mixture(classes, dim, self.components, draws)
        return Flow(classes, dim, self.blocks, self.width, draws)

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` draws of every class's distribution."""
        prior, targets = knowledge.prior, goal.targets.to(view.device)
        families = self.distributions(len(targets), prior.latent_dim, view.device)
        noise = self.draws(view.device, "noise")
        for first in range(0, len(targets), self.together):
            some = slice(first, first + self.together)
            adam_descent(
                [parameter[some] for parameter in families.parameters()],
                partial(self.losses, view, prior, families, targets[some], noise),
                self.steps(self.iterations, f"class {first}"),
                lr=self.lr,
                after=partial(self._learn, prior, families, goal, some),
            )
        return self._results(prior, families, goal)

    def losses(
        self,
        view: WhiteBoxView,
        prior: LatentPrior,
        families: nn.Module,
        labels: Tensor,
        draws: torch.Generator,
        *parameters: Tensor,
    ) -> Tensor:
        """Return the loss of every class in ``labels``, whose distributions have these parameters, shape ``(N,)``."""
        names = (name for name, _ in families.named_parameters())
        given = dict(zip(names, parameters, strict=True))
        with computing("float32", view.device):  # densities
            z, divergence = functional_call(families, given, (self.batch, draws))
        identity = self.identify(view, prior.generate(z.flatten(0, 1)), labels.repeat_interleave(self.batch))
        identity = identity.unflatten(0, (-1, self.batch)).mean(1)
        losses: Tensor = self.identity_weight * identity + self.kl_weight * divergence
        return losses

    def _learn(
        self,
        prior: LatentPrior,
        families: nn.Module,
        goal: ClassGoal,
        some: slice,
        parameters: Sequence[Tensor],
        _losses: Tensor,
    ) -> None:
        """Put the parameters of some classes where those of all are, of which the best result so far is drawn."""
        for all_classes, learnt in zip(families.parameters(), parameters, strict=True):
            all_classes[some] = learnt
        self.keep(partial(self._results, prior, families, goal))

    def _results(self, prior: LatentPrior, families: nn.Module, goal: ClassGoal) -> Reconstruction:
        """Return the images of ``goal.samples`` draws per class."""
        device = next(families.parameters()).device
        with torch.no_grad():
            with computing("float32", device):
                z, _ = families(goal.samples, self.draws(device, "results"))
            return Reconstruction(prior.generate(z.flatten(0, 1)), goal.labels.to(device))
