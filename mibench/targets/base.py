"""The contract of a target architecture, and the input handling that all of them share."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.entry import Normalise
from mibench.errors import UserError
from mibench.limits import TENSORS, content, safetensors_of
from mibench.model import Classifier

#: The name of the embeddings among the weights of a target for texts.
TABLE = "normalise.table"


class Target(Classifier):
    """A classifier that can be attacked.

    Subclasses have a literal ``card``, take ``spec`` and keyword-only hyper-parameters, and set ``normalise``,
    ``stages`` and ``head``.

    Args:
        spec: Facts of the input and the number of classes.
    """

    card: ClassVar[TargetCard]

    def __init__(self, *, spec: InputSpec) -> None:
        super().__init__()
        self.spec = spec

    def take(self, file: Path | str, key: str, sha256: str | None = None) -> None:
        """Take weights from a safetensors file, which runs no code, by the names of this module.

        Args:
            file: The file.
            key: The option that names it, for messages (``target.weights``).
            sha256: What its SHA-256 has to be; None for whatever it is.

        Raises:
            UserError: If it is not there, is another file than was promised, or holds weights of another model or for
                another vocabulary.
        """
        path = Path(file).expanduser()
        if sha256 is not None:
            found = hashlib.sha256(content(path, f"{key}={path}", TENSORS)).hexdigest()
            if found != sha256:
                raise UserError(f"The SHA-256 of {key}={path} is {found} instead of {sha256}; it is another file.")
        tensors, _ = safetensors_of(path, f"{key}={path}")
        table = tensors.get(TABLE)
        if table is not None and table.dim() and self.spec.vocabulary and len(table) != self.spec.vocabulary:
            raise UserError(
                f"{key}={path} are weights for {len(table)} tokens, but the dataset's vocabulary has "
                f"{self.spec.vocabulary}; set dataset.vocabulary_file to the vocabulary that they were trained with."
            )
        try:
            self.load_state_dict(tensors)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:160]
            raise UserError(
                f"{key}={path} are no weights of target={self.card.name} with these options ({said})."
            ) from error

    def adapt(self, x: Tensor) -> None:
        """Take from the training inputs what the architecture needs before training (scales of columns)."""


def centred(spec: InputSpec) -> Normalise:
    """Return the normalisation of images, or spectrograms, from their range to [-1, 1]."""
    middle, reach = (spec.low + spec.high) / 2, (spec.high - spec.low) / 2
    return Normalise(torch.full((spec.shape[0],), middle), torch.full((spec.shape[0],), reach))
