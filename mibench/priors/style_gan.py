r"""A small StyleGAN2: latents become styles, one per layer, and styles become images.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, trained as in the authors' code
(https://github.com/NVlabs/stylegan2-ada-pytorch, ``training/loss.py``, ``training_loop.py``). Needs public images.
With :math:`s(t) = \log(1 + e^t)`, generator and discriminator descend

.. math:: L_G = E\, s(-D(G(z))), \qquad L_D = E\, s(D(G(z))) + E\, s(-D(x)) + \frac{\gamma}{2} E \|\nabla_x D(x)\|^2

where the last term is added every ``penalty_every`` steps only, that many times as strong. The generator that is kept
is a running average of the trained one; with probability ``mixing`` the later layers of an image take the style of
another latent.

Inferred: widths, depth and lengths for 16-64 pixels, which the authors do not train; the networks are theirs. Left
out: path-length regularisation (which they leave out below 128 pixels) and adaptive augmentation. The mean style is the
mean over 10,000 latents once training is over, not a running one, which a short training leaves far behind.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mibench.card import PriorCard
from mibench.data import InputSpec
from mibench.model import LatentPrior
from mibench.nn.adversarial import refuse_oblong, step_along
from mibench.nn.style import StyleNetworks
from mibench.options import Count, NonNegative, Positive
from mibench.priors.base import ImagePrior, PriorData
from mibench.seeding import derive, generator

#: Latents over which the mean style is taken.
MEAN_OVER = 10_000


class StyleGan(ImagePrior):
    """StyleGAN2 on the attacker's public images."""

    card = PriorCard(
        name="style_gan",
        title="StyleGAN2, small",
        modalities=("image",),
        year=2020,
        code="https://github.com/NVlabs/stylegan2-ada-pytorch",
        fidelity="reconstruction",
        spaces=("latent", "style"),
    )

    iterations: Count = 390_625
    """Steps of each network; the authors show 25 million images, 64 at a time."""
    latent_dim: Count = 512
    """Dimension of z."""
    w_dim: Count = 512
    """Dimension of a style."""
    layers: Count = 8
    """Layers of the mapping."""
    base: Count = 16_384
    """Channels of a block times its pixels per side (16,384 for the authors' 256 pixels)."""
    width: Count = 512
    """Most channels of a block."""
    lr: Positive = 2.5e-3
    """Adam's learning rate for both networks."""
    gamma: NonNegative | None = None
    """Weight of the gradient penalty; null for the authors' rule 0.0002 * size^2 / batch_size."""
    penalty_every: Count = 16
    """Discriminator steps per penalty step."""
    average: Positive = 20_000
    """Images after which the kept generator has forgotten half of itself; at most a twentieth of those shown so far."""
    mixing: NonNegative = 0.9
    """Probability that an image takes styles of two latents."""

    def network(self, spec: InputSpec) -> StyleNetworks:
        """Return the untrained networks."""
        refuse_oblong("prior=style_gan", spec)
        sizes = {"latent_dim": self.latent_dim, "w_dim": self.w_dim, "layers": self.layers}
        return StyleNetworks("style_gan", spec.shape, **sizes, base=self.base, width=self.width)

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Train generator and discriminator on the public images, then leave the averaged generator in place."""
        assert isinstance(network, StyleNetworks)
        draws = generator(derive(seed, "style_gan"), device)
        gamma = 0.0002 * network.native**2 / self.batch_size if self.gamma is None else self.gamma
        lazy = self.penalty_every / (self.penalty_every + 1)
        adam_g = torch.optim.Adam(network.makers.parameters(), lr=self.lr, betas=(0.0, 0.99))
        adam_d = torch.optim.Adam(network.judge.parameters(), lr=self.lr * lazy, betas=(0.0, 0.99**lazy))
        network.train()
        kept = copy.deepcopy(network.makers)
        for step in data.checkpoints.steps(
            self.iterations, "prior style_gan", network=network, kept=kept, adam_g=adam_g, adam_d=adam_d, draws=draws
        ):
            step_along(adam_g, softplus(-network.critic(self._fake(network, draws))).mean(), network.makers)
            real = self.batch(data, draws)
            with torch.no_grad():
                fake = self._fake(network, draws)
            loss = softplus(network.critic(fake)).mean() + softplus(-network.critic(real)).mean()
            step_along(adam_d, loss, network.judge)
            if step % self.penalty_every == 0:
                penalty = gamma / 2 * self.penalty_every * squared_slope(network, real)
                step_along(adam_d, penalty, network.judge)
            shown = (step + 1) * self.batch_size
            _move(kept, network.makers, 0.5 ** (self.batch_size / min(self.average, shown / 20)))
        network.makers.load_state_dict(kept.state_dict())
        with torch.no_grad():
            network.mean_style.copy_(network.mapping(network.sample_latent(MEAN_OVER, draws)).mean(0))

    def _fake(self, network: StyleNetworks, draws: torch.Generator) -> Tensor:
        """Return generated images, not clipped."""
        ws, others = (network.styles(network.sample_latent(self.batch_size, draws)) for _ in range(2))
        mixed = torch.rand(self.batch_size, 1, generator=draws, device=draws.device) < self.mixing
        cut = torch.randint(1, network.num_ws, (self.batch_size, 1), generator=draws, device=draws.device)
        later = torch.arange(network.num_ws, device=draws.device) >= cut
        return network.synthesise(torch.where((mixed & later)[:, :, None], others, ws))


def squared_slope(network: StyleNetworks, real: Tensor) -> Tensor:
    """Return the mean squared norm of the discriminator's gradient at real images, in its own range."""
    images = (2 * real - 1).requires_grad_(True)
    scores = network.critic(0.5 + images / 2)
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return slope.square().flatten(1).sum(1).mean() + 0 * scores.sum()  # a slope of 0 in the last bias


@torch.no_grad()
def _move(kept: nn.Module, trained: nn.Module, stay: float) -> None:
    """Move the kept parameters towards the trained ones, of which ``1 - stay`` enters."""
    for old, new in zip(kept.parameters(), trained.parameters(), strict=True):
        old.lerp_(new, 1 - stay)
