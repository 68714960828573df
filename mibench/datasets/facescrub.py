"""FaceScrub: photographs of 530 actors and actresses, found on the web and cleaned.

H.-W. Ng and S. Winkler, A data-driven approach to cleaning large face datasets, ICIP 2014
(https://vintage.winklerbros.net/facescrub.html). What is published are lists of addresses with face boxes, many of them
dead by now, so no two copies are alike and there is no checksum of a copy: state yours beside your numbers. For
research; the pictures are kept off public pages. Layout, as the lists' downloaders leave it: cropped faces of any size
in ``facescrub/actors/faces/<person>/*`` and ``facescrub/actresses/faces/<person>/*``.

In PPA (Struppek et al., ICML 2022) all 530 are private and the attacker's generator has learned FFHQ, which leaves
nobody for a control: ``private_people=530 held_out_people=0 public_root=...``. The default keeps 200 for the target,
200 for the control and 130 for the attacker, in an order drawn by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mibench.card import DatasetCard
from mibench.datasets.families.people import People
from mibench.options import CountOrNone, Several
from mibench.storage.fetching import Download
from mibench.storage.image_files import ENDINGS

GROUPS = ("actors", "actresses")


class FaceScrub(People):
    """FaceScrub."""

    card = DatasetCard(
        name="facescrub",
        title="FaceScrub",
        modalities=("image",),
        year=2014,
        licence="research only; the photographs belong to their photographers",
        may_show=False,
    )
    downloads = (
        Download(
            path="facescrub/actors/faces",
            by_hand="ask for the lists at https://vintage.winklerbros.net/facescrub.html, download the pictures that "
            "they name, and put the cropped faces into facescrub/actors/faces/PERSON and "
            "facescrub/actresses/faces/PERSON",
        ),
    )

    private_people: Several = 200
    """People of the target."""
    held_out_people: CountOrNone = 200
    """People of the control victim; 0 for none."""

    def people(self) -> Mapping[str, Sequence[Path]]:
        """Return the faces of every person, by name."""
        folders = self.places(*(f"facescrub/{group}/faces" for group in GROUPS))
        found = {
            person.name: files
            for folder in folders
            for person in sorted(folder.glob("[!.]*"))
            if (files := [file for file in sorted(person.glob("[!.]*")) if file.suffix.lower() in ENDINGS])
        }
        if not found:
            raise self.not_found(folders)
        return found
