"""The contract of a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from mibench.card import MetricCard
from mibench.tasks.base import Reconstruction, Truth


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
    """

    values: Tensor
    groups: Tensor
    variant: str = ""
    evaluator: str = ""
    unit: str | None = None
    reason: str = ""


TruthT = TypeVar("TruthT", bound=Truth)


class Metric(ABC, Generic[TruthT]):
    """A metric. Subclasses have a literal ``card`` and keyword-only options.

    Attributes:
        of_victim: Whether it measures the victim rather than the reconstruction; it has no control then.
    """

    card: ClassVar[MetricCard]
    of_victim: ClassVar[bool] = False

    @abstractmethod
    def measure(self, result: Reconstruction, truth: TruthT) -> Sequence[Measurement]:
        """Returns the measurements of ``result``, in the order and one to one with the truth where the task pairs them.

        Raises:
            WeightsMissingError: If a pre-trained network is not there; the row is then skipped.
            NotMeasurableError: If the metric is not defined for this cell; the row is then skipped.
        """
