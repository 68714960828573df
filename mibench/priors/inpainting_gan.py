r"""Inpainting GAN: fills the hole of an image, the prior of SecretGen and of GMI with side information.

Zhang et al., The Secret Revealer, CVPR 2020, section 3.3 with auxiliary knowledge, as released for SecretGen (Yuan et
al., ECCV 2022, https://github.com/AI-secure/SecretGen, ``stage1.py``, ``models.py``, ``discri.py``). One branch encodes
the masked image (the mean public pixel inside the hole) and the mask, the other grows :math:`z \sim N(0, I)`; together
they make an image, of which only the hole is used, so that all other pixels are those given. Two WGAN-GP critics judge
it: :math:`D_g` the whole image, :math:`D_l` a random square of half its side, at the same place in real and generated
images. With two fillings :math:`o_1, o_2` of the same images from :math:`z_1, z_2` the generator minimises

.. math:: -\tfrac12 (E D_l(o_1) + E D_g(o_1)) - \tfrac12 \, \frac{E |V(o_1) - V(o_2)|}{E |z_1 - z_2|},

whose last term keeps it from giving one image the same filling always. The authors compute a reconstruction loss and
leave it out; so do we.

Deviations: in the authors' white-box runs the features :math:`V` are the target's, in their black-box runs those of a
public face model. Here they are what :math:`D_g` computes below its last layer, in all cells: it has seen nothing but
public images, so that the prior is shared by all victims and asks none of them. For sizes other than 64 the number of
doublings and halvings follows the size (at least 16; smaller images are resized), and dilated convolutions that reach
beyond the feature map are left out. The hole it learns to fill is the cell's ``knowledge.masked_image``.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from mibench.card import PriorCard
from mibench.data import InputSpec
from mibench.model import InpaintingPrior, LatentPrior
from mibench.nn.adversarial import fitted, gradient_penalty, random_window, refuse_oblong, step_along
from mibench.nn.dcgan import critic_layers, doubling, initialise
from mibench.options import Count, NonNegative, Positive
from mibench.priors.base import ImagePrior, PriorData, adams
from mibench.seeding import derive, generator
from mibench.tasks.completion import Hole, hole_mask

DILATIONS = (2, 4, 8, 16)


class InpaintingGanNetworks(InpaintingPrior):
    """Generator of two branches and both critics.

    Args:
        shape: Image shape ``(C, H, W)``, square.
        latent_dim: Dimension of z.
        width: Channels of the critics next to the image (64 in the paper).
    """

    name = "inpainting_gan"
    mean_pixel: Tensor

    def __init__(self, shape: tuple[int, ...], latent_dim: int, width: int) -> None:
        super().__init__()
        channels, height, _ = shape
        self.shape = shape
        self.latent_dim = latent_dim
        self.side = max(16, 2 ** math.ceil(math.log2(height)))
        self.window = self.side // 2
        quarter, halvings = self.side // 4, int(math.log2(self.side // 4))
        half = max(1, width // 2)
        self.register_buffer("mean_pixel", torch.full((1, channels, 1, 1), 0.5))
        self.context = nn.Sequential(
            _encoding(channels + 1, half, kernel=5),
            _encoding(half, width, stride=2),
            _encoding(width, width),
            _encoding(width, 2 * width, stride=2),
            *[_encoding(2 * width, 2 * width) for _ in range(2)],
            *[_encoding(2 * width, 2 * width, dilation=dilation) for dilation in DILATIONS if dilation < quarter],
        )
        widths = [2 * width * 2**i for i in reversed(range(halvings - 1))]
        self.identity = nn.Sequential(
            nn.Linear(latent_dim, widths[0] * 16, bias=False),
            nn.BatchNorm1d(widths[0] * 16),
            nn.ReLU(),
            nn.Unflatten(1, (widths[0], 4, 4)),
            *[doubling(before, after) for before, after in pairwise(widths)],
        )
        self.paint = nn.Sequential(
            doubling(4 * width, 2 * width),
            doubling(2 * width, width),
            nn.Conv2d(width, half, 3, 1, 1),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, channels, 3, 1, 1),
            nn.Sigmoid(),
        )
        self.judge = critic_layers(channels, width, halvings)
        self.local_judge = critic_layers(channels, width, halvings - 1)
        initialise(self)

    @property
    def makers(self) -> nn.ModuleList:
        """The modules of the generator."""
        return nn.ModuleList([self.context, self.identity, self.paint])

    def fill(self, masked: Tensor, hole: Tensor, z: Tensor) -> Tensor:
        """Return completed images of shape ``(N, C, H, W)`` in [0, 1]."""
        seen = torch.where(hole, self.mean_pixel, masked)
        given = torch.cat([seen, hole.to(seen).expand(len(seen), -1, -1, -1)], 1)
        branches = [self.context(fitted(given, (self.side, self.side))), self.identity(z)]
        made = fitted(self.paint(torch.cat(branches, 1)), (self.shape[1], self.shape[2])).clamp(0, 1)
        return torch.where(hole, made, masked)

    def features(self, x: Tensor) -> Tensor:
        """Return what the global critic computes below its last layer, shape ``(N, channels, 4, 4)``."""
        features: Tensor = self.judge[:-1](fitted(x, (self.side, self.side)))
        return features

    def critic(self, x: Tensor) -> Tensor:
        """Return the global critic's score, shape ``(N,)``."""
        score: Tensor = self.judge[-1](self.features(x))
        return score.flatten(1).mean(1)

    def patch(self, x: Tensor, window: tuple[slice, slice]) -> Tensor:
        """Return a window of images, of those resized where they have another size than the critics'."""
        return fitted(x, (self.side, self.side))[..., window[0], window[1]]

    def patch_critic(self, patches: Tensor) -> Tensor:
        """Return the local critic's score of windows, shape ``(N,)``."""
        score: Tensor = self.local_judge(patches)
        return score.flatten(1).mean(1)

    def local_critic(self, x: Tensor, draws: torch.Generator) -> Tensor:
        """Return the local critic's score of one random window, shape ``(N,)``."""
        return self.patch_critic(self.patch(x, random_window(self.side, self.window, draws)))


