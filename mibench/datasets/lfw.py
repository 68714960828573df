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
from mibench.datasets.people import Parting, People
from mibench.errors import DatasetNotFoundError
from mibench.options import Count, CountOrNone, Share
from mibench.storage.fetching import Download

FOLDERS = {"deepfunneled": "lfw-deepfunneled", "funneled": "lfw_funneled", "original": "lfw"}


class Lfw(People):
    """LFW.

    Args:
        images: Which alignment: ``deepfunneled``, ``funneled`` or none (``original``). The rest is explained in
            :class:`mibench.datasets.people.People`.
    """

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

    def __init__(
        self,
        *,
        images: Literal["deepfunneled", "funneled", "original"] = "deepfunneled",
        data_root: Path | str,
        seed: int = 0,
        size: Count = 32,
        crop: Count | None = 112,
        channels: int = 3,
        private_people: Count = 31,
        held_out_people: CountOrNone = 31,
        min_images: Count = 20,
        max_per_class: Count | None = 50,
        parting: Parting = "seeded",
        test_fraction: Share = 0.2,
        public_root: Path | str | None = None,
        public_crop: Count | None = None,
        public_limit: Count | None = None,
    ) -> None:
        super().__init__(
            data_root=data_root,
            seed=seed,
            size=size,
            crop=crop,
            channels=channels,
            private_people=private_people,
            held_out_people=held_out_people,
            min_images=min_images,
            max_per_class=max_per_class,
            parting=parting,
            test_fraction=test_fraction,
            public_root=public_root,
            public_crop=public_crop,
            public_limit=public_limit,
        )
        self.images = images

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
