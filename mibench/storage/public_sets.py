"""Face sets without identities, which an attacker's prior learns from: what must be got by hand, and how it is checked.

They stand below ``paths.data`` in their official layouts and are chosen by name, ``dataset.public_root=ffhq``, for any
dataset of people. Both are sent by Google Drive, which no program can rely on, and come with an index that holds the
MD5 of every image. Facts are those of the official repositories, NVlabs/ffhq-dataset (193deb6) and
NVlabs/metfaces-dataset (7eb7adf).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mibench.errors import FetchError, UserError
from mibench.limits import TEXT, content
from mibench.storage.fetching import Download, fetch, found
from mibench.storage.progress import progress


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """One set in its official layout.

    Attributes:
        name: How it is chosen.
        folder: Where it lies below ``paths.data``.
        images: The folder of its images in there, with what has to be done for them.
        index: The file that lists them.
        count: Images of the complete set.
        entry: The keys below which an image's path and MD5 stand in an entry of the index.
    """

    name: str
    folder: str
    images: Download
    index: Download
    count: int
    entry: tuple[str, ...]

    @property
    def downloads(self) -> tuple[Download, ...]:
        """What has to be there, in the order in which it is needed."""
        return (self.index, self.images)

    def checksums(self, root: Path) -> dict[Path, str]:
        """Return the MD5 of every image by its path, as the index has them.

        Raises:
            FetchError: If the index is not one.
        """
        file = root / self.index.path
        try:
            parsed = json.loads(content(file, str(file), TEXT))
            entries: Sequence[Any] = list(parsed.values()) if isinstance(parsed, Mapping) else parsed
            *way, path, md5 = self.entry
            for key in way:
                entries = [one[key] for one in entries]
            return {root / self.folder / str(one[path]): str(one[md5]) for one in entries}
        except (UserError, OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise FetchError(f"{file} is not the index of {self.name}; remove it and download it again.") from error


FFHQ = PublicSet(
    name="ffhq",
    folder="ffhq",
    images=Download(
        path="ffhq/thumbnails128x128",
        by_hand="download the folder thumbnails128x128 (70,000 images, 1.95 GB; non-commercial use) as "
        "https://github.com/NVlabs/ffhq-dataset says, python download_ffhq.py --json --thumbs in the folder ffhq, so "
        "that it holds thumbnails128x128/00000/00000.png",
    ),
    index=Download(
        path="ffhq/ffhq-dataset-v2.json",
        by_hand="download ffhq-dataset-v2.json (255 MB, with the MD5 of every image) as "
        "https://github.com/NVlabs/ffhq-dataset says, python download_ffhq.py --json in the folder ffhq",
        md5="425ae20f06a4da1d4dc0f46d40ba5fd6",
    ),
    count=70000,
    entry=("thumbnail", "file_path", "file_md5"),
)

METFACES = PublicSet(
    name="metfaces",
    folder="metfaces",
    images=Download(
        path="metfaces/images",
        by_hand="download the folder images (1,336 images, 1.6 GB; non-commercial use) that "
        "https://github.com/NVlabs/metfaces-dataset links to, and put it into the folder metfaces, so that it holds "
        "images/11713-00.png",
    ),
    index=Download(
        path="metfaces/metfaces.json",
        by_hand="download metfaces.json (1.8 MB, with the MD5 of every image) that "
        "https://github.com/NVlabs/metfaces-dataset links to, and put it into the folder metfaces",
    ),
    count=1336,
    entry=("image_path", "image_md5"),
)

PUBLIC_SETS: Mapping[str, PublicSet] = {one.name: one for one in (FFHQ, METFACES)}


def fetch_set(one: PublicSet, root: Path) -> list[str]:
    """Return what can be said of a set, clause by clause, after checking every image against the index.

    Raises:
        FetchError: If something has to be got by hand, or is not as published.
    """
    if missing := [file for file in one.downloads if found(file, root) is None]:
        wanted = "; and ".join(file.by_hand for file in missing)
        raise FetchError(f"This has to be done by hand, below {root}: {wanted}.")
    return [fetch(one.index, root), f"{root / one.images.path}: {verified(one, root)}"]


def verified(one: PublicSet, root: Path) -> str:
    """Return how many images were found to be the published ones, as a clause.

    Raises:
        FetchError: If one is missing or another than the published one; it names the first.
    """
    published = one.checksums(root)
    if len(published) != one.count:
        raise FetchError(
            f"{root / one.index.path} lists {len(published)} images instead of the {one.count} of {one.name}; remove "
            "it and download it again."
        )
    if absent := [file for file in published if not file.is_file()]:
        raise FetchError(f"{len(absent)} of {one.count} images of {one.name} are missing, such as {absent[0]}.")
    with ThreadPoolExecutor() as pool:
        digests = progress(pool.map(_md5, published), one.name, total=len(published))
        wrong = [file for file, md5 in zip(published, digests, strict=True) if md5 != published[file]]
    if wrong:
        raise FetchError(
            f"{len(wrong)} of {one.count} images of {one.name} are not the published ones, such as {wrong[0]}; "
            "remove them and download them again."
        )
    return f"all {one.count} images are there, and their MD5 are the published ones"


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
