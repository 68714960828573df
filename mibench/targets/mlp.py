"""A multi-layer perceptron for tables (categories one-hot, numbers standardised) and, flattened, for images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.nn.records import RecordEncoder
from mibench.options import Count
from mibench.targets.base import Target, centred


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
