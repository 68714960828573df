r"""LPIPS: learned perceptual image patch similarity (Zhang, Isola, Efros, Shechtman and Wang, CVPR 2018), version 0.1.

A network pre-trained on ImageNet sees both images; at every layer :math:`l` the channel vectors are scaled to
unit length, and

.. math:: \mathrm{LPIPS}(\hat x, x) = \sum_l \operatorname{mean}_{h,w} \sum_c w_{lc} (\hat\phi_{lchw} - \phi_{lchw})^2

with weights :math:`w` fitted to human judgements. Those weights travel with the authors' package ``lpips``; the
backbone does not, and is read from ``weights``. Without the published backbone, recognised by its SHA-256,
there is no LPIPS: nothing is downloaded and no random network takes its place, because the number would look
right and mean nothing. The checksum's first twelve digits are recorded (``alex:7be5be791159``).

Grey images are repeated to three channels. Images with a side under 32 pixels are enlarged bilinearly until
that side has 64, which the variant ``upsampled64`` says; otherwise alex's last layers would see next to nothing. Those
of 32 pixels, of which most published figures are, stay as they are. Where part of the image was known, the box around
what was hidden is compared too (``hole``).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, WeightsMetric, compared
from mibench.seeding import seeded
from mibench.storage.fetching import Download, checked_weights
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth

#: The published backbones. The last part of a name is the beginning of the file's SHA-256.
BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}

SOURCE = "https://download.pytorch.org/models/"

#: Images with a smaller side are enlarged, so that it becomes ``ENLARGED_SIDE``.
SMALLEST_SIDE = 32

ENLARGED_SIDE = 64


class Lpips(WeightsMetric[InstanceTruth]):
    """LPIPS per image; 0 for equal images."""

    card = MetricCard(
        name="lpips",
        title="LPIPS",
        modalities=("image",),
        year=2018,
        code="https://github.com/richzhang/PerceptualSimilarity",
        fidelity="official",
        tasks=("instance", "completion"),
        higher_is_leakier=False,
        revision=2,
    )
    downloads = (
        Download(
            path="alexnet-owt-7be5be79.pth",
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            sha256="7be5be79",
        ),
    )

    net: Literal["alex", "vgg"] = "alex"
    """Backbone: ``alex`` (what the authors recommend to report) or ``vgg``."""

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return one distance per image, shape ``(N,)``, and one per box around a hole.

        Raises:
            WeightsMissingError: If the backbone's file is not there, or is another than the published one.
        """
        return compared(result, truth, self.distances, form_of, self.evaluator)

    @torch.no_grad()
    def distances(self, made: Tensor, true: Tensor) -> Tensor:
        """Return LPIPS of every pair of images ``(N, C, H, W)``, shape ``(N,)``."""
        network, _ = self._network
        pairs = zip(made.split(32), true.split(32), strict=True)
        return torch.cat([network(_prepared(x), _prepared(y)).flatten() for x, y in pairs])

    @torch.no_grad()
    def embeddings(self, images: Tensor) -> Tensor:
        """Return vectors ``(N, F)`` of images ``(N, C, H, W)`` whose squared Euclidean distances are LPIPS.

        Each layer's unit vectors, times the root of the weights, over the root of the number of positions.
        """
        import lpips

        network, _ = self._network
        embedded = []
        for part in images.split(32):
            layers = network.net(network.scaling_layer(_prepared(part)))
            parts = [
                (lpips.normalize_tensor(layer) * head.model[-1].weight.sqrt()).flatten(1) / layer[0, 0].numel() ** 0.5
                for layer, head in zip(layers, network.lins, strict=True)
            ]
            embedded.append(torch.cat(parts, 1))
        return torch.cat(embedded)

    @property
    def evaluator(self) -> str:
        """The network, with the beginning of its file's checksum.

        Raises:
            WeightsMissingError: If the backbone's file is not there, or is another than the published one.
        """
        return f"{self.net}:{self._network[1][:12]}"

    @cached_property
    def _network(self) -> tuple[Any, str]:
        """The network with the checked backbone, and the SHA-256 of the backbone's file."""
        import lpips

        path = self.folder / BACKBONES[self.net]
        checksum = checked_weights("LPIPS", path, SOURCE)
        with seeded(0), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")  # lpips uses its old options
            network = lpips.LPIPS(net=self.net, version="0.1", pnet_rand=True, verbose=False)
        published = torch.load(path, map_location="cpu", weights_only=True)
        own = network.net.state_dict()
        network.net.load_state_dict({name: published[f"features.{name.split('.', 1)[1]}"] for name in own}, strict=True)
        return network.requires_grad_(False).eval(), checksum


def form_of(images: Tensor) -> str:
    """Return what the variant says of images that are enlarged; empty for others."""
    return f"upsampled{ENLARGED_SIDE}" if min(images.shape[-2:]) < SMALLEST_SIDE else ""


def _prepared(images: Tensor) -> Tensor:
    """Return images in [-1, 1], in colour, with no side under 32 pixels."""
    colour = images.float().expand(-1, 3, -1, -1) if images.shape[1] == 1 else images.float()
    smallest = min(images.shape[-2:])
    if smallest < SMALLEST_SIDE:
        height, width = (round(side * ENLARGED_SIDE / smallest) for side in images.shape[-2:])
        colour = interpolate(colour, (height, width), mode="bilinear", align_corners=False)
    return 2 * colour - 1
