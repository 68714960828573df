"""A DCGAN generator and its gradient-penalised critic (WGAN-GP), and one round of their training.

They are those of the prior ``wgan_gp``, which has the citations, and of the defense ``crafter``, whose client holds a
generator of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.nn.adversarial import gradient_penalty, random_images, step_along
from mibench.nn.dcgan import DcganPrior, critic_layers


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
        """Return the critic's score, shape ``(N,)``."""
        score: Tensor = self.judge(self.native(x))
        return score.flatten(1).mean(1)

    def optimisers(self, lr: float) -> dict[str, torch.optim.Adam]:
        """Return the optimisers of generator (``adam_g``) and critic (``adam_d``)."""
        return {
            "adam_g": torch.optim.Adam(self.makers.parameters(), lr=lr, betas=(0.5, 0.999)),
            "adam_d": torch.optim.Adam(self.judge.parameters(), lr=lr, betas=(0.5, 0.999)),
        }

    def round(
        self,
        public: Tensor,
        adam_g: torch.optim.Adam,
        adam_d: torch.optim.Adam,
        *,
        batch_size: int,
        n_critic: int,
        penalty: float,
        flip: bool,
        draws: torch.Generator,
    ) -> None:
        """Take ``n_critic`` steps of the critic and one of the generator on ``public`` images."""
        for _ in range(n_critic):
            real = random_images(public, batch_size, flip, draws)
            with torch.no_grad():
                fake = self.generate(self.sample_latent(len(real), draws))
            loss = self.critic(fake).mean() - self.critic(real).mean()
            loss = loss + penalty * gradient_penalty(self.critic, real, fake, draws)
            step_along(adam_d, loss, self.judge)
        fake = self.generate(self.sample_latent(batch_size, draws))
        step_along(adam_g, -self.critic(fake).mean(), self.makers)
