"""Handwritten digits: the small real dataset that travels with mibench.

The test part of the UCI "Optical Recognition of Handwritten Digits" data as scikit-learn ships it: 1,797 digits of
8x8 pixels with 17 grey levels (E. Alpaydin and C. Kaynak, 1998, https://archive.ics.uci.edu/dataset/80, CC BY 4.0).
Private: digits 0-4. Public and control: digits 5-9.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mibench.card import DatasetCard
from mibench.data import Split
from mibench.datasets.base import Dataset, class_split, resize
from mibench.options import Count, Digit, Share

FILE = Path(__file__).parent / "digits.npz"


class Digits(Dataset):
    """The embedded digits; ``data_root`` is not used."""

    card = DatasetCard(
        name="digits",
        title="Optical recognition of handwritten digits (UCI, test part)",
        modalities=("image",),
        year=1998,
        licence="CC BY 4.0",
        may_show=True,
        embedded=True,
    )

    size: Count = 16
    """Pixels per side; the 8x8 originals are resized bilinearly."""
    private: Sequence[Digit] = (0, 1, 2, 3, 4)
    """Digits of the target."""
    public: Sequence[Digit] = (5, 6, 7, 8, 9)
    """Digits of the attacker and of the control victim."""
    test_fraction: Share = 0.25
    """Share of each class that the target is tested on."""

    def load(self) -> Split:
        """Return the split; never fails for missing files."""
        with np.load(FILE) as arrays:
            x = torch.from_numpy(arrays["images"].astype(np.float32) / 16)[:, None]
            y = torch.from_numpy(arrays["labels"].astype(np.int64))
        return class_split(
            resize(x, self.size),
            y,
            private=self.private,
            public=self.public,
            held_out=None,
            test_fraction=self.test_fraction,
            seed=self.seed,
            class_names=[f"digit {i}" for i in range(10)],
        )
