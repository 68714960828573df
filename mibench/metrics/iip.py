r"""IIP: image identifiability precision (Yin et al., See through Gradients, CVPR 2021).

Can the reconstruction be traced to its source? Each is compared with all private training images of the source's class;
it is a hit where none of them is as near as the source itself, and

.. math:: \mathrm{IIP} = \frac{1}{n} \sum_i
          \big[\, d(\hat x_i, x_i) < \min_{c \ne x_i,\; y_c = y_i} d(\hat x_i, c) \,\big].

The source of a reconstruction is the image it was matched with, one to one. Three distances, the three of the library
``breaching``:

- ``pixel``: Euclidean;
- ``victim``: cosine distance of the attacked model's own penultimate features. An attack that matches the gradients of
  this very model has an advantage there; read it beside the other two;
- ``lpips``: LPIPS with AlexNet, as of the metric ``lpips``; skipped where the backbone's file is missing.

Copies of the source (nearer than 0.001 in pixels) are the source, so that a duplicate in the data costs no hit. What a
guess would hit stands beside as the yardstick ``chance``: one over the number of images that a source is told apart
from, itself included. A source without others in its class would be a hit for any answer and is left out, so that the
number of values is that of the sources that count. A missing image is no hit.

Deviations: Yin et al. search the whole original data; breaching searches the images of the label that the attack
reports, here it is the true one, so that a wrong label is ``label_accuracy``'s matter alone. Of two images equally near
neither is identified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError, WeightsMissingError
from mibench.metrics.base import Measurement, WeightsMetric
from mibench.metrics.lpips import Lpips
from mibench.nn.features import penultimate
from mibench.nn.neighbourhoods import distances
from mibench.storage.fetching import Download
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth

#: Images whose Euclidean distance is smaller are one and the same.
SAME = 1e-3

#: Private images that are embedded and compared at a time.
PART = 64

Embedding = Callable[[Tensor], Tensor]


class Iip(WeightsMetric[InstanceTruth]):
    """Share of reconstructions that are nearer to their source than to any other private image of its class."""

    card = MetricCard(
        name="iip",
        title="Image identifiability precision",
        modalities=("image",),
        year=2021,
        code="https://github.com/JonasGeiping/breaching",
        fidelity="paper",
        tasks=("instance",),
        higher_is_leakier=True,
        default=False,
    )
    downloads = (
        Download(
            path="alexnet-owt-7be5be79.pth",
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            sha256="7be5be79",
        ),
    )

    @cached_property
    def lpips(self) -> Lpips:
        """The metric whose network gives one of the distances."""
        return Lpips(net="alex", weights=self.weights)

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> list[Measurement]:
        """Return whether each reconstruction is a hit, shape ``(N,)``, for every distance, and the yardstick.

        Raises:
            NotMeasurableError: If the data around the batch are not known, or no source has others in its class.
        """
        if truth.private is None:
            raise NotMeasurableError("IIP searches the private training data, and the cell has none.")
        pool = truth.private.train
        embeddings, missing = self._embeddings(truth)
        rivals = torch.zeros(len(result), dtype=torch.long)
        hits = {name: torch.zeros(len(result), dtype=torch.bool) for name in embeddings}
        for label in truth.y.unique():
            own = truth.y == label
            found, rivals[own] = identified(result.values[own], truth.x[own], pool.x[pool.y == label], embeddings)
            for name, hit in found.items():
                hits[name][own] = hit & ~result.missing[own]
        counts = rivals > 0
        if not bool(counts.any()):
            raise NotMeasurableError("No image of the batches has another private training image in its class.")
        groups = truth.target[counts]
        measured = [
            Measurement(
                values=hit[counts].double(),
                groups=groups,
                variant=name,
                evaluator=self.lpips.evaluator if name == "lpips" else "",
            )
            for name, hit in hits.items()
        ]
        if missing:
            measured.append(Measurement(values=torch.empty(0), groups=groups, variant="lpips", reason=missing))
        chance = 1 / (1 + rivals[counts].double())
        return [*measured, Measurement(values=chance, groups=groups, variant="chance", yardstick=True)]

    def _embeddings(self, truth: InstanceTruth) -> tuple[Mapping[str, Embedding], str]:
        """Return what images are compared as, by name, and why there is no LPIPS where there is none."""
        embeddings: dict[str, Embedding] = {"pixel": lambda images: images.flatten(1).double()}
        if truth.victim is not None:
            victim = truth.victim
            embeddings["victim"] = lambda images: normalize(penultimate(victim, images))
        try:
            _ = self.lpips.evaluator
        except WeightsMissingError as missing:
            return embeddings, str(missing)
        return {**embeddings, "lpips": lambda images: self.lpips.embeddings(images).double()}, ""


def identified(
    made: Tensor, true: Tensor, pool: Tensor, embeddings: Mapping[str, Embedding]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return whether each reconstruction is nearer to its source than to any other image of the pool.

    Args:
        made: Reconstructions of shape ``(n, C, H, W)``.
        true: Their sources, of the same shape.
        pool: Images of shape ``(m, C, H, W)``; copies of a source among them are no others.
        embeddings: Maps images to vectors ``(., F)`` whose Euclidean distances count, by name.

    Returns:
        Hits of shape ``(n,)`` by name of the embedding, and the number of other images, shape ``(n,)``.
    """
    embedded = {name: embed(made) for name, embed in embeddings.items()}
    to_source = {name: (embedded[name] - embed(true)).norm(dim=1) for name, embed in embeddings.items()}
    to_others = {name: torch.full_like(near, torch.inf) for name, near in to_source.items()}
    others = torch.zeros(len(true), dtype=torch.long)
    for part in pool.split(PART):
        copies = distances(true.flatten(1).double(), part.flatten(1).double()) < SAME
        others += (~copies).sum(1)
        for name, embed in embeddings.items():
            nearest = distances(embedded[name], embed(part)).masked_fill(copies, torch.inf).amin(1)
            to_others[name] = torch.minimum(to_others[name], nearest)
    return {name: to_source[name] < to_others[name] for name in embeddings}, others
