"""Free Spoken Digit Dataset: six people who speak the ten English digits, 50 times each, at 8 kHz.

Z. Jackson, C. Souza, J. Flaks, Y. Pan, H. Nicolas and A. Thite, Jakobovski/free-spoken-digit-dataset, Zenodo 2018,
https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0. Layout:
``free-spoken-digit-dataset/recordings/<digit>_<speaker>_<take>.wav``; where these are fewer than the official
recordings, a note says how many.

An input is a log-mel spectrogram (:mod:`mibench.nn.mel`) of shape ``(1, mels, frames)``, in decibels below the
recording's loudest bin, from ``FLOOR`` to 0; band 0 is the lowest. Every recording is padded with silence, or cut, on
both sides to the length that ``frames`` need; 32 frames are 0.53 s, and half of the recordings are longer than 0.42 s.

A class is a speaker or a digit. The first classes by name are private, the next ones held out for the control, and the
rest is public. There are few classes, so by default the control victim learns the public ones. Half of six speakers are
fewer than the five targets that a verdict takes; half of the digits are enough, but the same six people speak the
private and the public ones.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mibench.card import DatasetCard
from mibench.data import Split
from mibench.datasets.base import Dataset, class_split
from mibench.errors import UserError
from mibench.limits import GIB, plain_file
from mibench.nn.mel import filter_bank, mel_power, relative_decibels
from mibench.options import Count, CountOrNone, Several, Share
from mibench.storage.fetching import Download

#: Samples per second of the recordings.
RATE = 8000

#: Decibels below the loudest bin under which nothing is told apart.
FLOOR = -80.0

#: Number of official recordings.
OFFICIAL = 3000

FOLDERS = (
    "free-spoken-digit-dataset/recordings",
    "free-spoken-digit-dataset-26eb9aaf76e81b692f806f9140c2d2777410d7a1/recordings",
)

NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")

SAME_SPEAKERS = "The same people speak the private and the public digits."


class Fsdd(Dataset):
    """Spoken digits as log-mel spectrograms."""

    card = DatasetCard(
        name="fsdd",
        title="Free Spoken Digit Dataset",
        modalities=("audio",),
        year=2018,
        licence="CC BY-SA 4.0",
        may_show=True,
        tasks=("class",),
    )
    downloads = (
        Download(
            path="free-spoken-digit-dataset-26eb9aaf76e81b692f806f9140c2d2777410d7a1/recordings/0_george_0.wav",
            url="https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aaf76e81b692f806f9140c2d2777410d7a1.zip",
            unpack="zip",
            instead=("free-spoken-digit-dataset/recordings",),
        ),
    )

    label: Literal["speaker", "digit"] = "speaker"
    """What the target tells apart: who speaks (``speaker``) or what is said (``digit``)."""
    mels: Count = 32
    """Bands of the spectrogram."""
    frames: Several = 32
    """Frames of the spectrogram."""
    window: Several = 256
    """Samples per frame."""
    hop: Count = 128
    """Samples from one frame's beginning to the next one's."""
    private_classes: Several | None = None
    """Classes of the target: the first ones by name; null: half of all."""
    held_out_classes: CountOrNone = 0
    """Classes of the control victim: the next ones; 0: it learns the public ones. The rest is public."""
    test_fraction: Share = 0.25
    """Share of each class's recordings that the target is tested on."""

    def load(self) -> Split:
        """Return the split.

        Raises:
            DatasetNotFoundError: If there are no recordings.
            UserError: If a recording cannot be read, or more classes are asked for than there are.
        """
        files = self._files()
        names = sorted({self._class_of(file) for file in files})
        private = len(names) // 2 if self.private_classes is None else self.private_classes
        parted = private + self.held_out_classes
        if parted >= len(names):
            raise UserError(
                f"dataset.private_classes and dataset.held_out_classes ask for {parted} {self.label}s, but there are "
                f"{len(names)}, at least one of which has to be public."
            )
        if self.held_out_classes == 1 or (not self.held_out_classes and len(names) - private < 2):
            raise UserError(
                "A classifier needs at least 2 classes, but the control victim would have 1; change "
                "dataset.private_classes or dataset.held_out_classes."
            )
        notes = [f"Of the 3,000 official recordings {len(files):,} are there."] if len(files) < OFFICIAL else []
        notes += [SAME_SPEAKERS] if self.label == "digit" else []
        split = class_split(
            self.spectrograms(torch.stack([self._wave(file) for file in files])),
            torch.tensor([names.index(self._class_of(file)) for file in files]),
            private=range(private),
            public=range(parted, len(names)),
            held_out=range(private, parted) if self.held_out_classes else None,
            test_fraction=self.test_fraction,
            seed=self.seed,
            class_names=names if self.label == "speaker" else [f"digit {name}" for name in names],
            notes=notes,
        )
        return dataclasses.replace(split, spec=dataclasses.replace(split.spec, modality="audio", low=FLOOR, high=0.0))

    def spectrograms(self, waves: Tensor) -> Tensor:
        """Return log-mel spectrograms ``(N, 1, mels, frames)`` of waves ``(N, samples)``, in decibels.

        Raises:
            UserError: If there are so many bands that one of them holds no frequency of the short-time spectrum.
        """
        bank = filter_bank(self.mels, self.window, RATE)
        if not bool((bank.amax(1) > 0).all()):
            raise UserError(
                f"dataset.mels={self.mels} bands are too many for dataset.window={self.window} samples: some band "
                "would hold no frequency; take fewer bands or a longer window."
            )
        return relative_decibels(mel_power(waves, bank, self.window, self.hop), FLOOR)[:, None]

    @property
    def samples(self) -> int:
        """Samples of a recording that the frames cover."""
        return self.window + (self.frames - 1) * self.hop

    def _files(self) -> list[Path]:
        looked = self.places(*FOLDERS)
        for folder in looked:
            if files := sorted(file for file in folder.glob("*.wav") if NAME.fullmatch(file.name)):
                return files
        raise self.not_found(looked)

    def _class_of(self, file: Path) -> str:
        digit, speaker, _ = file.stem.split("_")
        return digit if self.label == "digit" else speaker

    def _wave(self, file: Path) -> Tensor:
        return centred_at(read_wave(file), self.samples)


def read_wave(file: Path) -> Tensor:
    """Return the samples of a recording, from -1 to 1, shape ``(samples,)``.

    Raises:
        UserError: If soundfile is not installed, or the file is no such recording.
    """
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there and its library is not
        raise UserError(
            "dataset=fsdd reads its recordings with the package soundfile, which is not installed; install it with "
            "pip install 'mibench[audio]'."
        ) from error
    try:
        samples, rate = soundfile.read(plain_file(file, str(file), GIB), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{file} cannot be read as a recording ({error}); unpack the data set again.") from error
    if rate != RATE or samples.shape[1] != 1:
        raise UserError(
            f"{file} has {samples.shape[1]} channels at {rate} Hz, not one at the {RATE} Hz of the data set."
        )
    return torch.from_numpy(samples[:, 0])


def centred_at(wave: Tensor, length: int) -> Tensor:
    """Return the middle ``length`` samples of a wave, which silence surrounds."""
    missing = length - len(wave)
    before = missing // 2
    return torch.nn.functional.pad(wave, (before, missing - before))
