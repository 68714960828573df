"""The family of metrics that see faces as an embedding does: :mod:`mibench.nn.mobilefacenet`, read and checked.

A wrong ``region`` shows in their yardsticks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from mibench.errors import NotMeasurableError, UserError
from mibench.metrics.base import WeightsMetric
from mibench.nn import mobilefacenet
from mibench.nn.faces import embeddings
from mibench.storage.fetching import Download
from mibench.tasks.class_ import ClassTruth


class OfFaces(WeightsMetric[ClassTruth]):
    """A metric of what a face embedding sees."""

    downloads = (
        Download(
            path="mobilefacenet_casia_068.ckpt",
            url="https://raw.githubusercontent.com/Xiaoccer/MobileFaceNet_Pytorch/26bd8d262017e472a3c7f56d62929e2138a70aeb/model/best/068.ckpt",
            sha256="e839247cdbdfc023fb7cadeaf53a4549d50c8fc24ad154c02e35920ea8910d99",
            instead=("mobilefacenet/mobilefacenet_casia_068.ckpt",),
        ),
    )

    region: Sequence[float] = mobilefacenet.LFW_REGION
    """Left, top, right and bottom of the face, as shares of the dataset's images; the default is for LFW's crop."""
    assume_faces: bool = False
    """Whether images are faces although their dataset does not say so (``image_folder``)."""

    def __post_init__(self) -> None:
        """Refuse a region that is none."""
        super().__post_init__()
        if len(self.region) != 4 or not (self.region[0] < self.region[2] and self.region[1] < self.region[3]):
            raise UserError(
                f"Expected {self.block}.region to be left, top, right and bottom, as shares, but got "
                f"{list(self.region)}."
            )
        self._seen: dict[bytes, Tensor] = {}

    def require_faces(self, truth: ClassTruth) -> None:
        """Refuse data that are not faces, before any file is asked for.

        Raises:
            NotMeasurableError: With what to do where they are.
        """
        if truth.subject != "face" and not self.assume_faces:
            raise NotMeasurableError(
                "A face embedding says nothing of images that are no faces, and the dataset does not say that these "
                f"are; where they are, set {self.block}.assume_faces=true."
            )

    def embed(self, images: Tensor) -> Tensor:
        """Return unit embeddings ``(N, F)`` of images ``(N, C, H, W)``, on the CPU; of the same images only once.

        Result and control are measured against the same real images, of which there are many more.
        """
        content = hashlib.sha256(images.contiguous().cpu().numpy().tobytes()).digest()
        if content not in self._seen:
            self._seen[content] = embeddings(self._network, images)
        return self._seen[content]

    @property
    def evaluator(self) -> str:
        """The embedding, with the beginning of its file's checksum."""
        return f"mobilefacenet:{mobilefacenet.SHA256[:12]}"

    @cached_property
    def _network(self) -> nn.Module:
        network = mobilefacenet.load(self.folder, self.region)
        return network.to("cuda" if torch.cuda.is_available() else "cpu")


def enlarged(images: Tensor) -> str:
    """Return what a variant says of images that the face embedding sees enlarged (``from 32 px``), else nothing."""
    side = min(images.shape[-2:])
    return f"from {side} px" if side < mobilefacenet.WIDTH else ""
