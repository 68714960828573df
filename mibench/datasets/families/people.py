"""What datasets of people's photographs share: who is private, held out or the attacker's, and how pictures are cut.

People with enough pictures are put in an order; the first of them are the target's, the next ones the control
victim's, and everybody else is public, with no person in two roles. Instead of these others the attacker may own a
folder of unlike people: that is how sets without identities come in, which can be public only; FFHQ and MetFaces in
their official layouts by name (:mod:`mibench.storage.public_sets`).
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.data import Examples, InputSpec, Population, Split, shared_rows
from mibench.datasets.base import Dataset, holdout, resize, without
from mibench.datasets.families.pixels import read_image
from mibench.errors import DatasetNotFoundError, UserError
from mibench.limits import open_image
from mibench.options import Channels, Count, CountOrNone, Several, Share
from mibench.seeding import derive, generator
from mibench.storage.image_files import ENDINGS
from mibench.storage.progress import progress
from mibench.storage.public_sets import PUBLIC_SETS

Parting = Literal["most", "seeded"]

#: What stands with every table whose public images come from a folder.
UNCHECKED = (
    "The public images are a folder's: that they show other people than the private ones was checked by file content "
    "and folder name, and is otherwise the word of whoever chose it."
)


class People(Dataset):
    """Photographs of people, parted by person.

    All images are held in memory, as 4 bytes per pixel and channel: 30,000 take 1.5 GB at 64 pixels and 18 GB at 224.
    """

    #: Width and height of the official pictures; None where they differ.
    frame: ClassVar[tuple[int, int] | None] = None

    #: Pixels by which crops of the official pictures lie above their centre, as far as there is room.
    lift: ClassVar[int] = 0

    size: Count = 64
    """Pixels per side after cropping (bilinear, antialiased)."""
    crop: Count | None = None
    """Pixels per side of a picture's central square; null: the largest. Smaller square copies are taken as they are."""
    channels: Channels = 3
    """3 (colour) or 1 (grey)."""
    private_people: Several
    """People of the target."""
    held_out_people: CountOrNone
    """People of the control victim; 0 for none."""
    min_images: Several = 2
    """Fewest pictures of a person in either role; people with fewer are the attacker's."""
    max_per_class: Several | None = None
    """Most pictures of a person in either role, the first ones; null takes all."""
    parting: Parting = "seeded"
    """Order in which the roles are given: ``most`` (pictures first, equal ones by name) or ``seeded``."""
    test_fraction: Share = 0.1
    """Share of each person's pictures that the target is tested on."""
    public_root: Path | str | None = None
    """Folder of the attacker's images of unlike people, or ``ffhq`` or ``metfaces``; null takes everybody else's."""
    public_crop: Count | None = None
    """As ``crop``, of the images below ``public_root``, none of which may be smaller."""
    public_limit: Count | None = None
    """Most public images, chosen by seed; null takes all."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other or the official pictures."""
        super().__post_init__()
        if self.frame is not None and self.crop is not None and self.crop > min(self.frame):
            raise UserError(f"Expected dataset.crop to be at most {min(self.frame)} (or null), but got {self.crop}.")
        if self.held_out_people == 1:
            raise UserError("A classifier needs at least 2 people, but dataset.held_out_people (which may be 0) is 1.")
        if self.public_crop is not None and self.public_root is None:
            raise UserError("dataset.public_crop is for the images below dataset.public_root, which is not set.")

    @abstractmethod
    def people(self) -> Mapping[str, Sequence[Path]]:
        """Return the pictures of every person by name, both in a fixed order.

        Raises:
            DatasetNotFoundError: If the files are not there.
        """

    def load(self) -> Split:
        """Return the split.

        Raises:
            DatasetNotFoundError: If the files are not there.
            UserError: If there are too few people, a picture cannot be used, or one identity has two roles.
        """
        people = self.people()
        private, held_out, others = self.roles(people)
        seen = [file for name in (*private, *held_out) for file in people[name]]
        if self.public_root is None:
            files = [(label, file) for label, name in enumerate(others) for file in people[name]]
        else:
            root = public_folder(self.public_root, Path(self.data_root))
            files = [(0, file) for file in images_below(root)]
            refuse_overlap([file for _, file in files], root, seen, {*private, *held_out})
        files = self._limited(files)
        notes = [] if held_out else ["There are no control people: see dataset.held_out_people."]
        notes += [UNCHECKED] if self.public_root is not None else []
        with open_image(seen[0], decode=False) as first:
            if self.frame is not None and first.size != self.frame:
                notes.append(f"The pictures are copies of {first.width}x{first.height} pixels, cropped beforehand.")
        own = self._population(people, private, "private")
        public = self._public(files) if files else None
        copies = shared_rows(public.x, own.train.x, own.test.x) if public is not None else []
        if public is not None and copies:  # a few pictures of the official lists stand under two names
            if self.public_root is not None:
                raise UserError(
                    f"{files[copies[0]][1]} shows, pixel for pixel, a private picture; the images below "
                    "dataset.public_root must show other people: take it out."
                )
            public = without(public, copies, notes)
        return Split(
            spec=InputSpec("image", (self.channels, self.size, self.size), len(private), mirrored=True),
            private=own,
            public=public,
            held_out=self._population(people, held_out, "held_out") if held_out else None,
            class_names=tuple(private),
            notes=tuple(notes),
            subject="face",
        )

    def roles(self, people: Mapping[str, Sequence[Path]]) -> tuple[list[str], list[str], list[str]]:
        """Return the names of the private, the held-out and the other people, which are found to share nobody.

        Raises:
            UserError: If too few people have enough pictures, or a picture is listed under two people.
        """
        enough = sorted(name for name, files in people.items() if len(files) >= self.min_images)
        if (asked := self.private_people + self.held_out_people) > len(enough):
            raise UserError(
                f"dataset.private_people and dataset.held_out_people ask for {asked} people, but {len(enough)} have at "
                f"least dataset.min_images={self.min_images} pictures."
            )
        if self.parting == "most":
            order = sorted(enough, key=lambda name: -len(people[name]))
        else:
            shuffled = torch.randperm(len(enough), generator=generator(derive(self.seed, "people")))
            order = [enough[index] for index in shuffled.tolist()]
        private, held_out = order[: self.private_people], order[self.private_people : asked]
        others = sorted(set(people) - {*private, *held_out})
        for one, other in combinations((private, held_out, others), 2):
            assert not set(one) & set(other), "a person has two roles"
        files = [file for of_person in people.values() for file in of_person]
        if len({*files}) < len(files):
            twice = next(file for file in files if files.count(file) > 1)
            raise UserError(f"{twice} is listed under two people, or twice; repair the list of identities.")
        return private, held_out, others

    def _population(self, people: Mapping[str, Sequence[Path]], names: Sequence[str], role: str) -> Population:
        files = [(label, file) for label, name in enumerate(names) for file in people[name][: self.max_per_class]]
        x = self._read([file for _, file in files], role)
        examples = Examples(x, torch.tensor([label for label, _ in files]))
        return holdout(examples, self.test_fraction, derive(self.seed, role))

    def _limited(self, files: Sequence[tuple[int, Path]]) -> list[tuple[int, Path]]:
        if self.public_limit is None or len(files) <= self.public_limit:
            return list(files)
        order = torch.randperm(len(files), generator=generator(derive(self.seed, "public")))
        return [files[index] for index in sorted(order[: self.public_limit].tolist())]

    def _public(self, files: Sequence[tuple[int, Path]]) -> Examples:
        return Examples(self._read([file for _, file in files], "public"), torch.tensor([label for label, _ in files]))

    def _read(self, files: Sequence[Path], role: str) -> Tensor:
        """Return images of shape ``(N, C, size, size)`` in [0, 1]."""
        x = torch.empty(len(files), self.channels, self.size, self.size)

        def put(index: int) -> None:
            image = read_image(files[index], self.channels)
            cut = self._cut_public if role == "public" and self.public_root is not None else self._cut
            x[index] = resize(cut(image, files[index])[None], self.size)[0]

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in progress(pool.map(put, range(len(files))), f"{self.card.name} {role}", total=len(files)):
                pass
        return x

    def _cut(self, image: Tensor, file: Path) -> Tensor:
        if self.frame is None or (image.shape[2], image.shape[1]) == self.frame:
            return central(image, self.crop, file, "crop", self.lift)
        height, width = image.shape[-2:]
        if height != width or height > (self.crop or min(self.frame)):
            raise UserError(
                f"{file} has {width}x{height} pixels, neither the {self.frame[0]}x{self.frame[1]} of the official "
                f"pictures nor those of a square copy within dataset.crop={self.crop or 'null'}."
            )
        return image

    def _cut_public(self, image: Tensor, file: Path) -> Tensor:
        return central(image, self.public_crop, file, "public_crop")


