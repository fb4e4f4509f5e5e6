"""Dirty speech from clean: noise, rooms, voices, speed, tempo, gain, telephones, codecs, masks; one configuration.

    augment = Augmentation(noise=0.5, telephone=0.2)
    samples, speed = augment(samples, rng, others=[another])

Nothing but the speech is needed: noises and rooms are generated, unless recordings of them are named.

The effects are a few lines each on numpy, scipy, soxr, librosa and soundfile, which are here anyway. audiomentations
(0.43) needs soxr below 1, against this package's, and draws from the state of `random` that all threads share: a copy
would hang on the order in which threads come. torch-audiomentations (0.12) has no codecs, telephone, tempo or rooms of
its own, and draws from global states likewise.
"""

import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import numpy as np

from speechfeat import effects
from speechfeat.errors import ParameterError
from speechfeat.types import Utterance

# Of noise that is generated; any other name is that of recordings.
NOISES = ("coloured", "white", "pink", "babble")
GENERATED = "generated"
FIRST_KINDS = ("speed", "mix", "room", "noise", "tilt", "band", "gain")
LATER_KINDS = ("tempo", "telephone", "codec", "time_mask", "band_mask")
KINDS = (*FIRST_KINDS, *LATER_KINDS)
# Voices that babble is made of.
FEWEST_VOICES, MOST_VOICES = 3, 6
# A voice of babble is a stretch of this length, again and again.
VOICE_SECONDS = 5.0


