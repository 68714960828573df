"""Labeled Faces in the Wild: 13,233 press photographs of 5,749 people, most of whom have one.

G. B. Huang, M. Ramesh, T. Berg and E. Learned-Miller, Labeled Faces in the Wild, University of Massachusetts Amherst,
Technical Report 07-49, 2007. For research; the pictures belong to their photographers and are kept off public pages.
Layout: ``lfw-deepfunneled/<person>/<person>_<NNNN>.jpg`` of 250x250 pixels; ``lfw_funneled`` and ``lfw`` hold the same
pictures aligned in another way and as they were found.

Private and held out are people with at least 20 pictures (62 of them), in an order drawn by seed, since the control
would otherwise learn from fewer pictures; at most 50 of each count, where one person has 530. Everybody else is public.
The 112x112 around the face, whose centre lies 5 pixels above the picture's (columns 69-180, rows 64-175), are resized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from mibench.card import DatasetCard
from mibench.datasets.families.people import People
from mibench.errors import DatasetNotFoundError
from mibench.options import Count, CountOrNone, Several, Share
from mibench.storage.fetching import Download

FOLDERS = {"deepfunneled": "lfw-deepfunneled", "funneled": "lfw_funneled", "original": "lfw"}


class Lfw(People):
    """LFW."""

    card = DatasetCard(
        name="lfw",
        title="Labeled Faces in the Wild",
        modalities=("image",),
        year=2007,
        licence="research only; the photographs belong to their photographers",
        may_show=False,
    )
    downloads = (
        Download(
            path="lfw_funneled/George_W_Bush/George_W_Bush_0001.jpg",
            url="https://ndownloader.figshare.com/files/5976015",
            sha256="b47c8422c8cded889dc5a13418c4bc2abbda121092b3533a83306f90d900100a",
            unpack="tar",
            instead=(
                "lfw-deepfunneled/George_W_Bush/George_W_Bush_0001.jpg",
                "lfw/George_W_Bush/George_W_Bush_0001.jpg",
            ),
        ),
    )
    frame: ClassVar[tuple[int, int] | None] = (250, 250)
    lift: ClassVar[int] = 5

    images: Literal["deepfunneled", "funneled", "original"] = "deepfunneled"
    """Which alignment: ``deepfunneled``, ``funneled`` or none (``original``)."""
    size: Count = 32
    """Pixels per side after cropping (bilinear, antialiased)."""
    crop: Count | None = 112
    """Pixels per side of the square around the face in an official picture; null takes the largest."""
    private_people: Several = 31
    """People of the target."""
    held_out_people: CountOrNone = 31
    """People of the control victim; 0 for none."""
    min_images: Several = 20
    """Fewest pictures of a person in either role; people with fewer are the attacker's."""
    max_per_class: Several | None = 50
    """Most pictures of a person in either role, the first ones; null takes all."""
    test_fraction: Share = 0.2
    """Share of each person's pictures that the target is tested on."""

    def people(self) -> Mapping[str, Sequence[Path]]:
        """Return the pictures of every person, in the order of their numbers."""
        folder = Path(self.data_root) / FOLDERS[self.images]
        found = {
            person.name: files
            for person in sorted(folder.glob("[!.]*"))
            if (files := sorted(person.glob(f"{person.name}_*.jpg")))
        }
        if not found:
            how = (
                "unpack lfw-deepfunneled.tgz (MD5 68331da3eb755a505a502b5aacb3c201), which cannot be fetched, or get "
                "the other alignment with python -m mibench fetch lfw and set dataset.images=funneled"
            )
            raise DatasetNotFoundError("lfw", [folder], how)
        return found
