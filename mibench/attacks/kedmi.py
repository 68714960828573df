r"""KEDMI: a latent distribution per class.

Chen et al., Knowledge-Enriched Distributional Model Inversion Attacks, ICCV 2021. The attacker owns the target's
weights and public images, on which the prior ``inversion_gan`` was trained with the target's help: generator :math:`G`
and a critic :math:`D = \log (Z / (Z + 1))`. A class :math:`y` is described by a diagonal Gaussian over the latents,
whose mean and log-variance descend

.. math:: L(\mu, \log \sigma^2) = E_\epsilon [-D(G(z)) + \lambda \, \mathrm{CE}(T(G(z)), y)], \qquad
    z = \mu + \sigma \epsilon

with Adam and one :math:`\epsilon` per class and step, from :math:`\mu = 0, \log \sigma^2 = 1`. Nothing holds the
variance up, so it falls until the classes' images stop changing. The results are draws from the last Gaussian, none of
them selected. Official code: https://github.com/SCccc21/Knowledge-Enriched-DMI (``attack.py``, ``recovery.py``).

Deviations: the script clips the latents after the step that used them, which changes nothing; here they are not clipped
(``clip=null``), or inside the loss (``clip=1``), as LOMMA's authors do when they run KEDMI. All classes descend
together, each along the gradient of its own loss instead of the mean over classes, a factor to which Adam is blind.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import AttackCard, ClassGoal, ClassSearch, Knowledge, Reconstruction
from mibench.attacks.families.latent_descent import CriticWeights
from mibench.model import LatentPrior
from mibench.optim.descent import adam_descent
from mibench.options import Count, Positive


class Kedmi(CriticWeights, ClassSearch):
    """Search for a Gaussian of latents under critic and cross-entropy."""

    card = AttackCard(
        name="kedmi",
        title="KEDMI",
        modalities=("image",),
        year=2021,
        code="https://github.com/SCccc21/Knowledge-Enriched-DMI",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
    )
    length = ("iterations",)

    iterations: Count = 1500
    """Descent steps."""
    lr: Positive = 0.02
    """Adam's step size."""
    clip: Positive | None = None
    """Half-width of the box that latents are clipped to before they are used; null does not clip."""

    def draw(self, mean: Tensor, log_variance: Tensor, draws: torch.Generator) -> Tensor:
        """Return one latent of each Gaussian, shape ``(N, latent_dim)``."""
        noise = torch.randn(mean.shape, generator=draws, device=mean.device)
        z = mean + (log_variance / 2).exp() * noise
        return z if self.clip is None else z.clamp(-self.clip, self.clip)

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` draws of every class's Gaussian."""
        prior, targets = knowledge.prior, goal.targets.to(view.device)
        noise = self.draws(view.device, "noise")
        start = torch.zeros(len(targets), prior.latent_dim, device=view.device)

        def loss(mean: Tensor, log_variance: Tensor) -> Tensor:
            images = prior.generate(self.draw(mean, log_variance, noise))
            return self.weighted(self.identify(view, images, targets), prior.critic(images))

        gaussians = adam_descent(
            (start, torch.ones_like(start)),
            loss,
            self.steps(self.iterations),
            lr=self.lr,
            after=lambda now, _: self.keep(partial(self._results, prior, goal, now)),
        )
        return self._results(prior, goal, gaussians)

    def _results(self, prior: LatentPrior, goal: ClassGoal, gaussians: Sequence[Tensor]) -> Reconstruction:
        """Return the images of ``goal.samples`` draws per class, from means and log-variances of the classes."""
        mean, log_variance = (each.repeat_interleave(goal.samples, 0) for each in gaussians)
        with torch.no_grad():
            images = prior.generate(self.draw(mean, log_variance, self.draws(mean.device, "results")))
        return Reconstruction(images, goal.labels.to(mean.device))
