"""CelebA: 202,599 photographs of 10,177 celebrities, aligned to 178x218 pixels; the data of most papers on inversion.

Z. Liu, P. Luo, X. Wang and X. Tang, Deep Learning Face Attributes in the Wild, ICCV 2015
(https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html). For non-commercial research; the file of identities is sent on
request; the pictures are kept off public pages. Layout, as torchvision has it: the folder ``celeba`` with
``img_align_celeba/<NNNNNN>.jpg``, ``identity_CelebA.txt`` and, where an official part is asked for,
``list_eval_partition.txt``. That file parts the celebrities (train, valid, test), not the pictures of one, so the test
data of a classifier are a share of every private person's pictures, as in the literature.

Private are the 1,000 celebrities with most pictures, as in PPA (Struppek et al., ICML 2022); the control learns the
next 1,000, and 30,000 pictures of the others are public. The low-resolution line (GMI, KED-MI, PLG-MI ...) ships lists
of 30,027 private pictures of 1,000 identities, which are not read: whether its people are these is not known. Its crop
is the central 108x108, resized to 64; for 112 and 224 pixels, where PPA resizes what its authors cropped themselves,
take the central 178x178 (``crop=null``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from mibench.card import DatasetCard
from mibench.datasets.families.people import Parting, People
from mibench.errors import DatasetNotFoundError, UserError
from mibench.options import Count, CountOrNone, Several
from mibench.storage.fetching import Download

PARTS = {"train": "0", "valid": "1", "test": "2"}


class Celeba(People):
    """CelebA."""

    card = DatasetCard(
        name="celeba",
        title="CelebA",
        modalities=("image",),
        year=2015,
        licence="non-commercial research only",
        may_show=False,
    )
    downloads = (
        Download(
            path="celeba/identity_CelebA.txt",
            by_hand="ask for the identities as https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html says, and put "
            "identity_CelebA.txt into the folder celeba",
            md5="32bd1bd63d3c78cd57e08160ec5ed1e2",
        ),
        Download(
            path="celeba/img_align_celeba.zip",
            by_hand="download img_align_celeba.zip (MD5 00d2c5bc6d35e252742224ab0c1e8fcb) from "
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into the folder celeba and unpack it there",
            md5="00d2c5bc6d35e252742224ab0c1e8fcb",
            instead=("celeba/img_align_celeba/000001.jpg",),
        ),
        Download(
            path="celeba/list_eval_partition.txt",
            by_hand="download list_eval_partition.txt (needed where dataset.part is set) from "
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into the folder celeba",
            md5="d32c9cbf5e040fd4025c592c306e6668",
        ),
    )
    frame: ClassVar[tuple[int, int] | None] = (178, 218)

    part: Literal["all", "train", "valid", "test"] = "all"
    """Which official part's celebrities are used at all."""
    crop: Count | None = 108
    """Pixels per side of the square cut from the centre of an official picture; null takes the largest."""
    private_people: Several = 1000
    """People of the target."""
    held_out_people: CountOrNone = 1000
    """People of the control victim; 0 for none."""
    parting: Parting = "most"
    """Order in which the roles are given: ``most`` (pictures first, equal ones by name) or ``seeded``."""
    public_limit: Count | None = 30000
    """Most public images, chosen by seed; null takes all."""

    def people(self) -> Mapping[str, Sequence[Path]]:
        """Return the pictures of every celebrity of the part, in the order of the file of identities.

        Raises:
            UserError: If a list is damaged, or names a picture that is not there.
        """
        folder = Path(self.data_root) / "celeba"
        needed = [folder / name for name in ("identity_CelebA.txt", "img_align_celeba", "list_eval_partition.txt")]
        for path, download in zip(needed if self.part != "all" else needed[:2], self.downloads, strict=False):
            if not path.exists():
                raise DatasetNotFoundError("celeba", [path], download.by_hand)
        part_of = read_list(needed[2]) if self.part != "all" else {}
        there = {path.name for path in needed[1].iterdir()}
        found: dict[str, list[Path]] = {}
        for name, identity in read_list(needed[0]).items():
            if name not in there:
                raise UserError(
                    f"{needed[0]} names {name}, which {needed[1]} does not hold; unpack the pictures again."
                )
            if self.part == "all" or part_of.get(name) == PARTS[self.part]:
                found.setdefault(f"celebrity {identity}", []).append(needed[1] / name)
        return found


def read_list(file: Path) -> dict[str, str]:
    """Return what an official list says of every picture, by file name.

    Raises:
        UserError: If a line does not hold a name and a number, or a picture is listed twice.
    """
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, words in enumerate(lines, 1):
        if len(words) != 2 or not words[1].isdecimal():
            raise UserError(f"Line {number} of {file} does not hold a file name and a number; download it again.")
    found = dict(lines)
    if len(found) < len(lines):
        raise UserError(f"{file} lists a picture twice; download it again.")
    return found