class InpaintingGan(ImagePrior):
    """Inpainting under a global and a local critic, on the attacker's public images."""

    card = PriorCard(
        name="inpainting_gan",
        title="Inpainting GAN",
        modalities=("image",),
        year=2022,
        bib="secretgen",
        code="https://github.com/AI-secure/SecretGen",
        fidelity="official",
        spaces=("inpainting",),
    )

    hole: Hole = "centre"
    """What is hidden of an image: ``centre`` or ``face_t``; in a cell, what the attacker lacks."""
    iterations: Count = 62_500
    """Generator steps; the authors' 100 epochs of 40,000 images make 62,500."""
    diversity: NonNegative = 0.5
    """Weight of the difference of two fillings."""
    latent_dim: Count = 100
    """Dimension of z."""
    width: Count = 64
    """Channels of the critics next to the image."""
    lr: Positive = 4e-3
    """Adam's learning rate for all networks."""
    n_critic: Count = 1
    """Steps of both critics per generator step."""
    penalty: NonNegative = 10.0
    """Weight of the gradient penalties."""

    def network(self, spec: InputSpec) -> InpaintingGanNetworks:
        """Return the untrained networks."""
        refuse_oblong(f"prior={self.card.name}", spec)
        return InpaintingGanNetworks(spec.shape, self.latent_dim, self.width)

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Train generator and critics on the public images."""
        assert isinstance(network, InpaintingGanNetworks)
        draws, windows = generator(derive(seed, "inpainting_gan"), device), generator(derive(seed, "windows"))
        hole = hole_mask(self.hole, *data.spec.shape[1:]).to(device)
        network.mean_pixel.copy_(data.public.x.mean((0, 2, 3), keepdim=True))
        makers, judge, local_judge = network.makers, network.judge, network.local_judge
        adam = adams(self.lr, (0.5, 0.999), adam_g=makers, adam_d=judge, adam_l=local_judge)

        def real_and_fake() -> tuple[Tensor, Tensor]:
            real = self.batch(data, draws)
            with torch.no_grad():
                return real, network.fill(real, hole, network.sample_latent(len(real), draws))

        network.train()
        for _ in data.checkpoints.steps(
            self.iterations, "prior inpainting_gan", network=network, **adam, draws=draws, windows=windows
        ):
            for _ in range(self.n_critic):
                real, fake = real_and_fake()
                loss = network.critic(fake).mean() - network.critic(real).mean()
                loss = loss + self.penalty * gradient_penalty(network.critic, real, fake, draws)
                step_along(adam["adam_d"], loss, judge)
                window = random_window(network.side, network.window, windows)
                real, fake = (network.patch(images, window) for images in real_and_fake())
                loss = network.patch_critic(fake).mean() - network.patch_critic(real).mean()
                loss = loss + self.penalty * gradient_penalty(network.patch_critic, real, fake, draws)
                step_along(adam["adam_l"], loss, local_judge)
            real = self.batch(data, draws)
            first, second = (network.sample_latent(len(real), draws) for _ in range(2))
            filled, other = network.fill(real, hole, first), network.fill(real, hole, second)
            apart = (network.features(filled) - network.features(other)).abs().mean() / (first - second).abs().mean()
            loss = -network.realism(filled, windows).mean() / 2 - self.diversity * apart
            step_along(adam["adam_g"], loss, makers)


def _encoding(before: int, after: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return a convolution, rectified and then normalised, as the authors do."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, padding, dilation), nn.ReLU(), nn.BatchNorm2d(after))
