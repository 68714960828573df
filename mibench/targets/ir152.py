"""IR152 of the low-resolution model-inversion literature: :mod:`mibench.targets.facenet64` with IR-152's depths.

First attacked in KED-MI (Chen et al., ICCV 2021), there with a backbone that begins with weights of face recognition,
here begun at random. The recipe is the published one (SGD, 40 epochs, 0.01) but for its steps, which a cosine replaces.
"""

from __future__ import annotations

from typing import ClassVar

from mibench.card import TargetCard
from mibench.targets.facenet64 import FaceNet64


class Ir152(FaceNet64):
    """IR-152, untrained.

    Args:
        spec: Facts of the input; images whose sides are multiples of 16.
    """

    card = TargetCard(name="ir152", title="IR152", modalities=("image",), bib="arcface", year=2019, family="residual")
    depths: ClassVar[tuple[int, ...]] = (3, 8, 36, 3)
