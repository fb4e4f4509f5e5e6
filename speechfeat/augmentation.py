"""Dirty speech from clean: noise, rooms, other voices, speed, gain, spectral tilt, telephone band.

    augment = Augmentation(noise=0.5, band=0.2)
    samples, speed = augment(samples, rng, others=[another])

Everything is generated, so that no corpus of noises or rooms is needed.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import soxr
from scipy.signal import lfilter, oaconvolve

from speechfeat.errors import ParameterError
from speechfeat.types import Utterance

NOISE_SECONDS = 60
# A copy keeps at least this share of the utterance's length.
LEAST_CROP = 0.7


@dataclass(frozen=True)
class Augmentation:
    """How often each kind of dirt is added: probabilities, drawn independently.

    Attributes:
        speed: speed, and with it pitch, changed by up to a tenth.
        mix: another voice, 3 to 20 dB below.
        room: the echo of a room with a reverberation time of 0.1 to 0.8 s; what comes first stays in place.
        noise: white to brown noise, steady or swelling, 0 to 30 dB below.
        tilt: spectrum tilted towards high or low, as microphones do.
        band: limited to 4 kHz, as telephones and 8 kHz corpora are.
        gain: level changed by -25 to 10 dB, clipped at full scale.
        sample_rate: of the samples, in Hz.

    Raises:
        ParameterError: if a probability is outside [0, 1].
    """

    speed: float = 0.2
    mix: float = 0.1
    room: float = 0.2
    noise: float = 0.3
    tilt: float = 0.3
    band: float = 0.25
    gain: float = 0.8
    sample_rate: int = 16000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "sample_rate" and not 0 <= value <= 1:
                raise ParameterError(f"{field.name}={value} must be a probability, in [0, 1]")

    def scaled(self, factor: float) -> "Augmentation":
        """The same with all probabilities multiplied, at most to 1."""
        names = [field.name for field in fields(self) if field.name != "sample_rate"]
        return replace(self, **{name: min(1.0, factor * getattr(self, name)) for name in names})

    def __call__(
        self, samples: np.ndarray, rng: np.random.Generator, others: Sequence[np.ndarray] = ()
    ) -> tuple[np.ndarray, float]:
        """A dirty copy.

        Args:
            samples: mono, float32.
            rng: decides everything; equal states give equal copies.
            others: recordings of other voices, for `mix`.

        Shape:
            samples `[N]` -> `[round(N / speed)]`

        Returns:
            The copy, and the speed: time t of the copy is time `t * speed` of the original.
        """
        draw = {field.name: rng.random() < getattr(self, field.name) for field in fields(self)[:-1]}
        speed = 1.0
        if draw["speed"]:
            speed = float(rng.uniform(0.9, 1.1))
            samples = soxr.resample(samples, self.sample_rate * speed, self.sample_rate, quality="LQ")
        if draw["mix"] and others:
            samples = _add(samples, _stretch_of(others[int(rng.integers(len(others)))], len(samples), rng), 3, 20, rng)
        if draw["room"]:
            samples = oaconvolve(samples, _room(rng, self.sample_rate))[: len(samples)]
        if draw["noise"]:
            samples = _add(samples, _noise(rng, len(samples), self.sample_rate), 0, 30, rng)
        if draw["tilt"]:
            samples = lfilter([1.0, rng.uniform(-0.6, 0.6)], [1.0], samples)
        if draw["band"]:
            samples = _through(samples.astype(np.float32), self.sample_rate, 8000)
        if draw["gain"]:
            samples = np.clip(samples * 10 ** (rng.uniform(-25, 10) / 20), -1, 1)
        return samples.astype(np.float32, copy=False), speed


# Copies for test-time augmentation: other speeds, levels and a little noise, but no other voice, room or telephone.
MILD = Augmentation(speed=0.5, mix=0.0, room=0.0, noise=0.5, tilt=0.3, band=0.0, gain=0.5)


def copies_of(utterances: Iterable[Utterance], num: int) -> list[Utterance]:
    """`num` copies of each utterance, to be augmented when they are read; the i-th of "a" has the id "a#i".

    Raises:
        ParameterError: if `num` is below 1.
    """
    if num < 1:
        raise ParameterError(f"num={num} copies must be at least 1")
    return [
        replace(utterance, id=f"{utterance.id}#{number}", copy=number)
        for utterance in utterances
        for number in range(1, num + 1)
    ]


def augmented_copy(
    samples: np.ndarray, utterance: Utterance, augmentation: Augmentation, sample_rate: int
) -> np.ndarray:
    """A crop of 70 to 100 % of an utterance, augmented; the same whenever the same copy is read.

    Shape:
        samples `[N]` float32 -> `[N']`
    """
    rng = np.random.default_rng([utterance.copy, zlib.crc32(utterance.id.encode())])
    length = max(1, round(len(samples) * rng.uniform(LEAST_CROP, 1)))
    first = int(rng.integers(len(samples) - length + 1))
    return replace(augmentation, sample_rate=sample_rate)(samples[first : first + length], rng)[0]


def _add(samples: np.ndarray, dirt: np.ndarray, low: float, high: float, rng: np.random.Generator) -> np.ndarray:
    """Add `dirt` at a signal-to-noise ratio drawn from `[low, high]` dB; silence stays silence."""
    level, dirt_level = np.sqrt(np.mean(samples**2)), np.sqrt(np.mean(dirt**2))
    if dirt_level == 0:
        return samples
    return samples + dirt * (level / dirt_level * 10 ** (-rng.uniform(low, high) / 20))


def _stretch_of(other: np.ndarray, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """`num_samples` samples with a stretch of another recording somewhere in them."""
    result = np.zeros(num_samples, np.float32)
    first = int(rng.integers(-len(other) + 1, num_samples))
    begin, end = max(0, first), min(num_samples, first + len(other))
    result[begin:end] = other[begin - first : end - first]
    return result


def _room(rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A room's impulse response: the direct sound and, behind it, noise that dies away exponentially.

    The statistical model of late reverberation of Polack (1988); 60 dB are lost in the reverberation time.
    """
    seconds = rng.uniform(0.1, 0.8)
    times = np.arange(int(seconds * sample_rate)) / sample_rate
    tail = rng.standard_normal(len(times)).astype(np.float32) * 10 ** (-3 * times / seconds).astype(np.float32)
    tail[: int(rng.uniform(0.001, 0.01) * sample_rate)] = 0
    # Energy of the direct sound over that of the echo.
    ratio = 10 ** (rng.uniform(-2, 15) / 20)
    tail *= 1 / (ratio * np.sqrt(np.sum(tail**2)) + 1e-9)
    tail[0] = 1
    return tail


