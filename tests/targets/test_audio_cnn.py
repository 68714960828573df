import pytest
import torch

from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.targets.audio_cnn import AudioCnn
from mibench.training import Recipe, Training

SPEC = InputSpec("audio", (1, 16, 16), 3, low=-80.0, high=0.0)

#: The band of each class's tone.
BANDS = (2, 7, 13)


def tones(n=120, begin=0, length=8, seed=0):
    """Noise at -60 decibels with a tone of the class, from frame ``begin`` on."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    x = (-60 + 10 * torch.randn(n, 1, 16, 16, generator=draws)).clamp(-80, 0)
    for row, label in enumerate(y.tolist()):
        x[row, 0, BANDS[label], begin : begin + length] = -5
    return Examples(x, y)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return Training(
        AudioCnn(spec=SPEC, width=8), tones(), Recipe(epochs=8, batch_size=20, lr=5e-3), 0, torch.device("cpu")
    ).run()


def share_right(model, examples):
    return float((model.predict_proba(examples.x).argmax(1) == examples.y).float().mean())


def test_three_tones_are_told_apart(trained):
    assert share_right(trained, tones(seed=1)) == 1
    torch.manual_seed(0)
    assert share_right(AudioCnn(spec=SPEC, width=8).eval(), tones(seed=1)) < 0.7


def test_it_does_not_matter_when_a_tone_sounds(trained):
    assert share_right(trained, tones(begin=8, seed=2)) == 1


def test_it_matters_which_band_sounds(trained):
    moved = tones(seed=3)
    assert share_right(trained, Examples(moved.x.flip(2), moved.y)) < 0.7


def test_decibels_are_centred_inside_the_model():
    ends = AudioCnn(spec=SPEC).normalise(torch.tensor([-80.0, -40.0, 0.0]).reshape(3, 1, 1, 1))
    assert ends.flatten().tolist() == [-1, 0, 1]


def test_spectrograms_that_are_pooled_away_are_refused():
    with pytest.raises(UserError, match="16 bands and 4 frames"):
        AudioCnn(spec=InputSpec("audio", (1, 16, 4), 3, low=-80.0, high=0.0))
