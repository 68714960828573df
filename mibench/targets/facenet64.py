"""FaceNet64 of the low-resolution model-inversion literature: an IR-50 network for faces of 64x64 pixels.

First attacked in KED-MI (Chen et al., ICCV 2021), whose code names it so though it is not FaceNet; the network is IR-50
of ArcFace (Deng et al., CVPR 2019), here :mod:`mibench.nn.improved_residual`. There, the backbone begins with weights
of face recognition; here it begins at random, so that the private pictures are the only faces it has seen. The recipe
is the published one (SGD, 50 epochs, 0.01) but for its steps, which a cosine replaces.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.nn.improved_residual import EMBEDDING, ir_embedding, ir_stages
from mibench.targets.base import Target, centred


class FaceNet64(Target):
    """IR-50, untrained.

    Args:
        spec: Facts of the input; images whose sides are multiples of 16.
    """

    card = TargetCard(
        name="facenet64", title="FaceNet64 (IR-50)", modalities=("image",), bib="arcface", year=2019, family="residual"
    )
    depths: ClassVar[tuple[int, ...]] = (3, 4, 14, 3)

    def __init__(self, *, spec: InputSpec) -> None:
        super().__init__(spec=spec)
        channels, height, width = spec.shape
        if height % 16 or width % 16:
            raise UserError(
                f"target={self.card.name} needs images whose sides are multiples of 16, but these have "
                f"{width}x{height} pixels; set dataset.size."
            )
        self.normalise = centred(spec)
        self.stages = ir_stages(channels, self.depths)
        self.embedding = ir_embedding(height, width)
        self.head = nn.Linear(EMBEDDING, spec.classes)

    def pool(self, last: Tensor) -> Tensor:
        """Return the embedding, shape ``(N, 512)``."""
        embedding: Tensor = self.embedding(last)
        return embedding
