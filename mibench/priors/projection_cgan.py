r"""A class-conditional GAN on public images that the victim has labelled: the prior of PLG-MI.

Yuan et al., Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial
Network, AAAI 2023; official code https://github.com/LetheSec/PLG-MI-Attack (``top_n_selection.py``,
``train_cgan.py``). The attacker owns public images and the target :math:`T`.

1. For each class :math:`y` the ``top`` public images with the largest :math:`p_y` are labelled :math:`y`; an image may
   serve several classes.
2. On these, generator and discriminator play the hinge game, and the generator also answers to the target:

.. math::
    L_D &= E \max(0, 1 - D(x, y)) + E \max(0, 1 + D(G(z, y), y)) \\
    L_G &= -E D(G(z, y), y) + \alpha \, E L_{mm}(T(A(G(z, y))), y), \qquad L_{mm} = -l_y + \max_{k \ne y} l_k

with :math:`y` uniform and :math:`A` random views. :math:`G` is a residual network with class-conditional batch norm;
:math:`D` one with spectral normalisation whose output is :math:`w^T h(x) + \langle e_y, h(x) \rangle` (Miyato and
Koyama, cGANs with Projection Discriminator, ICLR 2018). Networks compute in [-1, 1] (tanh); images outside are in
[0, 1]: :meth:`ProjectionCganNetworks.generate_class` and :meth:`~ProjectionCganNetworks.critic_class` alone convert.

Deviations: the authors' 64x64 networks have four doublings; for other sizes their number follows the size. Views are
mirrored only where the dataset says that a mirrored image shows the same class.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu
from torch.nn.utils.parametrizations import spectral_norm

from mibench.access import WhiteBoxView
from mibench.card import PriorCard
from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.model import ClassPrior, LatentPrior
from mibench.nn.adversarial import fitted, refuse_oblong, step_along
from mibench.optim.augmentation import gentle
from mibench.optim.descent import in_chunks
from mibench.optim.identity import max_margin
from mibench.optim.selection import best_candidates
from mibench.options import Count, NonNegative, Positive
from mibench.priors.base import ImagePrior, PriorData, adams
from mibench.seeding import derive, generator

#: Public images of which the victim is asked at once.
CHUNK = 512


class ClassNorm(nn.Module):
    """Batch norm with a gain and a bias of each class.

    Args:
        channels: Channels of its input.
        classes: Number of classes.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, h: Tensor, labels: Tensor) -> Tensor:
        """Return normalised features ``(N, channels, h, w)`` for class ids ``(N,)``."""
        result: Tensor = self.gain(labels)[:, :, None, None] * self.norm(h) + self.bias(labels)[:, :, None, None]
        return result


