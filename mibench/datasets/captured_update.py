"""A client's update that somebody saved from a real federated run, to be inverted (``dataset=captured_update``).

``file`` is a safetensors file of one update, tensors named as the model's parameters: the gradient of the mean
cross-entropy (``kind=gradient``), or the parameters before minus those after ``steps`` full-batch steps of size ``lr``
(``kind=delta``). The model goes beside it: ``target=checkpoint target.factory=... target.weights=...`` with the weights
that the client started from. ``truth`` (tensor ``images``, shape ``(N, C, H, W)`` in [0, 1], and optionally ``labels``)
is what the reconstruction is scored on; without it the pictures and the matching loss are the result.

``vocabulary`` makes it an update of texts: ``shape`` is then ``[tokens]``, and the truth's tensor is ``tokens``, ids of
shape ``(N, tokens)``. A text model of one's own is ``target=transformer target.weights=...``.

A file whose header says what ``columns`` there are (:mod:`mibench.datasets.families.columns`) is an update of records,
which the model takes one-hot and scaled; the truth's tensor is ``records``, shape ``(N, columns)``: codes of
categories, and numbers in their own units.

There are no private data here, so there is no utility and no control: those rows say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mibench.card import DatasetCard, Modality
from mibench.data import Captured, Examples, InputSpec, Population, Split
from mibench.datasets.base import Dataset
from mibench.datasets.families.columns import Schema, schema_of
from mibench.errors import UserError
from mibench.limits import safetensors_of
from mibench.options import Count, CountOrNone, Positive


class CapturedUpdate(Dataset):
    """One client update from a file."""

    card = DatasetCard(
        name="captured_update",
        title="A captured client update",
        modalities=("image", "text", "tabular"),
        licence="your own",
        may_show=False,
        tasks=("instance", "sequence"),
    )

    file: Path | str | None = None
    """The update, a safetensors file."""
    kind: Literal["gradient", "delta"] = "gradient"
    """``gradient``, or ``delta`` of the parameters."""
    batch_size: Count = 1
    """Examples behind the update."""
    labels: Sequence[int] | None = None
    """Their class ids, where they are known; null leaves them to the attack."""
    lr: Positive | None = None
    """Of a delta: the client's step size; null where it is not known."""
    steps: Count | None = None
    """Of a delta: the client's full-batch steps; null where their number is not known."""
    mean: Sequence[float] | None = None
    """What the model's training subtracted from pixels in [0, 1], per channel; null leaves ``target.mean``."""
    std: Sequence[float] | None = None
    """What it then divided by, likewise."""
    shape: Sequence[int] | None = None
    """Shape of one image, ``[C, H, W]``; null takes the truth's, or 32x32 and the first convolution's channels."""
    vocabulary: CountOrNone = 0
    """Number of token ids where texts are behind the update; 0 for images."""
    classes: Count | None = None
    """Number of classes; null takes those of the last linear layer, where it can be told."""
    truth: Path | str | None = None
    """Safetensors file with the inputs behind the update; null where they are not known."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        super().__post_init__()
        if self.file is None:
            raise UserError("dataset=captured_update needs the client's update; set dataset.file=FILE.safetensors.")
        if self.labels is not None and len(self.labels) != self.batch_size:
            raise UserError(
                f"Expected dataset.labels to name the {self.batch_size} examples of dataset.batch_size, but it holds "
                f"{len(self.labels)}."
            )
        if self.kind == "gradient" and (self.lr is not None or self.steps is not None):
            raise UserError("dataset.lr and dataset.steps say how a delta came about; set dataset.kind=delta.")
        sides = "[tokens]" if self.vocabulary else "[channels,height,width]"
        if self.shape is not None and (len(self.shape) != sides.count(",") + 1 or min(self.shape) < 1):
            raise UserError(f"Expected dataset.shape to be {sides}, but got {list(self.shape)}.")
        if self.vocabulary and self.shape is None and self.truth is None:
            raise UserError("The length of texts cannot be told from an update; set dataset.shape=[tokens].")

    def load(self) -> Split:
        """Read the update, and the truth where there is one."""
        assert self.file is not None
        update = read_tensors(Path(self.file), "dataset.file")
        if bad := [name for name, value in update.items() if not bool(value.isfinite().all())]:
            raise UserError(
                f"The update in dataset.file={self.file} holds NaN or infinite values, first in '{bad[0]}', so nothing "
                "can be matched with it; save it again before it is scaled or cast."
            )
        classes, schema = self.classes or classes_of(update, Path(self.file)), schema_of(Path(self.file))
        if schema is not None:
            self._refuse_images_words()
        inputs, labels = self._truth(schema)
        shape = tuple(self.shape or (inputs.shape[1:] if inputs is not None else (_channels(update), 32, 32)))
        shape = shape if schema is None else (len(schema.columns),)
        known = torch.tensor(list(self.labels)) if self.labels is not None else None
        for what, ids in (("dataset.labels", known), ("dataset.truth", labels)):
            if ids is not None and (int(ids.min()) < 0 or int(ids.max()) >= classes):
                raise UserError(f"Expected the class ids of {what} to lie in 0..{classes - 1}, but got {ids.tolist()}.")
        nothing = Examples(torch.zeros(0, *shape), torch.zeros(0, dtype=torch.long))
        secret = None
        if inputs is not None:
            given = labels if labels is not None else known
            secret = Examples(inputs, given if given is not None else torch.full((len(inputs),), -1))
        captured = Captured(
            update=update,
            delta=self.kind == "delta",
            batch_size=self.batch_size,
            labels=known,
            local=None if self.lr is None or self.steps is None else (self.steps, self.lr),
            mean=self.mean if schema is None else schema.mean,
            std=self.std if schema is None else schema.std,
            secret=secret,
            spread=None if schema is None else schema.spread,
        )
        modality: Modality = "tabular" if schema is not None else "text" if self.vocabulary else "image"
        columns = () if schema is None else schema.columns
        return Split(
            spec=InputSpec(modality, shape, classes, columns, vocabulary=self.vocabulary),
            private=Population(nothing, nothing),
            class_names=tuple(map(str, range(classes))),
            captured=captured,
        )

    def _refuse_images_words(self) -> None:
        """Refuse options of images and texts beside records."""
        said = {"shape": self.shape, "vocabulary": self.vocabulary or None, "mean": self.mean, "std": self.std}
        if given := [key for key, value in said.items() if value is not None]:
            raise UserError(
                f"The header of dataset.file={self.file} says the columns of records and their scale; leave out "
                f"dataset.{given[0]}, which is for images and texts."
            )

    def _truth(self, schema: Schema | None) -> tuple[Tensor | None, Tensor | None]:
        if self.truth is None:
            return None, None
        held = read_tensors(Path(self.truth), "dataset.truth")
        labels = held["labels"].long() if "labels" in held else None
        if schema is not None:
            return self._records(held, schema), labels
        if self.vocabulary:
            return self._tokens(held), labels
        if "images" not in held:
            raise UserError(f"dataset.truth={self.truth} holds no tensor 'images' of shape (N, C, H, W) in [0, 1].")
        images = held["images"].float()
        if images.dim() != 4 or len(images) != self.batch_size:
            raise UserError(
                f"Expected the images of dataset.truth to have shape ({self.batch_size}, C, H, W), as "
                f"dataset.batch_size says, but got {tuple(images.shape)}."
            )
        if float(images.min()) < 0 or float(images.max()) > 1:
            raise UserError(
                f"Expected the images of dataset.truth in [0, 1], but they go from {float(images.min()):.3g} to "
                f"{float(images.max()):.3g}; save them before they are normalised."
            )
        return images, labels

    def _records(self, held: Mapping[str, Tensor], schema: Schema) -> Tensor:
        wanted, records = (self.batch_size, len(schema.columns)), held.get("records")
        if records is None or records.shape != wanted:
            raise UserError(
                f"Expected dataset.truth={self.truth} to hold a tensor 'records' of shape {wanted}, as "
                "dataset.batch_size and the update's columns say."
            )
        schema.check(records.float(), f"dataset.truth={self.truth}")
        return records.float()

    def _tokens(self, held: Mapping[str, Tensor]) -> Tensor:
        tokens = held.get("tokens")
        if tokens is None or tokens.is_floating_point() or tokens.dim() != 2 or len(tokens) != self.batch_size:
            raise UserError(
                f"Expected dataset.truth={self.truth} to hold ids 'tokens' of shape ({self.batch_size}, tokens), as "
                "dataset.batch_size says."
            )
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.vocabulary:
            raise UserError(f"Expected the ids of dataset.truth to lie in 0..{self.vocabulary - 1}.")
        return tokens.long()


def read_tensors(path: Path, key: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, floating ones as float32.

    Raises:
        UserError: If it is not there, or is none.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path} ({key}); save the tensors with safetensors.torch.save_file.")
    held, _ = safetensors_of(path, f"{key}={path}")
    if not held:
        raise UserError(f"{key}={path} holds no tensors.")
    return {name: value.float() if value.is_floating_point() else value for name, value in held.items()}


def classes_of(update: Mapping[str, Tensor], file: Path) -> int:
    """Return the number of classes: the outputs of the one linear layer that feeds no other.

    Raises:
        UserError: If there is not one such layer.
    """
    linear = [value.shape for value in update.values() if value.dim() == 2]
    inputs = {shape[1] for shape in linear}
    last = {shape[0] for shape in linear if shape[0] not in inputs}
    if len(last) != 1:
        raise UserError(
            f"The number of classes cannot be told from the tensors of dataset.file={file}; set dataset.classes."
        )
    return int(last.pop())


def _channels(update: Mapping[str, Tensor]) -> int:
    """Return the input channels of the convolution with the fewest: the first one's."""
    return min((int(value.shape[1]) for value in update.values() if value.dim() == 4), default=3)
