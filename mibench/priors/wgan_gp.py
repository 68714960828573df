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
from torch import Tensor

from mibench.card import PriorCard
from mibench.data import InputSpec
from mibench.model import LatentPrior
from mibench.nn.adversarial import gradient_penalty, random_images, refuse_oblong, step_along
from mibench.nn.dcgan import DcganPrior, critic_layers
from mibench.options import Count, NonNegative, Positive
from mibench.priors.base import Prior, PriorData
from mibench.seeding import derive, generator


class WganGpNetworks(DcganPrior):
    """Generator and critic.

    Args:
        shape: Image shape ``(C, H, W)``, as :class:`mibench.nn.dcgan.DcganPrior` takes it.
        latent_dim: Dimension of z.
        width: Channels next to the image (64 in the paper).
    """

    name = "wgan_gp"

    def __init__(self, shape: tuple[int, ...], latent_dim: int, width: int) -> None:
        super().__init__(shape, latent_dim, width)
        self.judge = critic_layers(shape[0], width, self.doublings)
        self.initialise()

    def critic(self, x: Tensor) -> Tensor:
        """Returns the critic's score, shape ``(N,)``."""
        score: Tensor = self.judge(self.native(x))
        return score.flatten(1).mean(1)


class WganGp(Prior):
    """WGAN-GP on the attacker's public images.

    Args:
        iterations: Generator steps; the authors' 120 epochs of 30,000 images, one in five steps, make 11,250.
        latent_dim: Dimension of z.
        width: Channels next to the image.
        batch_size: Images per step.
        lr: Adam's learning rate for both networks.
        n_critic: Critic steps per generator step.
        penalty: Weight of the gradient penalty.
        flip: Whether public images are mirrored at random; None mirrors where the dataset says that a mirrored image
            shows the same class.
    """

    card = PriorCard(
        name="wgan_gp",
        title="WGAN-GP",
        modalities=("image",),
        year=2017,
        bib="wgan_gp",
        code="https://github.com/MKariya1998/GMI-Attack",
        fidelity="official",
    )

    def __init__(
        self,
        *,
        iterations: Count = 11_250,
        latent_dim: Count = 100,
        width: Count = 64,
        batch_size: Count = 64,
        lr: Positive = 2e-4,
        n_critic: Count = 5,
        penalty: NonNegative = 10.0,
        flip: bool | None = None,
    ) -> None:
        self.iterations = iterations
        self.latent_dim = latent_dim
        self.width = width
        self.batch_size = batch_size
        self.lr = lr
        self.n_critic = n_critic
        self.penalty = penalty
        self.flip = flip

    def network(self, spec: InputSpec) -> WganGpNetworks:
        """Returns the untrained networks."""
        refuse_oblong(self.card.name, spec)
        return WganGpNetworks(spec.shape, self.latent_dim, self.width)

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Trains generator and critic on the public images."""
        assert isinstance(network, WganGpNetworks)
        draws = generator(derive(seed, "wgan_gp"), device)
        flip = data.spec.mirrored if self.flip is None else self.flip
        makers = network.makers
        adam_g = torch.optim.Adam(makers.parameters(), lr=self.lr, betas=(0.5, 0.999))
        adam_d = torch.optim.Adam(network.judge.parameters(), lr=self.lr, betas=(0.5, 0.999))
        network.train()
        for _ in data.checkpoints.steps(
            self.iterations, "prior wgan_gp", network=network, adam_g=adam_g, adam_d=adam_d, draws=draws
        ):
            for _ in range(self.n_critic):
                real = random_images(data.public.x, self.batch_size, flip, draws)
                with torch.no_grad():
                    fake = network.generate(network.sample_latent(len(real), draws))
                loss = network.critic(fake).mean() - network.critic(real).mean()
                loss = loss + self.penalty * gradient_penalty(network.critic, real, fake, draws)
                step_along(adam_d, loss, network.judge)
            fake = network.generate(network.sample_latent(self.batch_size, draws))
            step_along(adam_g, -network.critic(fake).mean(), makers)