class GrowingBlock(nn.Module):
    """A residual block that doubles the size, given the class."""

    def __init__(self, before: int, after: int, classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([ClassNorm(before, classes), ClassNorm(after, classes)])
        self.convs = nn.ModuleList([_conv(before, after, 3), _conv(after, after, 3)])
        self.shortcut = _conv(before, after, 1)

    def forward(self, h: Tensor, labels: Tensor) -> Tensor:
        """Return features of twice the size."""
        inner = self.convs[0](interpolate(relu(self.norms[0](h, labels)), scale_factor=2))
        inner = self.convs[1](relu(self.norms[1](inner, labels)))
        result: Tensor = inner + self.shortcut(interpolate(h, scale_factor=2))
        return result


class ShrinkingBlock(nn.Module):
    """A spectrally normalised residual block that halves the size; the first one sees pixels and does not rectify them.

    Args:
        before: Channels of its input.
        after: Channels of its output.
        first: Whether it is the first.
    """

    def __init__(self, before: int, after: int, first: bool) -> None:
        super().__init__()
        self.first = first
        middle = after if first else before
        self.convs = nn.ModuleList([spectral_norm(_conv(before, middle, 3)), spectral_norm(_conv(middle, after, 3))])
        self.shortcut = spectral_norm(_conv(before, after, 1))

    def forward(self, h: Tensor) -> Tensor:
        """Return features of half the size."""
        inner = self.convs[1](relu(self.convs[0](h if self.first else relu(h))))
        return avg_pool2d(inner, 2) + avg_pool2d(self.shortcut(h), 2)


class ProjectionCganNetworks(ClassPrior):
    """Generator and discriminator.

    Args:
        shape: Image shape ``(C, H, W)``, square; sizes 4 * 2^n are native, others are resized.
        classes: Number of the victim's classes.
        latent_dim: Dimension of z.
        width: Channels next to the image (64 in the paper).
    """

    name = "projection_cgan"

    def __init__(self, shape: tuple[int, ...], classes: int, latent_dim: int, width: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.classes = classes
        self.latent_dim = latent_dim
        self.size = (height, breadth)
        doublings = max(1, math.ceil(math.log2(max(height, breadth) / 4)))
        self.native = 4 * 2**doublings
        widths = [width * 2**i for i in range(doublings + 1)]
        self.seed_map = nn.Linear(latent_dim, widths[-1] * 16)
        self.grow = nn.ModuleList([GrowingBlock(before, after, classes) for before, after in pairwise(widths[::-1])])
        self.paint = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), _conv(width, channels, 1), nn.Tanh())
        self.judge = nn.Sequential(
            *[ShrinkingBlock(*pair, first=i == 0) for i, pair in enumerate(pairwise([channels, *widths]))], nn.ReLU()
        )
        self.real = spectral_norm(nn.Linear(widths[-1], 1))
        self.of_class = spectral_norm(nn.Embedding(classes, widths[-1]))

    @property
    def makers(self) -> nn.ModuleList:
        """The modules of the generator."""
        return nn.ModuleList([self.seed_map, self.grow, self.paint])

    @property
    def judges(self) -> nn.ModuleList:
        """The modules of the discriminator."""
        return nn.ModuleList([self.judge, self.real, self.of_class])

    def generate_class(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return images of shape ``(N, C, H, W)`` in [0, 1]."""
        h = self.seed_map(z).unflatten(1, (-1, 4, 4))
        for block in self.grow:
            h = block(h, labels)
        return fitted((self.paint(h) + 1) / 2, self.size).clamp(0, 1)

    def critic_class(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the discriminator's score of images in [0, 1], shape ``(N,)``."""
        h = self.judge(2 * fitted(x, (self.native, self.native)) - 1).sum((2, 3))
        score: Tensor = self.real(h)[:, 0] + (self.of_class(labels) * h).sum(1)
        return score


class ProjectionCgan(ImagePrior):
    """Class-conditional SN-ResNet GAN, trained against the discriminator and the victim."""

    card = PriorCard(
        name="projection_cgan",
        title="Pseudo-label-guided cGAN",
        modalities=("image",),
        year=2023,
        bib="plgmi",
        code="https://github.com/LetheSec/PLG-MI-Attack",
        fidelity="official",
        spaces=("class",),
        asks="white_box",
    )

    top: Count = 30
    """Public images that are labelled with each class (the paper's n)."""
    iterations: Count = 30_000
    """Generator steps."""
    margin_weight: NonNegative = 0.2
    """Weight of the victim's max-margin loss (alpha)."""
    latent_dim: Count = 128
    """Dimension of z."""
    width: Count = 64
    """Channels next to the image."""
    lr: Positive = 2e-4
    """Adam's learning rate for both networks."""
    n_critic: Count = 5
    """Discriminator steps per generator step."""
    flip: bool | None = None
    """Whether half of the views that the victim is asked of are mirrored; null: where that shows the same class."""

    def network(self, spec: InputSpec) -> ProjectionCganNetworks:
        """Return the untrained networks."""
        refuse_oblong("prior=projection_cgan", spec)
        return ProjectionCganNetworks(spec.shape, spec.classes, self.latent_dim, self.width)

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Label public images with the victim's scores and train generator and discriminator on them."""
        assert isinstance(network, ProjectionCganNetworks) and data.view is not None
        view, draws = data.view, generator(derive(seed, "projection_cgan"), device)
        views = gentle(self.mirrors(data))
        labelled = self.labelled(data.public.x, view)
        makers, judges = network.makers, network.judges
        adam = adams(self.lr, (0.0, 0.9), adam_g=makers, adam_d=judges)

        def made() -> tuple[Tensor, Tensor]:
            labels = torch.randint(network.classes, (self.batch_size,), generator=draws, device=device)
            return network.generate_class(network.sample_latent(len(labels), draws), labels), labels

        network.train()
        for _ in data.checkpoints.steps(self.iterations, "prior projection_cgan", network=network, **adam, draws=draws):
            fake, labels = made()
            margin = max_margin(view.logits(views(fake, draws)), labels).mean()
            loss = self.margin_weight * margin - network.critic_class(fake, labels).mean()
            step_along(adam["adam_g"], loss, makers)
            for _ in range(self.n_critic):
                real = labelled[torch.randint(len(labelled), (self.batch_size,), generator=draws, device=device)]
                noise = torch.rand(real.x.shape, generator=draws, device=device) / 512  # 1/256 of the range [-1, 1]
                with torch.no_grad():
                    fake, labels = made()
                loss = relu(1 - network.critic_class(real.x + noise, real.y)).mean()
                loss = loss + relu(1 + network.critic_class(fake, labels)).mean()
                step_along(adam["adam_d"], loss, judges)

    @torch.no_grad()
    def labelled(self, public: Tensor, view: WhiteBoxView) -> Examples:
        """Return for each class the ``top`` public images that the victim scores highest, labelled with it.

        Raises:
            UserError: If there are fewer public images.
        """
        if len(public) < self.top:
            raise UserError(
                f"prior=projection_cgan labels {self.top} public images with each class, but there are only "
                f"{len(public)}; set prior.top to at most that."
            )
        scores = in_chunks(lambda x: view.logits(x).softmax(1), CHUNK, public)
        rows = best_candidates(scores, self.top).T
        labels = torch.arange(len(rows), device=public.device).repeat_interleave(self.top)
        return Examples(public[rows.flatten()], labels)


def _conv(before: int, after: int, kernel: int) -> nn.Conv2d:
    """Return a convolution that keeps the size; 3x3 ones, before a rectifier, start with a gain of sqrt(2)."""
    conv = nn.Conv2d(before, after, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight, math.sqrt(2) if kernel == 3 else 1.0)
    return conv
