"""A multi-layer perceptron for tables (categories one-hot, numbers standardised) and, flattened, for images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import Column, InputSpec
from mibench.entry import Entry
from mibench.options import Count
from mibench.targets.base import Target, centred


class RecordEncoder(Entry):
    """Turns raw records into one-hot categories and standardised numbers.

    Means and deviations are those of the training records (:meth:`fit`), stored as buffers.

    Args:
        columns: The schema.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.register_buffer("mean", torch.zeros(len(columns)))
        self.register_buffer("std", torch.ones(len(columns)))
        self.width = sum(len(column.values) if column.categorical else 1 for column in columns)

    def fit(self, records: Tensor) -> None:
        """Take mean and deviation of the numeric columns from records of shape ``(N, columns)``."""
        self.mean.copy_(records.float().mean(0))
        self.std.copy_(records.float().std(0).clamp_min(1e-6))

    def canonical(self, records: Tensor) -> Tensor:
        """Return features of shape ``(N, width)`` for records of shape ``(N, columns)``."""
        parts = []
        for index, column in enumerate(self.columns):
            value = records[:, index]
            if column.categorical:
                parts.append(nn.functional.one_hot(value.long(), len(column.values)).float())
            else:
                parts.append(((value - self.mean[index]) / self.std[index])[:, None].float())
        return torch.cat(parts, 1)

    def scaling(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of every encoded column, shape ``(width,)``: 0 and 1 for those of a category."""
        sizes = torch.tensor([len(column.values) or 1 for column in self.columns], device=self.mean.device)
        categorical = torch.tensor([column.categorical for column in self.columns], device=self.mean.device)
        mean, std = self.mean.masked_fill(categorical, 0.0), self.std.masked_fill(categorical, 1.0)
        return mean.repeat_interleave(sizes), std.repeat_interleave(sizes)


class Mlp(Target):
    """Hidden layers of linear and ReLU.

    Args:
        spec: Facts of the input: a table's schema, or images that are flattened.
        hidden: Units of each hidden layer.
    """

    card = TargetCard(
        name="mlp", title="Multi-layer perceptron", modalities=("tabular", "image", "audio"), family="perceptron"
    )

    def __init__(self, *, spec: InputSpec, hidden: Sequence[Count] = (128, 64)) -> None:
        super().__init__(spec=spec)
        if spec.modality == "tabular":
            encoder = RecordEncoder(spec.columns)
            self.normalise, width = encoder, encoder.width
        else:
            self.normalise = nn.Sequential(centred(spec), nn.Flatten())
            width = int(torch.tensor(spec.shape).prod())
        widths = [width, *hidden]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.ReLU()) for before, after in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], spec.classes)

    def adapt(self, x: Tensor) -> None:
        """Take the numeric columns' scale from the training records."""
        if isinstance(self.normalise, RecordEncoder):
            self.normalise.fit(x)
