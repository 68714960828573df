r"""Inversion-specific GAN: a discriminator that also learns the target's soft labels, the prior of KEDMI.

Chen et al., Knowledge-Enriched Distributional Model Inversion Attacks, ICCV 2021, section 3.1
(https://github.com/SCccc21/Knowledge-Enriched-DMI, ``k+1_gan.py``). It is made for one target :math:`T`, which it asks
for the label of every public image it shows. The discriminator has one logit :math:`d_k` per class of the target, and
"real" has the probability :math:`Z / (Z + 1)` with :math:`Z = \sum_k e^{d_k}`, so with :math:`s = \log Z`

.. math::

    L_D &= \mathrm{CE}(T(x), d(x)) + \tfrac12 E[\mathrm{softplus}(s(x')) - s(x')] + \tfrac12 E\,\mathrm{softplus}(
    s(G(z))) \\
    L_G &= \mathrm{mean}\,|E f(G(z)) - E f(x'')| + 10^{-4} \sum H(\mathrm{softmax}\, d(G(z)))

where :math:`x, x', x''` are three independent batches of public images, the cross-entropy is that of the target's whole
distribution, :math:`f` are the features below the last layer, and the entropy :math:`H` is summed over the batch.
The generator, optimisers and lengths are those of ``wgan_gp``. The critic is :math:`\log (Z / (Z + 1))`.

Deviations: minibatch discrimination shows each image how close it is to the others of its batch. That couples a batch,
so it does so in training alone: in use every image is judged by itself. With the authors' standard-normal kernels the
closeness vanishes to float precision unless two images all but coincide, so little is lost. For sizes other than 64 the
number of halvings follows the size.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid, softplus

from mibench.card import PriorCard
from mibench.data import InputSpec
from mibench.model import LatentPrior
from mibench.nn.adversarial import refuse_oblong, step_along
from mibench.nn.dcgan import DcganPrior
from mibench.options import Count, NonNegative, Positive
from mibench.priors.base import ImagePrior, PriorData, adams
from mibench.seeding import derive, generator


class Closeness(nn.Module):
    r"""Minibatch discrimination: :math:`\sum_{j \ne i} e^{-|M_{ib} - M_{jb}|}` for image :math:`i`, kernel :math:`b`.

    Args:
        features: Length of the features.
        kernels: Number of kernels.
        kernel_dim: Length of what each makes of the features.
    """

    def __init__(self, features: int, kernels: int, kernel_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(kernels, features, kernel_dim))

    def forward(self, features: Tensor) -> Tensor:
        """Return the closeness of features ``(N, F)`` to the rest of their batch, ``(N, kernels)``; 0 in use."""
        if not self.training:
            return features.new_zeros(len(features), len(self.weight))
        seen = features @ self.weight
        return (-torch.cdist(seen, seen, p=1)).exp().sum(2).T - 1


class InversionGanNetworks(DcganPrior):
    """Generator and discriminator.

    Args:
        shape: Image shape ``(C, H, W)``, as :class:`mibench.nn.dcgan.DcganPrior` takes it.
        classes: Number of classes of the target.
        latent_dim: Dimension of z.
        width: Channels next to the image (64 in the paper).
        kernels: Kernels of the minibatch discrimination.
        kernel_dim: Their length.
    """

    name = "inversion_gan"

    def __init__(
        self, shape: tuple[int, ...], classes: int, latent_dim: int, width: int, kernels: int, kernel_dim: int
    ) -> None:
        super().__init__(shape, latent_dim, width)
        widths = [shape[0], *(width * 2**i for i in range(self.doublings - 1))]
        widths.append(max(width, widths[-1]))  # the last block is as wide as the one before
        down: list[nn.Module] = []
        for block, (before, after) in enumerate(pairwise(widths), 1):
            kernel = 3 if block == self.doublings else 5
            down += [
                nn.Conv2d(before, after, kernel, 2, kernel // 2),
                nn.InstanceNorm2d(after, affine=True),
                nn.LeakyReLU(0.2),
            ]
        self.judge = nn.ModuleDict(
            {
                "features": nn.Sequential(*down, nn.Flatten()),
                "closeness": Closeness(widths[-1] * 16, kernels, kernel_dim),
                "head": nn.Linear(widths[-1] * 16 + kernels, classes),
            }
        )
        self.initialise()

    def features(self, x: Tensor) -> Tensor:
        """Return the features of images below the class head, shape ``(N, F)``."""
        features: Tensor = self.judge["features"](self.native(x))
        return features

    def logits(self, x: Tensor) -> Tensor:
        """Return one logit per class of the target, shape ``(N, classes)``."""
        return self.classify(self.features(x))

    def classify(self, features: Tensor) -> Tensor:
        """Return the class logits of features."""
        logits: Tensor = self.judge["head"](torch.cat([features, self.judge["closeness"](features)], 1))
        return logits

    def critic(self, x: Tensor) -> Tensor:
        """Return the log-probability that images are real, :math:`s - softplus(s)`, shape ``(N,)``."""
        return logsigmoid(self.logits(x).logsumexp(1))


class InversionGan(ImagePrior):
    """A GAN on the attacker's public images that knows what the target sees in them."""

    card = PriorCard(
        name="inversion_gan",
        title="Inversion-specific GAN",
        modalities=("image",),
        year=2021,
        bib="kedmi",
        code="https://github.com/SCccc21/Knowledge-Enriched-DMI",
        fidelity="official",
        spaces=("latent",),
        asks="white_box",
    )

    iterations: Count = 11_250
    """Generator steps; the authors' 120 epochs of 30,000 images, one in five steps, make 11,250."""
    latent_dim: Count = 100
    """Dimension of z."""
    width: Count = 64
    """Channels next to the image."""
    lr: Positive = 2e-4
    """Adam's learning rate for both networks."""
    n_critic: Count = 5
    """Discriminator steps per generator step."""
    label_weight: NonNegative = 1.0
    """Weight of the target's soft labels; 1 in the paper, 0 leaves the target out."""
    entropy_weight: NonNegative = 1e-4
    """Weight of the entropy of generated images' classes, a sum over the batch."""
    kernels: Count = 64
    """Kernels of the minibatch discrimination."""
    kernel_dim: Count = 50
    """Their length."""

    def network(self, spec: InputSpec) -> InversionGanNetworks:
        """Return the untrained networks."""
        refuse_oblong(f"prior={self.card.name}", spec)
        return InversionGanNetworks(
            spec.shape, spec.classes, self.latent_dim, self.width, self.kernels, self.kernel_dim
        )

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Train generator and discriminator on the public images and the target's labels of them."""
        assert isinstance(network, InversionGanNetworks) and data.view is not None
        draws = generator(derive(seed, "inversion_gan"), device)
        adam = adams(self.lr, (0.5, 0.999), adam_g=network.makers, adam_d=network.judge)
        network.train()
        for _ in data.checkpoints.steps(self.iterations, "prior inversion_gan", network=network, **adam, draws=draws):
            for _ in range(self.n_critic):
                labelled, other = (self.batch(data, draws) for _ in range(2))
                with torch.no_grad():
                    fake = network.generate(network.sample_latent(self.batch_size, draws))
                    seen = data.view.logits(labelled).softmax(1)
                loss = self.label_weight * cross_entropy(network.logits(labelled), seen)
                loss = loss - network.critic(other).mean() / 2
                loss = loss + softplus(network.logits(fake).logsumexp(1)).mean() / 2
                step_along(adam["adam_d"], loss, network.judge)
            step_along(adam["adam_g"], self._maker_loss(network, self.batch(data, draws), draws), network.makers)

    def _maker_loss(self, network: InversionGanNetworks, real: Tensor, draws: torch.Generator) -> Tensor:
        """Return the generator's loss: the distance of mean features, and the entropy of generated classes."""
        features = network.features(network.generate(network.sample_latent(self.batch_size, draws)))
        apart = (features.mean(0) - network.features(real).detach().mean(0)).abs().mean()
        chances = network.classify(features).log_softmax(1)
        return apart - self.entropy_weight * (chances.exp() * chances).sum()
