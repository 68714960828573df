"""The contract of a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.options import Options
from mibench.storage.fetching import Download
from mibench.tasks.base import Budget, Evaluator, Reconstruction, Truth
from mibench.tasks.completion import CompletionTruth
from mibench.tasks.instance import InstanceTruth


@dataclass(frozen=True)
class Measurement:
    """One measured quantity, before it is averaged.

    Attributes:
        values: One value per reconstruction (or per test example), shape ``(n,)``.
        groups: The target each value belongs to, shape ``(n,)``: the unit over which intervals are taken.
        variant: Which form of the metric (``top1``).
        evaluator: The evaluation model, or the pre-trained network with its checksum.
        unit: Unit of this variant where it is not the card's.
        reason: Why there is no value; ``values`` is empty then.
        share: Whether the values are shares within [0, 1], where that is another answer than the card's.
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
    share: bool | None = None


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

    def __init_subclass__(cls) -> None:
        """Name the options of a metric with a card ``metric.NAME.OPTION``."""
        super().__init_subclass__()
        if "card" in vars(cls):
            cls.block = f"metric.{cls.card.name}"

    def course(self, budget: Budget) -> Mapping[str, Any]:
        """Return the options of the setting with which a cell of clients is to train a model beside its own.

        It is trained with the defense and without it, and stands in ``truth.courses`` under the metric's name; where
        there are none nothing is trained.
        """
        return {}

    @abstractmethod
    def measure(self, result: Reconstruction, truth: TruthT) -> Sequence[Measurement]:
        """Return the measurements of ``result``, in the order and one to one with the truth where the task pairs them.

        Raises:
            WeightsMissingError: If a pre-trained network is not there; the row is then skipped.
            NotMeasurableError: If the metric is not defined for this cell; the row is then skipped.
        """


class WeightsMetric(Metric[TruthT]):
    """A metric that reads a pre-trained network."""

    weights: Path | None = None
    """Folder of the network's file; null means torch's own, ``$TORCH_HOME/hub/checkpoints``."""

    @property
    def folder(self) -> Path:
        """The folder of the network's file."""
        return Path(torch.hub.get_dir()) / "checkpoints" if self.weights is None else Path(self.weights)


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


def compared(
    result: Reconstruction,
    truth: InstanceTruth,
    compare: Callable[[Tensor, Tensor], Tensor],
    form: Callable[[Tensor], str],
    evaluator: str = "",
    unfit: Callable[[Tensor], str] = lambda _: "",
) -> list[Measurement]:
    """Compare every image with its true one, and where part of it was known the boxes around what was hidden.

    Args:
        result: Images, one to one with the truth.
        truth: The true images.
        compare: Maps reconstructed and true images ``(N, C, H, W)`` to values ``(N,)``.
        form: Names the form of the metric for true images; it stands in the variant.
        evaluator: What computes the values.
        unfit: Says why true images cannot be compared; empty where they can.
    """
    measured = []
    for region, made, true in regions(result, truth, CompletionTruth.cropped):
        reason, variant = unfit(true), "_".join(filter(None, (region, form(true))))
        values = torch.empty(0) if reason else compare(made, true)
        measured.append(Measurement(values, truth.target, variant, evaluator, reason=reason))
    return measured


def answers(evaluators: Sequence[Evaluator], images: Tensor) -> dict[str, Tensor]:
    """Return every evaluation model's probabilities ``(N, classes)``, by name.

    The last entry is the verdict of all: ``vote``, the mean of the probabilities of those that vote, or the only
    model's own.
    """
    probabilities = {one.name: one.model.predict_proba(images).cpu() for one in evaluators}
    if len(probabilities) > 1:
        voters = [probabilities[one.name] for one in evaluators if one.votes]
        probabilities["vote"] = torch.stack(voters).mean(0)
    return probabilities