def central(image: Tensor, side: int | None, file: Path, option: str, lift: int = 0) -> Tensor:
    """Return the central square of an image ``(C, H, W)`` with ``side`` pixels; None takes the largest.

    It lies ``lift`` pixels above the centre where there is room.

    Raises:
        UserError: If the image is smaller; it names the ``file`` and the ``option``.
    """
    height, width = image.shape[-2:]
    side = min(height, width) if side is None else side
    if side > min(height, width):
        raise UserError(f"{file} has {width}x{height} pixels, fewer than dataset.{option}={side}.")
    top, left = max(0, (height - side) // 2 - lift), (width - side) // 2
    return image[:, top : top + side, left : left + side]


def public_folder(root: Path | str, data_root: Path) -> Path:
    """Return the folder that ``dataset.public_root`` means: that of a set known by name, or the one it names.

    Raises:
        DatasetNotFoundError: If a set known by name is not there.
    """
    chosen = PUBLIC_SETS.get(str(root))
    if chosen is None:
        return Path(root).expanduser()
    if not (folder := data_root / chosen.images.path).is_dir():
        raise DatasetNotFoundError(chosen.name, [folder], f"see python -m mibench fetch {chosen.name}")
    return folder


def images_below(root: Path | str) -> list[Path]:
    """Return the images of a folder and all folders below it, sorted, without hidden ones.

    Raises:
        UserError: If it is no folder or holds no image.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"dataset.public_root={root} is not a folder; give one that holds images of other people.")
    files = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in ENDINGS and file.name[0] != "."]
    if not files:
        raise UserError(f"dataset.public_root={root} holds no images ({', '.join(ENDINGS)}) at any depth.")
    return files


def refuse_overlap(public: Sequence[Path], root: Path, seen: Sequence[Path], names: set[str]) -> None:
    """Raise where a public folder bears the name of a private or held-out person, or holds a file of theirs.

    Files are compared by content, and read only where another has the same number of bytes.
    """
    for file in public:
        if shared := names & {*file.relative_to(root.expanduser()).parts[:-1]}:
            raise UserError(
                f"{file} lies in a folder named as the private or held-out person '{min(shared)}': public images must "
                "show other people; take that folder out of dataset.public_root."
            )
    sizes: dict[int, list[Path]] = {}
    for file in seen:
        sizes.setdefault(file.stat().st_size, []).append(file)
    digests: dict[int, dict[bytes, Path]] = {}
    for file in public:
        if (size := file.stat().st_size) not in sizes:
            continue
        if size not in digests:
            digests[size] = {_digest(one): one for one in sizes[size]}
        if (same := digests[size].get(_digest(file))) is not None:
            raise UserError(
                f"{file} is the same picture as {same}, which is private or held out; take it out of "
                "dataset.public_root."
            )


def _digest(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()
