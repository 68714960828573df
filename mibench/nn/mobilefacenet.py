"""MobileFaceNet: a small face embedding, an independent judge of whether two pictures show one person.

S. Chen, Y. Liu, X. Gao and Z. Han, MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices, CCBR 2018. The architecture, with the layer names of the weights of Xiaoccer/MobileFaceNet_Pytorch
(``068.ckpt``, learned from CASIA-WebFace, 99.30 % on aligned LFW by their README; no licence is stated, so each user
fetches them). CASIA-WebFace holds celebrities: a few may be private people of LFW or CelebA.

It takes 112 high, 96 wide colour faces as ``(levels - 127.5) / 128``. Pictures are in [0, 1] here, and ``region`` says
which part of them is shown: by default the central 96 columns of LFW's 112x112 crop, undistorted, with which one
person's pictures are more alike than two persons' in about 0.99 of all cases. Measure this for another dataset's crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from mibench.nn.faces import FaceEmbedding, shown
from mibench.storage.fetching import checked_weights
from mibench.storage.judge_files import MOBILEFACENET

FILE = MOBILEFACENET.path

SHA256 = MOBILEFACENET.sha256

SOURCE = MOBILEFACENET.url

#: Left, top, right and bottom of the face in LFW's crop, as shares of it.
LFW_REGION = (1 / 14, 0.0, 13 / 14, 1.0)

#: Expansion, channels, repetitions and first stride of the inverted residuals.
PLAN = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))

HEIGHT, WIDTH = 112, 96


class _Convolution(nn.Module):
    """Convolution, batch norm and, unless ``linear``, PReLU."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(after)
        self.prelu = nn.Identity() if linear else nn.PReLU(after)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.prelu(self.bn(self.conv(x)))
        return result


class _Bottleneck(nn.Module):
    """Inverted residual: widen, convolve each channel, narrow; with a shortcut where the shape stays."""

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.conv = nn.Sequential(
            nn.Conv2d(before, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            nn.Conv2d(inner, after, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return x + result if self.shortcut else result


class MobileFaceNet(FaceEmbedding):
    """The embedding; untrained until :func:`load` fills it."""

    def __init__(self, region: Sequence[float] = LFW_REGION) -> None:
        super().__init__(region)
        self.conv1 = _Convolution(3, 64, 3, 2, 1)
        self.dw_conv1 = _Convolution(64, 64, 3, 1, 1, groups=64)
        blocks, before = [], 64
        for expansion, after, count, stride in PLAN:
            for index in range(count):
                blocks.append(_Bottleneck(before, after, stride if index == 0 else 1, expansion))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = _Convolution(before, 512, 1)
        self.linear7 = _Convolution(512, 512, (HEIGHT // 16, WIDTH // 16), groups=512, linear=True)
        self.linear1 = _Convolution(512, 128, 1, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return unit embeddings ``(N, 256)`` of images ``(N, C, H, W)`` in [0, 1] and of their mirror images.

        The inner product of two is their cosine similarity.
        """
        face = (self.shown(x) * 255 - 127.5) / 128
        both = torch.cat([self.embedded(face), self.embedded(face.flip(3))], 1)
        return nn.functional.normalize(both)

    def shown(self, x: Tensor) -> Tensor:
        """Return the region of images as the network takes it: 3 channels, 112x96 pixels (bilinear), in [0, 1]."""
        return shown(x, self.region, HEIGHT, WIDTH)

    def embedded(self, face: Tensor) -> Tensor:
        """Return the network's own output ``(N, 128)`` for inputs ``(N, 3, 112, 96)`` in its range."""
        h = self.blocks(self.dw_conv1(self.conv1(face)))
        result: Tensor = self.linear1(self.linear7(self.conv2(h))).flatten(1)
        return result


def load(folder: Path, region: Sequence[float] = LFW_REGION) -> MobileFaceNet:
    """Return the embedding with the published weights, frozen, in evaluation mode; nothing is executed.

    Args:
        folder: Where their file lies, itself or in a folder ``mobilefacenet``.
        region: As of :class:`MobileFaceNet`.

    Raises:
        WeightsMissingError: If the file is not there, or is not the published one.
    """
    own = folder / "mobilefacenet" / FILE
    path = own if own.is_file() else folder / FILE
    checked_weights("The face embedding", path, SOURCE, SHA256)
    network = MobileFaceNet(region)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["net_state_dict"])
    return network.requires_grad_(False).eval()
