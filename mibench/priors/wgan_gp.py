r"""WGAN-GP: a DCGAN generator against a gradient-penalised critic, the prior of GMI.

Gulrajani et al., Improved Training of Wasserstein GANs, NeurIPS 2017, with the networks of GMI's released code
(https://github.com/MKariya1998/GMI-Attack, ``Celeba/generator.py``, ``discri.py``, ``train_gan.py``):

.. math:: L_D = E D(G(z)) - E D(x) + 10 \, E (\|\nabla D(\hat x)\|_2 - 1)^2, \qquad L_G = -E D(G(z))

with :math:`\hat x` on the line between a real and a generated image, one :math:`\alpha` per sample, and one generator
step per ``n_critic`` critic steps. The generator ends in a sigmoid, so images lie in [0, 1]. The critic uses instance
norm: batch norm would couple the samples whose gradients are penalised one by one. For sizes other than 64 the number
of up- and down-sampling blocks follows the size.
"""

from __future__ import annotations

import torch

from mibench.card import PriorCard
from mibench.data import InputSpec
from mibench.model import LatentPrior
from mibench.nn.adversarial import refuse_oblong
from mibench.nn.wgan import WganGpNetworks
from mibench.options import Count, NonNegative, Positive
from mibench.priors.base import ImagePrior, PriorData
from mibench.seeding import derive, generator


class WganGp(ImagePrior):
    """WGAN-GP on the attacker's public images."""

    card = PriorCard(
        name="wgan_gp",
        title="WGAN-GP",
        modalities=("image", "audio"),
        year=2017,
        code="https://github.com/MKariya1998/GMI-Attack",
        fidelity="official",
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
    """Critic steps per generator step."""
    penalty: NonNegative = 10.0
    """Weight of the gradient penalty."""

    def network(self, spec: InputSpec) -> WganGpNetworks:
        """Return the untrained networks."""
        refuse_oblong(f"prior={self.card.name}", spec)
        return WganGpNetworks(spec.shape, self.latent_dim, self.width)

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Train generator and critic on the public images."""
        assert isinstance(network, WganGpNetworks)
        draws = generator(derive(seed, "wgan_gp"), device)
        adams = network.optimisers(self.lr)
        network.train()
        for _ in data.checkpoints.steps(self.iterations, "prior wgan_gp", network=network, **adams, draws=draws):
            network.round(
                data.public.x,
                **adams,
                batch_size=self.batch_size,
                n_critic=self.n_critic,
                penalty=self.penalty,
                flip=self.mirrors(data),
                draws=draws,
            )
