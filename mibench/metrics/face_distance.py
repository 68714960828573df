r"""Face distance: how far a reconstruction lies from the private faces of its person, by a network of face recognition.

.. math:: d(\hat x, x) = 1 - \langle e(\hat x), e(x) \rangle

with unit embeddings :math:`e` of a small public network (:mod:`mibench.nn.mobilefacenet`): 0 for equal faces, about 1
for strangers, half the squared Euclidean distance of the embeddings. The network never saw the victim or its training,
unlike the evaluation models. PPA (Struppek et al., ICML 2022) reports the like as its face distance, with FaceNet,
squared Euclidean distances and the nearest image; numbers under another embedding cannot be compared with these.

Rows: the distance to the ``nearest`` private training image of the class and the ``mean`` over all of them; and two
yardsticks, both to the nearest image: ``same_person``, of private test images to their own class, and
``other_people``, of those to the other classes. A reconstruction as near as ``same_person`` is as good a likeness as
another photograph; where the yardsticks lie close together the embedding cannot read the images (too few pixels,
another crop: ``region``) and the rest says nothing.

Images are enlarged bilinearly to the network's 112x96 pixels, which the variant says (``nearest, from 32 px``). All
classes weigh the same. A missing sample arrives as a mid-grey image and is measured as such. Datasets that do not say
that they show faces are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.base import Measurement
from mibench.metrics.families.faces import OfFaces, enlarged
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class FaceDistance(OfFaces):
    """Cosine distance of face embeddings to the private training images of the class; 0 for equal images."""

    card = MetricCard(
        name="face_distance",
        title="Face distance",
        modalities=("image",),
        year=2022,
        bib="ppa",
        code="https://github.com/LukasStruppek/Plug-and-Play-Attacks",
        fidelity="reconstruction",
        tasks=("class",),
        higher_is_leakier=False,
        default=False,
    )

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return two distances per sample, shape ``(N,)``, and the yardsticks, one value per test image.

        Raises:
            NotMeasurableError: If the dataset shows no faces.
            WeightsMissingError: If the embedding's file is not there, or is another than the published one.
        """
        self.require_faces(truth)
        train, test = truth.private.train, truth.private.test
        gallery = self.embed(train.x).double()
        samples, real = (distances(self.embed(x).double(), gallery, train.y) for x in (result.values, test.x))
        own, others = _own_and_others(real[0], test.y)
        said = f", {small}" if (small := enlarged(result.values)) else ""
        measured = [
            Measurement(
                values=by_class.gather(1, result.target.cpu()[:, None])[:, 0],
                groups=result.target,
                variant=f"{name}{said}",
                evaluator=self.evaluator,
            )
            for name, by_class in zip(("nearest", "mean"), samples, strict=True)
        ]
        for name, values in (("same_person", own), ("other_people", others)):
            known = values.isfinite()
            measured.append(
                Measurement(
                    values=values[known],
                    groups=test.y.cpu()[known],
                    variant=f"{name}{said}",
                    evaluator=self.evaluator,
                    reason="" if known.any() else "There are no test images to measure this on.",
                    yardstick=True,
                )
            )
        return measured


def distances(faces: Tensor, gallery: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distances of faces to the nearest image of every class and to the mean of it, each ``(N, classes)``.

    Args:
        faces: Unit embeddings ``(N, F)``.
        gallery: Unit embeddings of real images ``(n, F)``.
        labels: Their classes ``(n,)``; a class without images is infinitely far.
    """
    each = 1 - faces @ gallery.T
    index = labels.cpu().expand(len(faces), -1)
    far = torch.full((len(faces), int(labels.max()) + 1), float("inf"), dtype=each.dtype)
    nearest, mean = (far.scatter_reduce(1, index, each, how, include_self=False) for how in ("amin", "mean"))
    return nearest, mean


def _own_and_others(nearest: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the own class and the mean of those to all others, each ``(N,)``."""
    shown = labels.cpu()[:, None]
    own = nearest.gather(1, shown)[:, 0]
    others = nearest.scatter(1, shown, float("nan"))
    return own, others.nanmean(1)
