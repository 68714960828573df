"""A judge of identity that no evaluation model has a part in: the nearest real image, with a calibrated threshold.

Images are compared as unit vectors: their pixels, or what a face embedding makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from mibench.data import Population

CHUNK = 512

#: Images are compared at no more pixels per side than this, so that texture has no say.
SIDE = 16


def embedded(images: Tensor) -> Tensor:
    """Return images ``(N, C, H, W)`` at most 16 pixels a side, less their mean, at unit length: ``(N, F)``."""
    height, width = (min(side, SIDE) for side in images.shape[-2:])
    small = adaptive_avg_pool2d(images.float().cpu(), (height, width)).flatten(1)
    return normalize(small - small.mean(1, keepdim=True))


@dataclass(frozen=True)
class Judge:
    """Accepts an image as one of a class where it is nearer than ``threshold`` to some real image of that class.

    Attributes:
        gallery: Embedded real images ``(n, F)``.
        labels: Their classes ``(n,)``.
        classes: Number of classes.
        threshold: A distance, from 0 (equal, of pixels up to brightness and contrast) to 2 (inverted).
        embed: Maps images ``(N, C, H, W)`` to unit vectors ``(N, F)``, on the CPU.
    """

    gallery: Tensor
    labels: Tensor
    classes: int
    threshold: float = float("inf")
    embed: Callable[[Tensor], Tensor] = embedded

    def distances(self, images: Tensor) -> Tensor:
        """Return the distance of images ``(N, C, H, W)`` to the nearest one of every class, ``(N, classes)``."""
        rows = []
        for part in images.split(CHUNK):
            to_all = torch.cdist(self.embed(part), self.gallery)
            nearest = torch.full((len(part), self.classes), float("inf"))
            index = self.labels.expand(len(part), -1)
            rows.append(nearest.scatter_reduce(1, index, to_all, "amin"))
        return torch.cat(rows)

    def accepts(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return whether each image ``(N, C, H, W)`` passes for its label ``(N,)``, shape ``(N,)``."""
        return self.distances(images).gather(1, labels[:, None])[:, 0] < self.threshold


def calibrated(private: Population, false_accepts: float, embed: Callable[[Tensor], Tensor] = embedded) -> Judge:
    """Return a judge that passes at most that share of pairs (test image, class it does not show).

    Args:
        private: Real images: the training part is the gallery, the test part makes the pairs.
        false_accepts: The share, between 0 and 1.
        embed: Maps images ``(N, C, H, W)`` to unit vectors ``(N, F)``, on the CPU.

    Raises:
        ValueError: If there is no such pair.
    """
    classes = int(max(private.train.y.max(), private.test.y.max())) + 1
    judge = Judge(embed(private.train.x), private.train.y.cpu(), classes, embed=embed)
    distance, shown = judge.distances(private.test.x), private.test.y.cpu()
    strangers = distance[torch.arange(classes) != shown[:, None]]
    strangers = strangers[strangers.isfinite()]
    if not len(strangers):
        raise ValueError("There is no pair of a test image and a class that it does not show.")
    threshold = strangers.kthvalue(int(false_accepts * len(strangers)) + 1).values
    return replace(judge, threshold=float(threshold))
