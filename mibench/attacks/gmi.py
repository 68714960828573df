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

``gmi_masked`` is the paper's attack with auxiliary knowledge: the attacker also holds a private image but for a hole,
and searches how to fill it with an inpainting generator that has a global and a local critic :math:`D_g, D_l`,

.. math:: L(z) = -D_g(G(x, z)) - D_l(G(x, z)) + \lambda \, \mathrm{CE}(T(G(x, z)), y),

:math:`D_l` on a new random window at every step. The paper's attacker knows the label :math:`y`: grant it with
``knowledge.labels=true``. Without it, the label is the class that the target gives, on average over the starts of all
restarts, to the completed image; this is inferred, as are the restarts. The control victim, whose classes are other
people, is always attacked in this way.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import AttackCard, ClassGoal, ClassSearch, CompletionGoal, GoalT, Knowledge, Reconstruction
from mibench.attacks.families.latent_descent import BoxedDescent, CriticWeights, surest
from mibench.model import InpaintingPrior, LatentPrior
from mibench.optim.identity import cross_entropy
from mibench.options import Count


class LatentSearch(BoxedDescent[WhiteBoxView, GoalT], CriticWeights):
    """What both forms of the attack share."""

    restarts: Count = 5
    """Descents per sample; the one with the highest target score is returned."""

    @torch.no_grad()
    def chosen(self, view: WhiteBoxView, images: Tensor, labels: Tensor) -> Tensor:
        """Return of each sample's restarts, side by side, the image that the target scores highest for its class."""
        return images if self.restarts == 1 else images[surest(view, images, labels, self.restarts)]


class Gmi(LatentSearch[ClassGoal], ClassSearch):
    """Latent search under critic and cross-entropy."""

    card = AttackCard(
        name="gmi",
        title="GMI",
        modalities=("image", "audio"),
        year=2020,
        code="https://github.com/MKariya1998/GMI-Attack",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
    )

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        prior = knowledge.prior
        wanted = goal.labels.to(view.device)
        labels = wanted.repeat_interleave(self.restarts)
        z = prior.sample_latent(len(labels), self.draws(view.device, "latents"))

        def loss(z: Tensor) -> Tensor:
            images = prior.generate(z)
            return self.weighted(self.identify(view, images, labels), prior.critic(images))

        z = self.descend(z, loss, after=lambda z: self.keep(partial(self._first, prior, z, wanted)))
        with torch.no_grad():
            return Reconstruction(self.chosen(view, prior.generate(z), labels), wanted)

    def _first(self, prior: LatentPrior, z: Tensor, wanted: Tensor) -> Reconstruction:
        """Return each sample's first restart, for the case that the budget ends before the choice."""
        with torch.no_grad():
            return Reconstruction(prior.generate(z[:: self.restarts]), wanted)


class GmiMasked(LatentSearch[CompletionGoal]):
    """The same search for what is hidden of a private image."""

    card = AttackCard(
        name="gmi",
        title="GMI with side information",
        modalities=("image",),
        year=2020,
        code="https://github.com/MKariya1998/GMI-Attack",
        fidelity="reconstruction",
        family="generative",
        task="completion",
        access=("white_box",),
        needs=("public", "prior"),
        uses=("labels",),
        space="inpainting",
    )

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: CompletionGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return every image completed, with its label."""
        prior = knowledge.prior
        assert isinstance(prior, InpaintingPrior)
        goal = goal.to(view.device)
        masked = goal.images.repeat_interleave(self.restarts, 0)
        windows = self.draws(torch.device("cpu"), "windows")
        z = prior.sample_latent(len(masked), self.draws(view.device, "latents"))
        self.keep(partial(self._first, prior, goal, z, None))
        known = self._known(view, knowledge, prior.fill(masked, goal.hole, z))
        labels = known.repeat_interleave(self.restarts)

        def loss(z: Tensor) -> Tensor:
            images = prior.fill(masked, goal.hole, z)
            return self.weighted(cross_entropy(view.logits(images), labels), prior.realism(images, windows))

        z = self.descend(z, loss, after=lambda z: self.keep(partial(self._first, prior, goal, z, known)))
        with torch.no_grad():
            images = self.chosen(view, prior.fill(masked, goal.hole, z), labels)
        return Reconstruction(images, goal.target, known)

    @torch.no_grad()
    def _known(self, view: WhiteBoxView, knowledge: Knowledge, starts: Tensor) -> Tensor:
        """Return the labels where they are granted, else those that the target gives to the starts of each image."""
        if knowledge.granted("labels"):
            granted: Tensor = knowledge.fact("labels").to(view.device)
            return granted
        with view.phase("initialise"):
            scores = view.logits(starts).softmax(1)
        mean: Tensor = scores.unflatten(0, (-1, self.restarts)).mean(1)
        return mean.argmax(1)

    @torch.no_grad()
    def _first(self, prior: InpaintingPrior, goal: CompletionGoal, z: Tensor, labels: Tensor | None) -> Reconstruction:
        """Return each image's first restart, for the case that the budget ends before the choice."""
        return Reconstruction(prior.fill(goal.images, goal.hole, z[:: self.restarts]), goal.target, labels)
