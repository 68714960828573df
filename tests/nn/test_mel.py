import math

import numpy as np
import pytest
import torch

from mibench.nn.mel import centres, filter_bank, hertz, mel, mel_power, relative_decibels

RATE, WINDOW, HOP = 8000, 256, 128


def tone(frequency, seconds=0.5, amplitude=1.0):
    time = torch.arange(int(seconds * RATE), dtype=torch.float64) / RATE
    return (amplitude * torch.sin(2 * math.pi * frequency * time)).float()


def power(*waves, bands=32):
    return mel_power(torch.stack(waves), filter_bank(bands, WINDOW, RATE), WINDOW, HOP)


# By hand: half of 8 kHz is at 2146.06 mel, so 32 bands are 65.03 mel apart. 440 Hz is at 549.64 mel, which is 8.45 of
# these steps, nearest to band 8 of 1 to 32; 1000 Hz is at 999.99 (15.38), 3000 Hz at 1876.64 (28.86).
@pytest.mark.parametrize(("frequency", "band"), [(440, 8), (1000, 15), (3000, 29)])
def test_a_pure_tone_is_loudest_in_its_band(frequency, band):
    loudness = power(tone(frequency))[0]
    assert (loudness.argmax(0) == band - 1).all()
    far = (torch.arange(32) - (band - 1)).abs() > 3
    assert float(loudness[far].max()) < 1e-3 * float(loudness.max())


def test_the_scale_is_the_htk_books():
    assert float(mel(torch.tensor(1000.0))) == pytest.approx(1000, abs=0.1)  # the scale is made so
    assert float(mel(torch.tensor(4000.0))) == pytest.approx(2146.06, abs=0.01)
    frequencies = torch.linspace(0, 4000, 50, dtype=torch.float64)
    assert torch.allclose(hertz(mel(frequencies)), frequencies)


def test_filters_cover_every_frequency_between_the_outer_centres_once():
    bank, middles = filter_bank(20, WINDOW, RATE), centres(20, RATE)
    frequencies = torch.arange(WINDOW // 2 + 1) * RATE / WINDOW
    inside = (frequencies >= middles[0]) & (frequencies <= middles[-1])
    assert int(inside.sum()) > 100
    assert torch.allclose(bank.sum(0)[inside], torch.ones(int(inside.sum())), atol=1e-5)
    assert float(bank.min()) == 0 and float(bank.max()) <= 1
    assert int((bank > 0).sum(0).max()) == 2, "a frequency lies in two triangles at most"


def test_power_is_that_of_a_fourier_transform_frame_by_frame():
    wave = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    bank = filter_bank(8, WINDOW, RATE)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    starts = range(0, 1000 - WINDOW + 1, HOP)
    frames = np.stack([np.fft.rfft(hann * wave.numpy()[start : start + WINDOW]) for start in starts], 1)
    expected = bank.double().numpy() @ np.abs(frames) ** 2
    assert np.allclose(mel_power(wave[None], bank, WINDOW, HOP)[0].numpy(), expected, rtol=1e-4)


def test_a_tenth_of_the_amplitude_is_20_decibels_less():
    both = power(tone(440, amplitude=0.5), tone(440, amplitude=0.05))
    assert float(10 * (both[0].max() / both[1].max()).log10()) == pytest.approx(20, abs=1e-3)
    # inside one recording, below a tone that is the loudest in both
    base = tone(440, amplitude=4)
    high, faint = relative_decibels(power(base + tone(3000), base + tone(3000, amplitude=0.1)), -80.0)
    assert float(high[28].mean() - faint[28].mean()) == pytest.approx(20, abs=0.1)
    assert torch.allclose(high[7], faint[7], atol=0.01)


def test_loudness_does_not_depend_on_the_recordings_volume():
    loud, faint = relative_decibels(power(tone(440), tone(440, amplitude=0.01)), -80.0)
    assert torch.allclose(loud, faint, atol=1e-2)
    assert float(loud.max()) == 0


def test_levels_stop_at_the_floor_and_silence_is_there():
    levels = relative_decibels(power(tone(440), torch.zeros(4000)), -60.0)
    assert float(levels[0].min()) == -60 and float(levels[0].max()) == 0
    assert bool((levels[1] == -60).all())
