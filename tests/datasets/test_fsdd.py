import math
import sys
import wave

import numpy as np
import pytest
import torch

from mibench.datasets.fsdd import FLOOR, RATE, SAME_SPEAKERS, Fsdd, centred_at
from mibench.errors import DatasetNotFoundError, UserError

soundfile = pytest.importorskip("soundfile", reason="recordings are read with soundfile")

SPEAKERS = ("ann", "bob", "cleo", "dan", "eve", "finn")


def write_wave(file, samples, rate=RATE):
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((np.asarray(samples) * 32767).astype("<i2").tobytes())


def pitch(speaker):
    return 300 * (SPEAKERS.index(speaker) + 1)


@pytest.fixture(scope="module")
def six_speakers(tmp_path_factory):
    """The official layout: every speaker hums at a pitch of their own, digits differ in length."""
    root = tmp_path_factory.mktemp("recordings")
    folder = root / "free-spoken-digit-dataset" / "recordings"
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for speaker in SPEAKERS:
        for digit in range(4):
            for take in range(4):
                time = np.arange(2500 + 800 * digit) / RATE
                hum = 0.5 * np.sin(2 * math.pi * pitch(speaker) * time) + 0.01 * draws.standard_normal(len(time))
                write_wave(folder / f"{digit}_{speaker}_{take}.wav", hum)
    (folder / "notes.wav").write_text("no recording")
    return root


def load(root, **options):
    return Fsdd(data_root=root, **options).load()


def pitches(examples):
    """Returns the frequency in Hz of every spectrogram's loudest band."""
    from mibench.nn.mel import centres

    return centres(examples.x.shape[2], RATE)[examples.x.mean(3)[:, 0].argmax(1)]


def speakers_of(examples):
    near = (pitches(examples)[:, None] - torch.tensor([pitch(one) for one in SPEAKERS])).abs().argmin(1)
    return [SPEAKERS[index] for index in near.tolist()]


def test_spectrograms_are_decibels_below_the_loudest_bin(six_speakers):
    split = load(six_speakers)
    assert split.spec.modality == "audio" and split.spec.shape == (1, 32, 32)
    assert (split.spec.low, split.spec.high) == (FLOOR, 0.0)
    x = split.private.train.x
    assert bool((x.flatten(1).amax(1) == 0).all()) and float(x.min()) >= FLOOR


def test_speakers_are_parted_by_name_and_bear_their_own_recordings(six_speakers):
    split = load(six_speakers)
    assert split.class_names == SPEAKERS[:3]
    for part in (split.private.train, split.private.test):
        assert speakers_of(part) == [SPEAKERS[label] for label in part.y]
    assert set(speakers_of(split.public)) == set(SPEAKERS[3:])
    assert split.held_out_is_public and any("coincide" in note for note in split.notes)
    assert any("Of the 3,000 official recordings 96 are there" in note for note in split.notes)


def test_held_out_speakers_are_nobody_elses(six_speakers):
    split = load(six_speakers, private_classes=2, held_out_classes=2)
    assert set(speakers_of(split.held_out.train)) == {"cleo", "dan"}
    assert set(speakers_of(split.public)) == {"eve", "finn"}
    assert not split.held_out_is_public and not any("coincide" in note for note in split.notes)


def test_digits_are_classes_where_the_label_says_so(six_speakers):
    split = load(six_speakers, label="digit", frames=48)
    assert split.class_names == ("digit 0", "digit 1") and SAME_SPEAKERS in split.notes
    assert set(speakers_of(split.private.train)) == set(speakers_of(split.public)) == set(SPEAKERS)
    lengths = (split.private.train.x.amax(2)[:, 0] > FLOOR / 2).sum(1)  # digit 1 takes longer
    assert lengths[split.private.train.y == 0].max() < lengths[split.private.train.y == 1].min()


def test_a_recording_is_padded_or_cut_on_both_sides():
    assert centred_at(torch.tensor([1.0, 2.0]), 5).tolist() == [0, 1, 2, 0, 0]
    assert centred_at(torch.arange(7.0), 3).tolist() == [2, 3, 4]
    assert centred_at(torch.arange(3.0), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("mels", "frames"), [(16, 40), (24, 8)])
def test_bands_and_frames_are_as_many_as_asked_for(six_speakers, mels, frames):
    assert load(six_speakers, mels=mels, frames=frames).private.train.x.shape[1:] == (1, mels, frames)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mels": 120}, "dataset.mels=120 bands are too many for dataset.window=256"),
        ({"private_classes": 6}, "ask for 6 speakers, but there are 6"),
        ({"private_classes": 5}, "the control victim would have 1"),
        ({"held_out_classes": 1}, "the control victim would have 1"),
        ({"label": "word"}, "dataset.label to be speaker or digit"),
    ],
)
def test_options_are_checked(six_speakers, options, says):
    with pytest.raises(UserError, match=says):
        load(six_speakers, **options)


def test_without_soundfile_one_sentence_says_how_to_get_it(six_speakers, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(UserError, match=r"soundfile, which is not installed; install it with pip install 'mibench"):
        load(six_speakers)


def folder_with(root, samples=None, rate=RATE):
    folder = root / "free-spoken-digit-dataset" / "recordings"
    folder.mkdir(parents=True)
    for speaker in SPEAKERS:
        write_wave(folder / f"0_{speaker}_0.wav", np.zeros(4000), rate)
    if samples is not None:
        (folder / "0_bob_0.wav").write_bytes(samples)
    return root


def test_a_broken_recording_is_named(tmp_path):
    with pytest.raises(UserError, match=r"0_bob_0\.wav cannot be read"):
        load(folder_with(tmp_path, b"RIFF, and nothing more"))


def test_a_recording_at_another_rate_is_named(tmp_path):
    with pytest.raises(UserError, match=r"0_ann_0\.wav has 1 channels at 16000 Hz"):
        load(folder_with(tmp_path, rate=16000))


def test_a_cell_of_speakers_runs_on_spectrograms_from_the_start_to_the_sheet(six_speakers, make_cell, tmp_path):
    words = ("attack=mi_face", "dataset=fsdd", f"paths.data={six_speakers}", "dataset.mels=8", "dataset.frames=16")
    cell = make_cell(*words, "target.recipe.min_steps=100", "evaluation.models=[mlp]", "control=none", folder=tmp_path)
    assert cell.config["target"]["name"] == "audio_cnn" and [card.name for card in cell.judges] == ["mlp"]
    outcome = cell.run()
    values = {(score.metric, score.variant): score.value for score in outcome.scores}
    assert values["target_accuracy", "victim"] == 1
    assert {"attack_accuracy", "knn_distance", "agreed_accuracy"} <= {metric for metric, _ in values}
    assert outcome.picture is not None and outcome.picture.is_file()
    assert SAME_SPEAKERS not in outcome.notes


def test_the_real_recordings(data_root):
    try:
        split = Fsdd(data_root=data_root).load()
    except DatasetNotFoundError as missing:
        pytest.skip(str(missing))
    assert split.class_names == ("george", "jackson", "lucas") and split.public.y.unique().tolist() == [0, 1, 2]
    x = split.private.train.x
    voice, hiss = x[:, 0, 2:8].mean(), x[:, 0, -4:].mean()
    assert float(voice) > float(hiss) + 10, "speech at 8 kHz is loudest below 1 kHz"
