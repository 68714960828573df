"""AT&T faces (ORL): 40 people, 10 grey pictures each, under mild changes of pose, light and expression.

F. Samaria and A. Harter, Parameterisation of a stochastic model for human face identification, WACV 1994; taken
between 1992 and 1994 at the Olivetti Research Laboratory in Cambridge (https://cam-orl.co.uk/facedatabase.html). Free
for research with credit to AT&T Laboratories Cambridge; pictures of these people are kept off public pages. Layout:
``att_faces/s<1..40>/<1..10>.pgm`` of 92x112 pixels. The people are parted in the order of their numbers: private, held
out for the control, public.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mibench.card import DatasetCard
from mibench.data import Split
from mibench.datasets.base import Dataset, class_split, resize
from mibench.errors import UserError
from mibench.limits import open_image
from mibench.options import Count, CountOrNone, Several, Share
from mibench.storage.fetching import Download


class AttFaces(Dataset):
    """The AT&T faces."""

    card = DatasetCard(
        name="att_faces",
        title="AT&T (ORL) faces",
        modalities=("image",),
        year=1994,
        licence="research, with credit to AT&T Laboratories Cambridge",
        may_show=False,
    )
    downloads = (
        Download(
            path="att_faces/s1/1.pgm",
            by_hand="download it from https://cam-orl.co.uk/facedatabase.html and unpack it so that att_faces holds "
            "the folders s1 to s40",
            instead=("orl_faces/s1/1.pgm",),
        ),
    )

    size: Count | None = 32
    """Pixels per side after cropping (bilinear); null keeps the crop as it is."""
    crop: Count | None = 92
    """Pixels per side of the square cut from the centre, at most 92; null keeps the whole picture."""
    private_people: Several = 14
    """People of the target: the first ones."""
    held_out_people: CountOrNone = 14
    """People of the control victim: the next ones; the rest is public."""
    test_fraction: Share = 0.2
    """Share of each person's pictures that the target is tested on."""

    def __post_init__(self) -> None:
        """Refuse a crop that the pictures do not hold."""
        super().__post_init__()
        if self.crop is not None and self.crop > 92:
            raise UserError(f"Expected dataset.crop to lie between 1 and 92 (or null), but got {self.crop}.")

    def load(self) -> Split:
        """Return the split.

        Raises:
            DatasetNotFoundError: If there is no folder of people.
            UserError: If more people are asked for than there are.
        """
        people = self._people()
        parted = self.private_people + self.held_out_people
        if parted > len(people):
            raise UserError(
                f"dataset.private_people and dataset.held_out_people ask for {parted} people, but there are "
                f"{len(people)}."
            )
        pictures = [_picture(file) for person in people for file in _numbered(person, ".pgm")]
        labels = [label for label, person in enumerate(people) for _ in _numbered(person, ".pgm")]
        x = torch.from_numpy(np.stack(pictures).astype(np.float32) / 255)[:, None]
        return class_split(
            resize(self._cropped(x), self.size),
            torch.tensor(labels),
            private=range(self.private_people),
            public=range(parted, len(people)),
            held_out=range(self.private_people, parted),
            test_fraction=self.test_fraction,
            seed=self.seed,
            class_names=[person.name for person in people],
            mirrored=True,
            subject="face",
        )

    def _people(self) -> list[Path]:
        looked = self.places("att_faces", "orl_faces")
        for folder in looked:
            if people := _numbered(folder, "", prefix="s"):
                return people
        raise self.not_found(looked)

    def _cropped(self, x: torch.Tensor) -> torch.Tensor:
        if self.crop is None:
            return x
        top, left = ((side - self.crop) // 2 for side in x.shape[-2:])
        return x[:, :, top : top + self.crop, left : left + self.crop]


def _numbered(folder: Path, suffix: str, prefix: str = "") -> list[Path]:
    """Return the entries ``<prefix><number><suffix>`` of a folder in the order of their numbers."""
    numbers = {
        int(entry.stem.removeprefix(prefix)): entry
        for entry in folder.glob(f"{prefix}*{suffix}")
        if entry.suffix == suffix and entry.stem.removeprefix(prefix).isdecimal()
    }
    return [numbers[number] for number in sorted(numbers)]


def _picture(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the grey levels of one picture, shape ``(112, 92)``."""
    try:
        with open_image(file) as image:
            levels = np.asarray(image.convert("L"))
    except OSError as error:
        raise UserError(f"{file} cannot be read as an image ({error}); unpack the AT&T faces again.") from error
    if levels.shape != (112, 92):
        raise UserError(f"{file} has {levels.shape[1]}x{levels.shape[0]} pixels, not the 92x112 of the AT&T faces.")
    return levels
