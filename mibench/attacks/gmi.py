r"""GMI: the secret revealer (Zhang et al., Generative Model-Inversion Attacks Against Deep Neural Networks, CVPR 2020).

The attacker owns the target's weights and public images of other people, on which a WGAN-GP was trained:
generator :math:`G` and critic :math:`D`. For a class :math:`y` every sample starts from its own
:math:`z \sim N(0, I)` and descends

.. math:: L(z) = -D(G(z)) + \lambda \, \mathrm{CE}(T(G(z)), y)

with Nesterov momentum and the latent clipped to a box after every step:
:math:`v' = m v - \eta \nabla L,\; z \leftarrow \mathrm{clip}(z - m v + (1 + m) v', -1, 1)`.

Each sample is the best of ``restarts`` such descents by the *target's* score of ``y``, as in the authors' script;
later benchmarks keep every restart, which is ``restarts=1``. Official code: https://github.com/MKariya1998/GMI-Attack.
Deviations: scores are indexed by the class id (the script takes ``score[i, i]``, right for targets 0..n-1 only) and
compared as log-probabilities, and all samples of all classes descend together. The script steps along the *mean* loss
of 100 classes, which divides every sample's gradient by 100; this is kept as the constant ``batch``, so that no
sample's step depends on how many others there are.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import ClassSearch
from mibench.card import AttackCard
from mibench.knowledge import Knowledge
from mibench.model import LatentPrior
from mibench.optim.momentum import nesterov_descent
from mibench.options import Count, Decay, Positive
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassGoal


class Gmi(ClassSearch):
    """Latent search under critic and cross-entropy.

    Args:
        iterations: Descent steps.
        lr: Step size.
        momentum: Nesterov momentum.
        clip: Half-width of the latent box.
        identity_weight: Weight of the cross-entropy (the paper's lambda).
        prior_weight: Weight of the critic.
        restarts: Descents per sample; the one with the highest target score is returned.
        batch: Number of samples whose mean loss the authors step along; a sample's gradient is divided by it.
    """

    card = AttackCard(
        name="gmi",
        title="GMI",
        modalities=("image",),
        year=2020,
        bib="gmi",
        code="https://github.com/MKariya1998/GMI-Attack",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
    )

    def __init__(
        self,
        *,
        iterations: Count = 1500,
        lr: Positive = 0.02,
        momentum: Decay = 0.9,
        clip: Positive = 1.0,
        identity_weight: float = 100.0,
        prior_weight: float = 1.0,
        restarts: Count = 5,
        batch: Count = 100,
    ) -> None:
        self.iterations = iterations
        self.lr = lr
        self.momentum = momentum
        self.clip = clip
        self.identity_weight = identity_weight
        self.prior_weight = prior_weight
        self.restarts = restarts
        self.batch = batch

    def loss(self, view: WhiteBoxView, prior: LatentPrior, z: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of every latent, shape ``(N,)``."""
        images = prior.generate(z)
        return self.identity_weight * self.identify(view, images, labels) - self.prior_weight * prior.critic(images)

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Returns ``goal.samples`` images per class."""
        prior = knowledge.prior
        wanted = goal.labels.to(view.device)
        labels = wanted.repeat_interleave(self.restarts)
        z = prior.sample_latent(len(labels), self.draws(view.device, "latents"))
        z = nesterov_descent(
            z,
            lambda z: self.loss(view, prior, z, labels),
            self.steps(self.iterations),
            lr=self.lr,
            momentum=self.momentum,
            bound=self.clip,
            batch=self.batch,
            after=lambda z: self.keep(partial(self._first, prior, z, wanted)),
        )
        return self._choose(view, prior, z, labels, wanted)

    def _first(self, prior: LatentPrior, z: Tensor, wanted: Tensor) -> Reconstruction:
        """Returns each sample's first restart, for the case that the budget ends before the choice."""
        with torch.no_grad():
            return Reconstruction(prior.generate(z[:: self.restarts]), wanted)

    def _choose(
        self, view: WhiteBoxView, prior: LatentPrior, z: Tensor, labels: Tensor, wanted: Tensor
    ) -> Reconstruction:
        """Returns of each sample's restarts the image that the target scores highest for its class."""
        with torch.no_grad():
            images = prior.generate(z)
            if self.restarts > 1:
                with view.phase("select"):
                    scores = view.logits(images).log_softmax(1).gather(1, labels[:, None]).reshape(-1, self.restarts)
                chosen = scores.argmax(1) + torch.arange(len(scores), device=scores.device) * self.restarts
                images = images[chosen]
        return Reconstruction(images, wanted)
