"""The contract of a metric."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError, UserError
from mibench.fetching import Download
from mibench.model import Classifier
from mibench.nn import mobilefacenet
from mibench.nn.features import penultimate
from mibench.nn.neighbourhoods import overlap
from mibench.options import Count, Options
from mibench.tasks.base import Evaluator, Reconstruction, Truth
from mibench.tasks.class_ import ClassTruth
from mibench.tasks.completion import CompletionTruth
from mibench.tasks.instance import InstanceTruth


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measured quantity, before it is averaged.

    Attributes:
        values: One value per reconstruction (or per test example), shape ``(n,)``.
        groups: The target each value belongs to, shape ``(n,)``: the unit over which intervals are taken.
        variant: Which form of the metric (``top1``).
        evaluator: The evaluation model, or the pre-trained network with its checksum.
        unit: Unit of this variant where it is not the card's.
        reason: Why there is no value; ``values`` is empty then.
        yardstick: Whether it tells how to read the metric and does not depend on the reconstruction (a judge's rate of
            false positives); it has neither control nor direction then.
    """

    values: Tensor
    groups: Tensor
    variant: str = ""
    evaluator: str = ""
    unit: str | None = None
    reason: str = ""
    yardstick: bool = False


TruthT = TypeVar("TruthT", bound=Truth)


class Metric(Options, ABC, Generic[TruthT]):
    """A metric. Subclasses have a literal ``card`` and keyword-only options.

    Attributes:
        of_victim: Whether it measures the victim rather than the reconstruction; it has no control then.
        needs_no_truth: Whether it measures where nobody knows what was reconstructed (a captured update).
        downloads: Files of pre-trained networks, a literal like the card; they lie in ``paths.weights``.
    """

    card: ClassVar[MetricCard]
    block: ClassVar[str] = "metric"
    of_victim: ClassVar[bool] = False
    needs_no_truth: ClassVar[bool] = False
    downloads: ClassVar[Sequence[Download]] = ()

    @abstractmethod
    def measure(self, result: Reconstruction, truth: TruthT) -> Sequence[Measurement]:
        """Return the measurements of ``result``, in the order and one to one with the truth where the task pairs them.

        Raises:
            WeightsMissingError: If a pre-trained network is not there; the row is then skipped.
            NotMeasurableError: If the metric is not defined for this cell; the row is then skipped.
        """


def regions(
    result: Reconstruction, truth: InstanceTruth, hole: Callable[[CompletionTruth, Tensor], Tensor]
) -> Sequence[tuple[str, Tensor, Tensor]]:
    """Return variants with the images to compare and the true ones: all of them, and the hole where there is one.

    Args:
        result: Images, one to one with the truth.
        truth: The true images.
        hole: Returns what of images is compared inside the hole: its pixels, or the box around it.
    """
    pairs = [("", result.values, truth.x)]
    if isinstance(truth, CompletionTruth):
        pairs.append(("hole", hole(truth, result.values), hole(truth, truth.x)))
    return pairs