@dataclass(frozen=True)
class Augmentation:
    """How often each kind of dirt is added: probabilities, drawn independently; and what it is.

    Attributes:
        speed: speed, and with it pitch, changed by up to a tenth.
        mix: another voice, 3 to 20 dB below, where there is one.
        room: the echo of a room; what comes first stays in place.
        noise: of `noise_source`.
        tilt: spectrum tilted towards high or low, as microphones do.
        band: limited to 4 kHz, as telephones and 8 kHz corpora are.
        gain: level changed by -25 to 10 dB, clipped at full scale.
        sample_rate: of the samples, in Hz.
        tempo: tempo, but not pitch, changed by up to a fifth.
        telephone: 300 to 3400 Hz at 8 kHz, in 8 bits by the mu-law; after noise and room: those are the speaker's.
        codec: coded and decoded by one of `codecs`.
        time_mask: two stretches of at most a tenth of the utterance silenced (SpecAugment, for encoders of waveforms).
        band_mask: two bands of at most a sixth of the mel scale taken out, likewise.
        noise_source: "coloured" (white to brown, steady or swelling), "white", "pink", "babble" of other voices, or
            recordings of noise: a directory, list or manifest.
        noise_ratio: range of the signal-to-noise ratio, in dB of the mean powers.
        room_source: "generated", or recorded impulse responses: a directory, list or manifest.
        reverberation: range of the time in which a generated room loses 60 dB, in seconds.
        voices: recordings for `mix` and babble where the caller gives no other voices, such as the corpus itself.
        codecs: to draw from: "mp3", "opus", "vorbis".
        least_length: a copy of `copies_of` keeps at least this share of the utterance's length.
        seed: of the copies of `copies_of`.

    Raises:
        ParameterError: if a value is out of range, or there are no such recordings.
    """

    speed: float = 0.2
    mix: float = 0.1
    room: float = 0.2
    noise: float = 0.3
    tilt: float = 0.3
    band: float = 0.25
    gain: float = 0.8
    sample_rate: int = 16000
    tempo: float = 0.0
    telephone: float = 0.0
    codec: float = 0.0
    time_mask: float = 0.0
    band_mask: float = 0.0
    noise_source: str = "coloured"
    noise_ratio: tuple[float, float] = (0.0, 30.0)
    room_source: str = GENERATED
    reverberation: tuple[float, float] = (0.1, 0.8)
    voices: str | None = None
    codecs: tuple[str, ...] = tuple(effects.CODECS)
    least_length: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        for name in KINDS:
            _check(self, name, _is_number(getattr(self, name), 0, 1), "a probability, in [0, 1]")
        for name, low, high in (("noise_ratio", -100, 100), ("reverberation", 0.02, 20)):
            value = _as_tuple(self, name)
            is_range = len(value) == 2 and all(_is_number(one, low, high) for one in value) and value[0] <= value[1]
            _check(self, name, is_range, f"the lowest and the highest, from {low} to {high}")
        known = ", ".join(effects.CODECS)
        _check(self, "codecs", len(_as_tuple(self, "codecs")) > 0 and set(self.codecs) <= {*effects.CODECS}, known)
        _check(self, "least_length", _is_number(self.least_length, 0.01, 1), "a share, from 0.01 to 1")
        _check(self, "seed", isinstance(self.seed, int) and self.seed >= 0, "a whole number, at least 0")
        for name, made in (("noise_source", NOISES), ("room_source", (GENERATED,)), ("voices", (None,))):
            if getattr(self, name) not in made:
                _check_source(self, name, ", ".join(filter(None, made)))

    @classmethod
    def only(cls, **options: Any) -> Self:
        """No kind of dirt but those named."""
        return cls(**{**dict.fromkeys(KINDS, 0.0), **options})

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Self:
        """What `describe` was called on.

        Raises:
            ParameterError: if a name or value is not known.
        """
        known = [field.name for field in fields(cls)]
        for name in described:
            if name not in known:
                near = get_close_matches(name, known, 1)
                meant = f"did you mean {near[0]!r}? There are" if near else "there are"
                raise ParameterError(f"an augmentation has no {name!r}; {meant} {', '.join(known)}")
        return cls(**described)

    def describe(self) -> dict[str, Any]:
        """As JSON values.

        Options that came later are left out where they change nothing: a store, or a training, that was begun before
        there were any is of the same configuration still.
        """
        default = asdict(Augmentation())
        first = (*FIRST_KINDS, "sample_rate")
        values = {name: value for name, value in asdict(self).items() if name in first or value != default[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def scaled(self, factor: float) -> "Augmentation":
        """The same with all probabilities multiplied, at most to 1."""
        return replace(self, **{name: min(1.0, factor * getattr(self, name)) for name in KINDS})

    def __call__(
        self, samples: np.ndarray, rng: np.random.Generator, others: Sequence[np.ndarray] = ()
    ) -> tuple[np.ndarray, float]:
        """A dirty copy.

        Args:
            samples: mono, float32.
            rng: decides everything; equal states give equal copies.
            others: recordings of other voices, for `mix` and babble.

        Shape:
            samples `[N]` -> `[round(N / speed)]`

        Returns:
            The copy, and the speed: time t of the copy is time `t * speed` of the original.

        Raises:
            ParameterError: if there are no other voices for babble.
            AudioError: if a recording of noise, rooms or voices cannot be read.
        """
        drawn = {name for name in FIRST_KINDS if rng.random() < getattr(self, name)}
        # These draw only where they are asked for: copies made without them stay what they were.
        drawn |= {name for name in LATER_KINDS if getattr(self, name) and rng.random() < getattr(self, name)}
        speed = 1.0
        if "speed" in drawn:
            speed = float(rng.uniform(0.9, 1.1))
            samples = effects.change_speed(samples, speed, self.sample_rate)
        if "tempo" in drawn:
            tempo = float(rng.uniform(0.8, 1.2))
            samples, speed = effects.change_tempo(samples, tempo), speed * tempo
        samples = self._around(samples, drawn, rng, others)
        samples = self._transmitted(samples, drawn, rng)
        return samples.astype(np.float32, copy=False), speed

    def _around(
        self, samples: np.ndarray, drawn: set[str], rng: np.random.Generator, others: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Where the speaker is."""
        if "mix" in drawn and (others or self.voices):
            voice = effects.stretch_of(self._voice(len(samples), rng, others), len(samples), rng)
            samples = effects.add_at(samples, voice, rng.uniform(3, 20))
        if "room" in drawn:
            is_made = self.room_source == GENERATED
            response = (
                effects.made_room(rng, self.sample_rate, self.reverberation)
                if is_made
                else effects.recorded_room(rng, self.room_source, self.sample_rate)
            )
            samples = effects.in_room(samples, response)
        if "noise" in drawn:
            noise = self._noise(len(samples), rng, others)
            samples = effects.add_at(samples, noise, rng.uniform(*self.noise_ratio))
        return samples

    def _transmitted(self, samples: np.ndarray, drawn: set[str], rng: np.random.Generator) -> np.ndarray:
        """From the microphone on."""
        if "tilt" in drawn:
            samples = effects.tilt(samples, rng.uniform(-0.6, 0.6))
        if "band" in drawn:
            samples = effects.through_band(samples.astype(np.float32), self.sample_rate, 8000)
        if "telephone" in drawn:
            samples = effects.through_telephone(samples.astype(np.float32), self.sample_rate)
        if "codec" in drawn:
            codec = self.codecs[int(rng.integers(len(self.codecs)))]
            samples = effects.through_codec(
                samples.astype(np.float32), self.sample_rate, codec, rng.uniform(*effects.COMPRESSION)
            )
        if "gain" in drawn:
            samples = np.clip(samples * 10 ** (rng.uniform(-25, 10) / 20), -1, 1)
        if "time_mask" in drawn:
            samples = effects.mask_time(samples, rng)
        if "band_mask" in drawn:
            samples = effects.mask_bands(samples, rng, self.sample_rate)
        return samples

    def _noise(self, num_samples: int, rng: np.random.Generator, others: Sequence[np.ndarray]) -> np.ndarray:
        if self.noise_source == "coloured":
            return effects.coloured_noise(rng, num_samples, self.sample_rate)
        if self.noise_source in ("white", "pink"):
            colour = {"white": 0, "pink": 2}[self.noise_source]
            return effects.steady_noise(rng, num_samples, self.sample_rate, colour)
        if self.noise_source != "babble":
            return effects.recorded(rng, self.noise_source, num_samples, self.sample_rate)
        if not (others or self.voices):
            raise ParameterError("noise_source='babble' has no other voices; name recordings with voices=")
        count, length = int(rng.integers(FEWEST_VOICES, MOST_VOICES + 1)), int(VOICE_SECONDS * self.sample_rate)
        return effects.babble([self._voice(length, rng, others) for _ in range(count)], num_samples)

    def _voice(self, num_samples: int, rng: np.random.Generator, others: Sequence[np.ndarray]) -> np.ndarray:
        """One of the others; without any, a stretch of a recording of voices."""
        if others:
            return others[int(rng.integers(len(others)))]
        return effects.recorded(rng, str(self.voices), num_samples, self.sample_rate)


def read_augmentation(path: str | os.PathLike[str]) -> Augmentation:
    """A configuration from a JSON file, as `Augmentation.describe` gives it; what is not named is as by default.

    Raises:
        ParameterError: if it cannot be read, or a name or value is not known.
    """
    try:
        described = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParameterError(f"the augmentation {os.fspath(path)!r} cannot be read: {error}") from error
    if not isinstance(described, dict):
        raise ParameterError(f"the augmentation {os.fspath(path)!r} must be a JSON object of names and values")
    return Augmentation.of(described)


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
    """A crop of an utterance, augmented; the same whenever, and in whatever order, the same copy is read.

    Shape:
        samples `[N]` float32 -> `[N']`
    """
    # A seed of 0 at the end is none at all to numpy.
    rng = np.random.default_rng([utterance.copy, zlib.crc32(utterance.id.encode()), augmentation.seed])
    length = max(1, round(len(samples) * rng.uniform(augmentation.least_length, 1)))
    first = int(rng.integers(len(samples) - length + 1))
    return replace(augmentation, sample_rate=sample_rate)(samples[first : first + length], rng)[0]


def _check(augmentation: Augmentation, name: str, is_right: bool, allowed: str) -> None:
    if not is_right:
        raise ParameterError(f"{name}={getattr(augmentation, name)!r} must be {allowed}")


def _check_source(augmentation: Augmentation, name: str, made: str) -> None:
    try:
        effects.recordings_of(str(getattr(augmentation, name)))
    except ParameterError as error:
        allowed = f"{made}, or recordings" if made else "recordings"
        raise ParameterError(f"{name} must be {allowed}: {error}") from error


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _as_tuple(augmentation: Augmentation, name: str) -> tuple[Any, ...]:
    """The value of a field that JSON has as a list."""
    value = getattr(augmentation, name)
    if not isinstance(value, list | tuple):
        raise ParameterError(f"{name}={value!r} must be a list")
    object.__setattr__(augmentation, name, tuple(value))
    return tuple(value)


# Copies for test-time augmentation: other speeds, levels and a little noise, but no other voice, room or telephone.
MILD = Augmentation(speed=0.5, mix=0.0, room=0.0, noise=0.5, tilt=0.3, band=0.0, gain=0.5)
