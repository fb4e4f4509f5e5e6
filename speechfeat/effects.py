"""What happens to speech on its way: other sounds, rooms, tempo, telephones, codecs, stretches or bands that are lost.

Each takes mono float32 samples `[N]` and gives as many, `change_speed` and `change_tempo` apart. What is drawn at
random is drawn from the generator given, and from it alone.
"""

import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import soundfile
import soxr
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import butter, lfilter, oaconvolve, sosfiltfilt

from speechfeat.audio import probe, read_audio
from speechfeat.corpus import discover
from speechfeat.types import Utterance

NOISE_SECONDS = 60
# Noises whose power falls with frequency to the power of these: white, pink in the middle, brown.
SLOPES = (0, 0.5, 1, 1.5, 2)
# Of a telephone, by ITU-T G.711 (8 bits, mu-law) and the band of analogue lines.
TELEPHONE_RATE, TELEPHONE_BAND, MU = 8000, (300, 3400), 255
# Name -> format and subtype of libsndfile.
CODECS = {"mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS"), "vorbis": ("OGG", "VORBIS")}
# Of libsndfile, from 0 (best) to 1: at 16 kHz these give 46 to 33 kbit/s of MP3 and 135 to 24 of Opus.
COMPRESSION = (0.5, 0.92)
# That every codec takes.
CODEC_RATES = (8000, 12000, 16000, 24000, 48000)
# SpecAugment (Park et al., 2019): so many masks, each at most so much of the utterance or of the mel scale.
NUM_MASKS, LONGEST_MASK, WIDEST_MASK = 2, 0.1, 1 / 6


def add_at(samples: np.ndarray, dirt: np.ndarray, ratio: float) -> np.ndarray:
    """Add `dirt` at a signal-to-noise ratio in dB, of the mean powers of both; silence stays silence."""
    level, dirt_level = np.sqrt(np.mean(samples**2)), np.sqrt(np.mean(dirt**2))
    if dirt_level == 0:
        return samples
    return samples + dirt * (level / dirt_level * 10 ** (-ratio / 20))


def coloured_noise(rng: np.random.Generator, num_samples: int, sample_rate: int) -> np.ndarray:
    """A stretch of noise of a random colour, white to brown, steady or swelling within seconds."""
    noise = steady_noise(rng, num_samples, sample_rate, int(rng.integers(len(SLOPES))))
    if rng.random() < 0.5:
        times = np.arange(num_samples) / sample_rate
        noise = noise * (1 + np.sin(2 * np.pi * (rng.uniform(0.1, 4) * times + rng.random()))).astype(np.float32)
    return noise


def steady_noise(rng: np.random.Generator, num_samples: int, sample_rate: int, colour: int) -> np.ndarray:
    """A stretch of noise; `colour` is the place of its slope in `SLOPES`."""
    noise = _noise_bank(sample_rate)[colour]
    return noise.take(np.arange(num_samples) + rng.integers(len(noise)), mode="wrap")


@lru_cache(maxsize=2)
def _noise_bank(sample_rate: int) -> np.ndarray:
    """Noises of the slopes, `[5, N]`."""
    rng = np.random.default_rng(0)
    num_samples = NOISE_SECONDS * sample_rate
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    # Below 50 Hz brown noise would be all there is.
    frequencies = np.maximum(np.fft.rfftfreq(num_samples, 1 / sample_rate), 50)
    shaped = [np.fft.irfft(spectrum * frequencies ** (-slope / 2)) for slope in SLOPES]
    return np.stack([noise / np.std(noise) for noise in shaped]).astype(np.float32)


@lru_cache(maxsize=16)
def recordings_of(source: str) -> list[Utterance]:
    """The recordings of noises, rooms or voices; see `corpus.discover`.

    Raises:
        ParameterError: if there are none.
    """
    return discover(source)


def recorded(rng: np.random.Generator, source: str, num_samples: int, sample_rate: int) -> np.ndarray:
    """A stretch of one of the recordings of a source, from its beginning again where it is shorter.

    Raises:
        AudioError: if the recording cannot be read.
    """
    listed = recordings_of(source)
    one = listed[int(rng.integers(len(listed)))]
    length, seconds = _length(one), num_samples / sample_rate
    start = one.start + rng.uniform(0, max(0.0, length - seconds))
    wanted = min(seconds, one.start + length - start)
    return np.resize(read_audio(one.path, sample_rate, one.channel, start, wanted).samples, num_samples)


def _length(utterance: Utterance) -> float:
    """In seconds."""
    return _recording_length(utterance.path) - utterance.start if utterance.duration is None else utterance.duration


@lru_cache(maxsize=1 << 16)
def _recording_length(path: str) -> float:
    return probe(path).duration


