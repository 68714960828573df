r"""Patch-MI: a generator for each class whose patches, not whole images, must look like public ones.

Jang, Lyu and Yang, Patch-MI: Enhancing Model Inversion Attacks via Patch-Based Reconstruction, arXiv 2023; official
code https://github.com/jonggyujang0123/Patch-Attack (``PatAtt_v4``). The attacker owns the target's weights and public
images, which may be quite unlike the private ones. For each class :math:`y` a generator and a patch discriminator are
trained from scratch, one step of each in turn:

.. math::
    L_D &= \mathrm{BCE}(D(x), 1 - \epsilon) + \mathrm{BCE}(D(G(z)), 0) \\
    L_G &= \mathrm{BCE}(D(G(z)), 1) + \lambda \, \mathrm{CE}(T(A(G(z))), y)

:math:`D` embeds patches by one strided convolution, judges each by 1x1 convolutions and averages the logits, so that
it knows what a patch looks like and not where patches belong; that is left to the target. :math:`A` gives the plain
image and random views of it, each with its own loss. Samples of the trained generators are the result.

Deviations: the authors' discrete code, which splits a class into modes, is left out; it is off (one mode) in their
digits setting, from which the defaults are. Their 30 epochs depend in steps on the auxiliary set; ``iterations``
counts steps, and its default is 30 epochs of 60,000 images. The learning rate is constant, as in ``PatAtt_v4``, where
every schedule is commented out; ``schedule=linear`` is that of the authors' earlier versions (``legacy``), for both
networks: with :math:`N` steps, of which :math:`W` are the ``warmup``, step :math:`t = 0, 1, \dots` has the factor
:math:`t / W` below :math:`W` and :math:`(N - t) / (N - W)` from there on. Inferred: the number of views beside the
plain image, the place of instance norm among the 1x1 convolutions, and weights that start from N(0, 0.02^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.lr_scheduler import LambdaLR

from mibench.access import WhiteBoxView
from mibench.attacks.base import AttackCard, ClassGoal, ClassSearch, Knowledge, Reconstruction
from mibench.errors import UserError
from mibench.nn.adversarial import fitted, random_images, step_along
from mibench.optim.augmentation import Views
from mibench.options import Count, CountOrNone, Decay, NonNegative, Portion, Positive, option
from mibench.precision import widened


class PatchGenerator(nn.Module):
    """Grows a quarter of the size twice.

    Args:
        shape: Image shape ``(C, H, W)``.
        latent_dim: Dimension of z.
        width: Channels next to the image.
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, width: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.size = (height, breadth)
        start = (max(1, height // 4), max(1, breadth // 4))
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, 4 * width, start), nn.LeakyReLU(0.1)]
        for before, after in ((4 * width, 2 * width), (2 * width, width)):
            layers += [nn.Upsample(scale_factor=2)]
            for entering in (before, after):
                layers += [nn.Conv2d(entering, after, 3, 1, 1), nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, 1, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [0, 1] for latents ``(N, latent_dim)``."""
        images: Tensor = (self.layers(z[:, :, None, None]) + 1) / 2
        return fitted(images, self.size).clamp(0, 1)


class PatchDiscriminator(nn.Module):
    """Judges patches one by one and averages.

    Args:
        shape: Image shape ``(C, H, W)``.
        patch: Side of a patch.
        stride: Pixels between patches.
        padding: Pixels added on each side.
        width: Channels.
    """

    def __init__(self, shape: tuple[int, ...], patch: int, stride: int, padding: int, width: int) -> None:
        super().__init__()
        channels, *sides = shape
        down, across = ((side + 2 * padding - patch) // stride + 1 for side in sides)
        several = down * across > 1  # one patch has no statistics over patches
        layers: list[nn.Module] = [nn.Conv2d(channels, width, patch, stride, padding), nn.LeakyReLU(0.1)]
        for _ in range(3):
            norm = nn.InstanceNorm2d(width) if several else nn.Identity()
            layers += [nn.Conv2d(width, width, 1), norm, nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logit of the patches of images in [0, 1], shape ``(N,)``; larger is more like public."""
        logits: Tensor = self.layers(2 * x - 1)
        return logits.mean((1, 2, 3))


class PatchMi(ClassSearch):
    """One generator per class, trained against a patch discriminator and the target."""

    card = AttackCard(
        name="patchmi",
        title="Patch-MI",
        modalities=("image",),
        year=2023,
        code="https://github.com/jonggyujang0123/Patch-Attack",
        fidelity="reconstruction",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public",),
    )
    length = ("iterations", "warmup")

    iterations: Count = 28_125
    """Steps of each class's two networks."""
    schedule: Literal["constant", "linear"] = option("constant", since=2)
    """Learning rate of both networks: ``constant``, or ``linear`` (up over ``warmup``, then down to 0)."""
    warmup: CountOrNone = option(100, since=2)
    """First steps of ``schedule=linear``, over which the learning rate rises."""
    patch: Count = 6
    """Side of a patch."""
    stride: Count = 2
    """Pixels between patches."""
    padding: CountOrNone = 2
    """Pixels added on each side of the image."""
    smoothing: Decay = 0.6
    """What a public image's label lacks of 1."""
    identity_weight: NonNegative = 30.0
    """Weight of the target's cross-entropy."""
    views: CountOrNone = 1
    """Random views of which the target is asked beside the plain image."""
    rotation: NonNegative = 20.0
    """Most degrees that a view is turned."""
    crop: Portion = 0.85
    """Least share of the area that a view keeps."""
    batch_size: Count = 64
    """Images per step."""
    lr: Positive = 1e-3
    """Adam's learning rate for both networks."""
    latent_dim: Count = 100
    """Dimension of z."""
    generator_width: Count = 64
    """Channels of the generator next to the image."""
    discriminator_width: Count = 256
    """Channels of the discriminator."""

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        if self.patch > min(view.spec.shape[1:]) + 2 * self.padding:
            raise UserError(f"attack.patch={self.patch} is larger than the images; set attack.patch to fit into them.")
        classes = [_Class(self, view, label) for label in goal.targets.tolist()]
        for _ in self.steps(self.iterations):
            for one in classes:
                one.step(self, view, knowledge.public.x)
            self.keep(partial(self._sampled, view, goal, classes))
        return self._sampled(view, goal, classes)

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at a step, counted from 0."""
        if self.schedule == "constant":
            return 1.0
        if step < self.warmup:
            return step / self.warmup
        return max(0.0, (self.iterations - step) / max(1, self.iterations - self.warmup))

    def identity_of(self, view: WhiteBoxView, images: Tensor, label: int, draws: torch.Generator) -> Tensor:
        """Return the identity loss of the plain images and their random views, a scalar."""
        view_of = Views(scale=(self.crop, 1.0), rotation=self.rotation)
        seen = torch.cat([images, *(view_of(images, draws) for _ in range(self.views))])
        return self.identify(view, seen, torch.full((len(seen),), label, device=seen.device)).mean()

    @torch.no_grad()
    def _sampled(self, view: WhiteBoxView, goal: ClassGoal, classes: Sequence[_Class]) -> Reconstruction:
        images = []
        for one in classes:
            draws = self.draws(view.device, "samples", one.label)
            z = torch.randn(goal.samples, self.latent_dim, generator=draws, device=view.device)
            images.append(one.generator.eval()(z))
        return Reconstruction(torch.cat(images), goal.labels.to(view.device))


class _Class:
    """The two networks of one class, which know nothing of other classes."""

    def __init__(self, attack: PatchMi, view: WhiteBoxView, label: int) -> None:
        shape, device = view.spec.shape, view.device
        self.label = label
        self.draws = attack.draws(device, "training", label)
        self.generator = PatchGenerator(shape, attack.latent_dim, attack.generator_width).to(device)
        self.discriminator = PatchDiscriminator(
            shape, attack.patch, attack.stride, attack.padding, attack.discriminator_width
        ).to(device)
        for module in (*self.generator.modules(), *self.discriminator.modules()):
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                nn.init.normal_(module.weight, 0, 0.02, generator=self.draws)
                nn.init.zeros_(module.bias)
        self.adam_g, self.adam_d = (
            torch.optim.Adam(network.parameters(), lr=attack.lr, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )
        self.schedules = [LambdaLR(adam, attack.factor) for adam in (self.adam_g, self.adam_d)]

    def step(self, attack: PatchMi, view: WhiteBoxView, public: Tensor) -> None:
        """Take one step of the discriminator, then one of the generator on the same images."""
        real = random_images(public, attack.batch_size, False, self.draws)
        fake = self.generator(torch.randn(len(real), attack.latent_dim, generator=self.draws, device=view.device))
        loss = self._bce(real, 1 - attack.smoothing) + self._bce(fake.detach(), 0.0)
        step_along(self.adam_d, loss, self.discriminator)
        identity = attack.identity_of(view, fake, self.label, self.draws)
        step_along(self.adam_g, self._bce(fake, 1.0) + attack.identity_weight * identity, self.generator)
        for schedule in self.schedules:
            schedule.step()

    def _bce(self, images: Tensor, target: float) -> Tensor:
        logits = widened(self.discriminator(images))
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
