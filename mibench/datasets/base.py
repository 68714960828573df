"""The contract of a dataset, and the splitting that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mibench.card import DatasetCard
from mibench.data import Column, Examples, InputSpec, Population, Split
from mibench.errors import DatasetNotFoundError, UserError
from mibench.options import Options
from mibench.seeding import derive, generator
from mibench.storage.fetching import Download

if TYPE_CHECKING:
    import pandas as pd

#: What every table says where the control victim had to learn the attacker's data.
COINCIDE = "Public and control classes coincide: the control victim was trained on the attacker's public data."


class Dataset(Options, ABC):
    """A dataset: reads its files and parts them into private, public and held-out data.

    Subclasses have a literal ``card`` and keyword-only options; ``data_root`` is the folder ``paths.data``.
    What lies in it and can be fetched, or has to be by hand, stands in the literal ``downloads``.
    """

    card: ClassVar[DatasetCard]
    block: ClassVar[str] = "dataset"
    downloads: ClassVar[Sequence[Download]] = ()

    data_root: Path | str = "."
    """The folder of datasets; not used by those that are embedded."""
    seed: int = 0
    """Seed of the parting."""

    @abstractmethod
    def load(self) -> Split:
        """Read the files and return the split.

        Raises:
            DatasetNotFoundError: If the files are not there.
        """

    def places(self, *paths: str) -> list[Path]:
        """Return paths below the folder of datasets."""
        return [Path(self.data_root) / path for path in paths]

    def first_file(self, *paths: str) -> Path:
        """Return the first of several files below the folder of datasets that is there.

        Raises:
            DatasetNotFoundError: If none is.
        """
        looked = self.places(*paths)
        if found := [path for path in looked if path.is_file()]:
            return found[0]
        raise self.not_found(looked)

    def not_found(self, looked: Sequence[Path]) -> DatasetNotFoundError:
        """Return the error that says where was looked and what to do, as the first of ``downloads`` has it."""
        how = self.downloads[0].by_hand or f"get it with python -m mibench fetch {self.card.name}"
        return DatasetNotFoundError(self.card.name, looked, how)


def relabel(x: Tensor, y: Tensor, classes: Sequence[int]) -> Examples:
    """Return the examples of ``classes`` only, with ids 0..len(classes)-1 in the order given."""
    lookup = torch.full((int(y.max()) + 1,), -1)
    lookup[torch.tensor(list(classes), dtype=torch.long)] = torch.arange(len(classes))
    ids = lookup[y]
    return Examples(x[ids >= 0], ids[ids >= 0])


def holdout(examples: Examples, test_fraction: float, seed: int) -> Population:
    """Part examples per class into train and test; each class keeps at least one of both.

    Raises:
        UserError: If a class has fewer than two examples.
    """
    shuffle = generator(derive(seed, "holdout"))
    train, test = [], []
    for label in examples.y.unique():
        rows = torch.nonzero(examples.y == label).flatten()
        if len(rows) < 2:
            raise UserError(
                f"Class {int(label)} has {len(rows)} example; at least 2 are needed, one to train on and one to test "
                "on: add more or leave the class out."
            )
        rows = rows[torch.randperm(len(rows), generator=shuffle)]
        count = min(len(rows) - 1, max(1, round(test_fraction * len(rows))))
        test.append(rows[:count])
        train.append(rows[count:])
    return Population(examples[torch.cat(train)], examples[torch.cat(test)])


def few_of_each(y: Tensor, labels: Sequence[int], limit: int, seed: int) -> Tensor:
    """Return rows of at most ``limit`` examples of each label, chosen by seed; the labels follow one another."""
    order = torch.randperm(len(y), generator=generator(derive(seed, "limit")))
    return torch.cat([order[y[order] == label][:limit] for label in labels])


def without(public: Examples, copies: Sequence[int], notes: list[str]) -> Examples:
    """Return public images without the ``copies`` of private ones; where there are any, ``notes`` tell how many."""
    if not copies:
        return public
    notes.append(f"Public pictures left out as private ones under another name: {len(copies)}.")
    kept = torch.ones(len(public), dtype=torch.bool)
    kept[list(copies)] = False
    return public[kept]


def class_split(
    x: Tensor,
    y: Tensor,
    *,
    private: Sequence[int],
    public: Sequence[int],
    held_out: Sequence[int] | None,
    test_fraction: float,
    seed: int,
    class_names: Sequence[str],
    notes: Sequence[str] = (),
    mirrored: bool = False,
    subject: str = "",
) -> Split:
    """Part images by class into private, public and held-out ones.

    Args:
        x: Images of shape ``(N, C, H, W)`` in [0, 1].
        y: Class ids.
        private: Classes of the target.
        public: Classes of the attacker, disjoint from ``private``; may be empty.
        held_out: Classes of the control victim; None where the public classes must serve as control too.
        test_fraction: Share of each class that the target is tested on.
        seed: Seed of the parting.
        class_names: Names of all classes by id.
        notes: Sentences for the reader.
        mirrored: Whether a mirrored image shows the same class.
        subject: What the images show, as in :class:`mibench.data.Split`.

    Raises:
        UserError: If the private and the other classes overlap.
    """
    if len(private) < 2 or len({*private}) < len(private) or len({*public}) < len(public):
        raise UserError(f"A classifier needs at least 2 private classes, each named once, but got {list(private)}.")
    if overlap := set(private) & (set(public) | set(held_out or ())):
        raise UserError(f"Classes {sorted(overlap)} are both private and public or held out; part them in dataset.*.")
    coincide = held_out is None
    control = tuple(public if held_out is None else held_out)
    said = list(notes)
    if coincide and control:
        said.append(COINCIDE)
    return Split(
        spec=InputSpec("image", tuple(x.shape[1:]), len(private), mirrored=mirrored),
        private=holdout(relabel(x, y, private), test_fraction, derive(seed, "private")),
        public=relabel(x, y, public) if public else None,
        held_out=holdout(relabel(x, y, control), test_fraction, derive(seed, "held_out")) if control else None,
        held_out_is_public=coincide and bool(control),
        class_names=tuple(class_names[c] for c in private),
        notes=tuple(said),
        subject=subject,
    )


@dataclass(frozen=True)
class CodedTable:
    """Tables as a model takes them.

    Attributes:
        columns: The schema, in the order of the first table's columns, without the response.
        classes: The names of the response's values.
        examples: The records of every table.
    """

    columns: tuple[Column, ...]
    classes: tuple[str, ...]
    examples: Mapping[str, Examples]


def coded_table(tables: Mapping[str, pd.DataFrame], response: str, categorical: Sequence[str] = ()) -> CodedTable:
    """Code tables of the same columns by the categories of the first one.

    A column of numbers stays as it is; any other, and those named in ``categorical``, become the positions of their
    values in sorted order, as does the response.

    Args:
        tables: The tables by the option that named them; the first one has every category.
        response: The column that is predicted.
        categorical: Columns of numbers that are categories.

    Raises:
        UserError: If a column is missing, a value is, or is not finite, the response has one value, or a later table
            has a category that the first has not.
    """
    import numpy as np
    import pandas as pd

    largest = np.finfo(np.float32).max

    (first_key, first), *_ = tables.items()
    names = [str(name) for name in first.columns]
    if odd := [name for name in (response, *categorical) if name not in names]:
        raise UserError(f"The table dataset.{first_key} has no column '{odd[0]}'; it has {', '.join(names)}.")
    schema: dict[str, list[Any] | None] = {}
    for name in first.columns:
        numeric = pd.api.types.is_numeric_dtype(first[name]) and not pd.api.types.is_bool_dtype(first[name])
        coded = name == response or name in categorical or not numeric
        schema[str(name)] = sorted(first[name].dropna().unique().tolist(), key=_sortable) if coded else None
    known = list(schema[response] or [])
    if len(known) == 1:
        raise UserError(
            f"Column '{response}' of dataset.{first_key} has one value ('{known[0]}') in all records, so there is "
            "nothing to predict; choose another dataset.response."
        )
    examples = {}
    for key, table in tables.items():
        if missing := [name for name in schema if name not in table.columns]:
            raise UserError(f"The table dataset.{key} has no column '{missing[0]}', which dataset.{first_key} has.")
        values: dict[str, Any] = {}
        for name, levels in schema.items():
            if empty := int(table[name].isna().sum()):
                raise UserError(
                    f"Column '{name}' of dataset.{key} has {empty} missing values; fill them or take those records out."
                )
            if levels is None and not pd.api.types.is_numeric_dtype(table[name]):
                raise UserError(f"Column '{name}' of dataset.{key} holds words, and numbers in dataset.{first_key}.")
            codes = table[name] if levels is None else pd.Categorical(table[name], categories=levels).codes
            if levels is not None and (codes < 0).any():
                raise UserError(
                    f"Column '{name}' of dataset.{key} has the value '{table[name][codes < 0].iloc[0]}', which "
                    f"dataset.{first_key} has not; take such records out."
                )
            values[name] = np.asarray(codes)
            sizes = np.abs(np.asarray(codes, dtype=np.float64))
            if levels is None and (wild := int(np.count_nonzero(~(sizes <= largest)))):
                raise UserError(
                    f"Column '{name}' of dataset.{key} has {wild} values that are infinite or beyond {largest:.1g}; "
                    "correct them or take those records out."
                )
        x = np.stack([values[name].astype(np.float32) for name in schema if name != response], 1)
        examples[key] = Examples(torch.from_numpy(x), torch.from_numpy(values[response].astype(np.int64)))
    columns = (Column(name, tuple(map(str, levels or ()))) for name, levels in schema.items() if name != response)
    return CodedTable(tuple(columns), tuple(map(str, schema[response] or ())), examples)


def _sortable(value: Any) -> tuple[str, Any]:
    return ("", value) if isinstance(value, int | float) else (type(value).__name__, str(value))


def resize(images: Tensor, size: int | None) -> Tensor:
    """Return images ``(N, C, H, W)`` at ``size`` x ``size`` pixels (bilinear, antialiased); None keeps them."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    resized = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return resized.clamp(0, 1)