def _noise(rng: np.random.Generator, num_samples: int, sample_rate: int) -> np.ndarray:
    """A stretch of noise of a random colour, steady or swelling within seconds."""
    bank = _noise_bank(sample_rate)
    noise = bank[rng.integers(len(bank))]
    noise = noise.take(np.arange(num_samples) + rng.integers(len(noise)), mode="wrap")
    if rng.random() < 0.5:
        times = np.arange(num_samples) / sample_rate
        noise = noise * (1 + np.sin(2 * np.pi * (rng.uniform(0.1, 4) * times + rng.random()))).astype(np.float32)
    return noise


@lru_cache(maxsize=2)
def _noise_bank(sample_rate: int) -> np.ndarray:
    """Noises whose power falls with frequency to the power of 0 (white) to 2 (brown), `[5, N]`."""
    rng = np.random.default_rng(0)
    num_samples = NOISE_SECONDS * sample_rate
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    # Below 50 Hz brown noise would be all there is.
    frequencies = np.maximum(np.fft.rfftfreq(num_samples, 1 / sample_rate), 50)
    shaped = [np.fft.irfft(spectrum * frequencies ** (-slope / 2)) for slope in (0, 0.5, 1, 1.5, 2)]
    return np.stack([noise / np.std(noise) for noise in shaped]).astype(np.float32)


def _through(samples: np.ndarray, sample_rate: int, narrow_rate: int) -> np.ndarray:
    """Down to a lower rate and back, to the same length."""
    narrow = soxr.resample(samples, sample_rate, narrow_rate, quality="LQ")
    wide = soxr.resample(narrow, narrow_rate, sample_rate, quality="LQ")
    return np.resize(wide, len(samples)) if len(wide) >= len(samples) else np.pad(wide, (0, len(samples) - len(wide)))
