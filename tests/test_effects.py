"""What each effect promises: ratios, bands, lengths, and what is drawn from where."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechfeat import effects
from speechfeat.augmentation import NOISES, Augmentation
from speechfeat.errors import ParameterError
from tests.families.case import speech_like

RATE = 16000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def power(samples: np.ndarray, low: float = 0, high: float = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(spectrum[(hertz >= low) & (hertz < high)].sum())


def speech() -> np.ndarray:
    return speech_like(20000)[0]


def decibels(signal: np.ndarray, noise: np.ndarray) -> float:
    return 10 * np.log10(np.mean(signal.astype(float) ** 2) / np.mean(noise.astype(float) ** 2))


@pytest.mark.parametrize("source", NOISES)
@pytest.mark.parametrize("ratio", [-5, 10, 30])
def test_noise_has_the_ratio_asked_for(source: str, ratio: float) -> None:
    augment = Augmentation.only(noise=1.0, noise_source=source, noise_ratio=(ratio, ratio))
    noisy, _ = augment(speech(), rng(), [speech_like(9000)[0]])
    assert decibels(speech(), noisy - speech()) == pytest.approx(ratio, abs=0.05)


def test_noises_fall_with_frequency_as_their_names_say() -> None:
    for colour, slope in enumerate(effects.SLOPES):
        noise = effects.steady_noise(rng(), effects.NOISE_SECONDS * RATE, RATE, colour)
        # From one octave to the next the band doubles and the density falls.
        octaves = np.log2(power(noise, 2000, 4000) / power(noise, 1000, 2000))
        assert octaves == pytest.approx(1 - slope, abs=0.15)


def test_noise_of_a_folder_is_a_stretch_of_one_of_its_recordings(tmp_path: Path) -> None:
    long, short = (rng(seed).uniform(-0.5, 0.5, size).astype(np.float32) for seed, size in ((1, 48000), (2, 4000)))
    soundfile.write(tmp_path / "long.wav", long, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", short, RATE, subtype="FLOAT")
    sources = set()
    for seed in range(8):
        found = effects.recorded(rng(seed), str(tmp_path), 20000, RATE)
        is_short = np.allclose(found[:4000], short)
        sources.add(is_short)
        if is_short:
            assert np.allclose(found[4000:8000], short)
        else:
            first = int(np.flatnonzero(long == found[0])[0])
            assert np.array_equal(found, long[first : first + 20000])
    assert sources == {True, False}


def test_a_recorded_room_is_the_convolution_with_its_response(tmp_path: Path) -> None:
    response = np.zeros(3000, np.float32)
    response[[700, 1100]] = 0.5, 0.25
    soundfile.write(tmp_path / "room.wav", response, RATE, subtype="FLOAT")
    echoed, _ = Augmentation.only(room=1.0, room_source=str(tmp_path))(speech(), rng())
    expected = speech() + 0.5 * np.concatenate([np.zeros(400), speech()[:-400]])
    assert np.allclose(echoed, expected, atol=1e-5)


def test_a_made_room_loses_60_db_in_its_time() -> None:
    response = effects.made_room(rng(3), RATE, (0.5, 0.5))
    # Energy that is still to come (Schroeder, 1965), between the early part and the cut at the end.
    rest = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])
    seconds = np.arange(len(response)) / RATE
    fitted = (seconds > 0.05) & (seconds < 0.35)
    slope = np.polyfit(seconds[fitted], rest[fitted], 1)[0]
    assert -60 / slope == pytest.approx(0.5, rel=0.1)


def test_a_telephone_keeps_300_to_3400_hz_and_the_level() -> None:
    noise = 0.1 * rng().standard_normal(4 * RATE).astype(np.float32)
    heard = effects.through_telephone(noise, RATE)
    assert len(heard) == len(noise)
    assert power(heard, 500, 3000) == pytest.approx(power(noise, 500, 3000), rel=0.1)
    assert power(heard, 0, 100) < 0.01 * power(noise, 0, 100)
    assert power(heard, 4100) < 1e-3 * power(noise, 4100)


@pytest.mark.parametrize("level", [0.5, 0.05])
def test_the_mu_law_leaves_the_noise_of_8_bits_whatever_the_level(level: float) -> None:
    times = np.arange(RATE) / RATE
    basis = np.stack([np.sin(2 * np.pi * 1013 * times), np.cos(2 * np.pi * 1013 * times)], axis=1)
    heard = effects.through_telephone((level * basis[:, 0]).astype(np.float32), RATE)
    inner = slice(1000, -1000)
    fitted = basis[inner] @ np.linalg.lstsq(basis[inner], heard[inner], rcond=None)[0]
    # About 38 dB; 8 bits in even steps would leave 44 and 24.
    assert 34 < decibels(fitted, heard[inner] - fitted) < 42


@pytest.mark.parametrize("codec", effects.CODECS)
@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_a_codec_keeps_the_length_and_the_place_of_sounds(codec: str, rate: int) -> None:
    times = np.arange(2 * rate) / rate
    tone = (0.3 * np.sin(2 * np.pi * 440 * times) * (times > 1)).astype(np.float32)
    for length in (len(tone), len(tone) - 7, 500):
        assert effects.through_codec(tone[-length:], rate, codec, 0.7).shape == (length,)
    heard = effects.through_codec(tone, rate, codec, 0.5)
    assert decibels(tone, heard - tone) > 10
    assert not np.array_equal(heard, tone)


def test_masks_take_out_stretches_and_bands_and_leave_the_rest() -> None:
    silenced = effects.mask_time(speech() + 1, rng(1))
    gone = silenced == 0
    assert 0 < gone.mean() <= 0.2
    assert np.array_equal(silenced[~gone], (speech() + 1)[~gone])
    noise = rng().standard_normal(16384)
    ratio = np.abs(np.fft.rfft(effects.mask_bands(noise, rng(1), RATE))) / np.abs(np.fft.rfft(noise))
    out = ratio < 1e-6
    assert out.any()
    assert np.allclose(ratio[~out], 1)
    assert np.diff(np.flatnonzero(np.diff(out.astype(int)))).size <= 3  # at most two bands, four edges


def test_babble_without_voices_is_refused() -> None:
    with pytest.raises(ParameterError, match="noise_source='babble' has no other voices; name recordings with voices="):
        Augmentation.only(noise=1.0, noise_source="babble")(speech(), rng())