def stretch_of(other: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """`num_samples` samples with a stretch of another recording somewhere in them."""
    result = np.zeros(num_samples, np.float32)
    first = int(rng.integers(-len(other) + 1, num_samples))
    begin, end = max(0, first), min(num_samples, first + len(other))
    result[begin:end] = other[begin - first : end - first]
    return result


def made_room(rng: np.random.Generator, sample_rate: int, seconds: tuple[float, float]) -> np.ndarray:
    """A room's impulse response: the direct sound and, behind it, noise that dies away exponentially.

    The statistical model of late reverberation of Polack (1988); 60 dB are lost in the reverberation time, which is
    drawn from the range `seconds`.
    """
    reverberation = rng.uniform(*seconds)
    times = np.arange(int(reverberation * sample_rate)) / sample_rate
    tail = rng.standard_normal(len(times)).astype(np.float32) * 10 ** (-3 * times / reverberation).astype(np.float32)
    tail[: int(rng.uniform(0.001, 0.01) * sample_rate)] = 0
    # Energy of the direct sound over that of the echo.
    ratio = 10 ** (rng.uniform(-2, 15) / 20)
    tail *= 1 / (ratio * np.sqrt(np.sum(tail**2)) + 1e-9)
    tail[0] = 1
    return tail


def recorded_room(rng: np.random.Generator, source: str, sample_rate: int) -> np.ndarray:
    """One of the impulse responses of a source, from its highest peak on, which is brought to 1.

    Raises:
        AudioError: if the recording cannot be read.
    """
    listed = recordings_of(source)
    one = listed[int(rng.integers(len(listed)))]
    response = read_audio(one.path, sample_rate, one.channel, one.start, one.duration).samples
    peak = int(np.argmax(np.abs(response)))
    return response[peak:] / (response[peak] or 1.0)


def in_room(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Speech in a room; what comes after its end is cut."""
    return oaconvolve(samples, response)[: len(samples)]


def change_speed(samples: np.ndarray, speed: float, sample_rate: int) -> np.ndarray:
    """Faster and higher (above 1) or slower and lower, `round(N / speed)` samples."""
    return soxr.resample(samples, sample_rate * speed, sample_rate, quality="LQ")


def change_tempo(samples: np.ndarray, tempo: float) -> np.ndarray:
    """Faster (above 1) or slower at the same pitch, by librosa's phase vocoder, `round(N / tempo)` samples."""
    from librosa.effects import time_stretch

    return time_stretch(samples, rate=tempo, n_fft=min(512, len(samples)))


def tilt(samples: np.ndarray, slope: float) -> np.ndarray:
    """Spectrum tilted towards low (above 0) or high, as microphones do; `slope` of a filter with two taps."""
    return lfilter([1.0, slope], [1.0], samples)


def through_band(samples: np.ndarray, sample_rate: int, narrow_rate: int) -> np.ndarray:
    """Down to a lower rate and back."""
    narrow = soxr.resample(samples, sample_rate, narrow_rate, quality="LQ")
    return _fit(soxr.resample(narrow, narrow_rate, sample_rate, quality="LQ"), len(samples))


def through_telephone(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """300 to 3400 Hz at 8 kHz, in 8 bits by the mu-law of ITU-T G.711 (its formula, not its segments)."""
    narrow = soxr.resample(samples, sample_rate, TELEPHONE_RATE, quality="LQ")
    band = butter(2, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos")
    # Forwards and backwards: nothing is delayed.
    narrow = sosfiltfilt(band, narrow, padlen=min(15, len(narrow) - 1))
    companded = np.sign(narrow) * np.log1p(MU * np.minimum(np.abs(narrow), 1)) / np.log1p(MU)
    companded = np.round(companded * (MU // 2)) / (MU // 2)
    narrow = np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(MU)) / MU
    return _fit(soxr.resample(narrow.astype(np.float32), TELEPHONE_RATE, sample_rate, quality="LQ"), len(samples))


def through_codec(samples: np.ndarray, sample_rate: int, codec: str, compression: float) -> np.ndarray:
    """Coded and decoded by libsndfile, whose decoders take the delay of its coders back.

    Args:
        samples: clipped at full scale.
        sample_rate: in Hz; other rates than `CODEC_RATES` go through 48 kHz.
        codec: one of `CODECS`.
        compression: from 0 to below 1.
    """
    rate = sample_rate if sample_rate in CODEC_RATES else max(CODEC_RATES)
    format_, subtype = CODECS[codec]
    file = io.BytesIO()
    there = np.clip(soxr.resample(samples, sample_rate, rate), -1, 1)
    soundfile.write(file, there, rate, format=format_, subtype=subtype, compression_level=compression)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return _fit(soxr.resample(decoded, rate, sample_rate), len(samples))


def mask_time(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two stretches, each of at most a tenth of the utterance, silenced."""
    result = samples.copy()
    for _ in range(NUM_MASKS):
        width = int(rng.integers(int(LONGEST_MASK * len(samples)) + 1))
        first = int(rng.integers(len(samples) - width + 1))
        result[first : first + width] = 0
    return result


def mask_bands(samples: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Two bands, each at most a sixth of the mel scale wide, taken out of the spectrum."""
    length = next_fast_len(len(samples), real=True)
    spectrum = rfft(samples, length)
    # The mel scale of O'Shaughnessy (1987), in parts of what there is.
    mels = np.log1p(rfftfreq(length, 1 / sample_rate) / 700) / np.log1p(sample_rate / 2 / 700)
    for _ in range(NUM_MASKS):
        width = rng.uniform(0, WIDEST_MASK)
        low = rng.uniform(0, 1 - width)
        spectrum[(mels >= low) & (mels < low + width)] = 0
    return irfft(spectrum, length)[: len(samples)]


def babble(voices: Sequence[np.ndarray], num_samples: int) -> np.ndarray:
    """Voices at once, each as loud as the others."""
    levels = [np.sqrt(np.mean(voice**2)) for voice in voices]
    return sum(
        (np.resize(voice, num_samples) / level for voice, level in zip(voices, levels, strict=True) if level > 0),
        start=np.zeros(num_samples, np.float32),
    )


def _fit(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut, or filled up with zeros."""
    missing = num_samples - len(samples)
    return samples[:num_samples] if missing <= 0 else np.pad(samples, (0, missing))