def distances_by_class(
    model: Classifier, result: Reconstruction, truth: ClassTruth, distance: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return ``distance`` of every sample to the private training images of its class, both as penultimate features.

    Args:
        model: The evaluation model.
        result: Samples.
        truth: The private images.
        distance: Maps features of samples ``(n, F)`` and of private images ``(m, F)`` to distances ``(n,)``.

    Returns:
        Distances of shape ``(N,)``, in double precision.
    """
    samples = penultimate(model, result.values)
    distances = torch.empty(len(result), dtype=torch.float64)
    for label in result.target.unique().tolist():
        own = result.target == label
        distances[own] = distance(samples[own], penultimate(model, truth.images_of(label)))
    return distances


def answers(evaluators: Sequence[Evaluator], images: Tensor) -> dict[str, Tensor]:
    """Return every evaluation model's probabilities ``(N, classes)``, by name.

    The last entry is the verdict of all: ``vote``, the mean of their probabilities, or the only model's own.
    """
    probabilities = {one.name: one.model.predict_proba(images).cpu() for one in evaluators}
    if len(probabilities) > 1:
        probabilities["vote"] = torch.stack(list(probabilities.values())).mean(0)
    return probabilities


@dataclass(kw_only=True, eq=False)
class Overlapping(Metric[ClassTruth]):
    """The share, of the four of :mod:`mibench.nn.neighbourhoods`, that bears the card's name.

    Per class, samples against private training images in the penultimate features of each evaluation model.
    """

    neighbours: Count = 3
    """The neighbour that a ball reaches to (k). Classes with at most k + 1 images or samples are left out; the number of values is that of the classes that count."""  # LONG

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return one share per class, shape ``(classes,)``, for each evaluation model."""
        least = self.neighbours + 2
        sizes = [(label, len(truth.images_of(label)), count) for label, count in _counts(result.target)]
        classes = [label for label, real, samples in sizes if min(real, samples) >= least]
        variant = f"k={self.neighbours}"
        if not classes:
            reason = f"No class has {least} private images and {least} samples, which k={self.neighbours} asks for."
            return [Measurement(values=torch.empty(0), groups=torch.empty(0), variant=variant, reason=reason)]
        measured = []
        for one in truth.evaluators:
            samples = penultimate(one.model, result.values)
            shares = [
                getattr(
                    overlap(
                        penultimate(one.model, truth.images_of(label)), samples[result.target == label], self.neighbours
                    ),
                    self.card.name,
                )
                for label in classes
            ]
            values = torch.tensor(shares, dtype=torch.float64)
            measured.append(
                Measurement(values=values, groups=torch.tensor(classes), variant=variant, evaluator=one.name)
            )
        return measured


def _counts(target: Tensor) -> list[tuple[int, int]]:
    labels, counts = target.unique(return_counts=True)
    return list(zip(labels.tolist(), counts.tolist(), strict=True))


@dataclass(kw_only=True, eq=False)
class OfFaces(Metric[ClassTruth]):
    """A metric of what a face embedding sees: :mod:`mibench.nn.mobilefacenet`, read from ``weights`` and checked."""

    weights: Path | None = None
    """Folder of the embedding's file; null means torch's own, ``$TORCH_HOME/hub/checkpoints``."""
    region: Sequence[float] = mobilefacenet.LFW_REGION
    """Left, top, right and bottom of the face in the dataset's images, as shares of them; the default is for LFW's crop. A wrong one shows in the yardsticks."""  # LONG
    assume_faces: bool = False
    """Whether images are faces although their dataset does not say so (``image_folder``)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(region) != 4 or not (region[0] < region[2] and region[1] < region[3]):
            raise UserError(
                f"Expected metric.{self.card.name}.region to be left, top, right and bottom, as shares, but got "
                f"{list(region)}."
            )
        self.weights = Path(torch.hub.get_dir()) / "checkpoints" if weights is None else Path(weights)
        self._seen: dict[bytes, Tensor] = {}

    def require_faces(self, truth: ClassTruth) -> None:
        """Refuse data that are not faces, before any file is asked for.

        Raises:
            NotMeasurableError: With what to do where they are.
        """
        if truth.subject != "face" and not self.assume_faces:
            raise NotMeasurableError(
                "A face embedding says nothing of images that are no faces, and the dataset does not say that these "
                f"are; where they are, set metric.{self.card.name}.assume_faces=true."
            )

    def embed(self, images: Tensor) -> Tensor:
        """Return unit embeddings ``(N, F)`` of images ``(N, C, H, W)``, on the CPU; of the same images only once.

        Result and control are measured against the same real images, of which there are many more.
        """
        content = hashlib.sha256(images.contiguous().cpu().numpy().tobytes()).digest()
        if content not in self._seen:
            self._seen[content] = mobilefacenet.embeddings(self._network, images)
        return self._seen[content]

    @property
    def evaluator(self) -> str:
        """The embedding, with the beginning of its file's checksum."""
        return f"mobilefacenet:{mobilefacenet.SHA256[:12]}"

    @cached_property
    def _network(self) -> nn.Module:
        network = mobilefacenet.load(self.weights, self.region)
        return network.to("cuda" if torch.cuda.is_available() else "cpu")


def enlarged(images: Tensor) -> str:
    """Return what a variant says of images that the face embedding sees enlarged (``from 32 px``), else nothing."""
    side = min(images.shape[-2:])
    return f"from {side} px" if side < mobilefacenet.WIDTH else ""
