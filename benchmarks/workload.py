"""Recordings to measure speed on: the clips of a corpus joined and cut to the lengths that users have."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

SAMPLE_RATE = 16000
SUFFIXES = (".opus", ".flac", ".wav", ".ogg", ".mp3")
# What each format is to libsndfile.
FORMATS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III")}


class Mix(NamedTuple):
    """How long the recordings of a user are.

    Attributes:
        describe: in words.
        seconds: draws one.
        least: recordings, however long they are.
    """

    describe: str
    seconds: Callable[[np.random.Generator], float]
    least: int = 2


MIXES = {
    "keywords": Mix("1 s", lambda _: 1.0),
    "utterances": Mix("2-20 s, as LibriSpeech's", lambda rng: float(np.clip(rng.gamma(6.0, 2.1), 2, 20))),
    "long": Mix("10-60 minutes", lambda rng: float(rng.uniform(600, 3600)), least=1),
}


def make(audio: Path, folder: Path, mix: str, hours: float, form: str = "flac") -> list[str]:
    """Write a mix of about so many hours, and at least so many recordings as it asks for; their paths.

    The lengths and what is in each depend on the directory and the arguments alone.
    """
    clips = sorted(path for path in audio.rglob("*") if path.suffix in SUFFIXES)
    if not clips:
        raise SystemExit(f"{audio} has no recordings ({', '.join(SUFFIXES)})")
    rng = np.random.default_rng(0)
    lengths: list[float] = []
    while sum(lengths) < hours * 3600 or len(lengths) < MIXES[mix].least:
        lengths.append(MIXES[mix].seconds(rng))
    folder.mkdir(parents=True)
    jobs = [(folder / f"{number:06d}.{form}", seconds, number) for number, seconds in enumerate(lengths)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(_write, clips), jobs, chunksize=8))
    return [str(path) for path, _, _ in jobs]


def _write(clips: list[Path], job: tuple[Path, float, int]) -> None:
    path, seconds, number = job
    rng, wanted = np.random.default_rng(number), round(seconds * SAMPLE_RATE)
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < wanted:
        samples, rate = soundfile.read(clips[rng.integers(len(clips))], dtype="float32", always_2d=True)
        parts.append(soxr.resample(samples[:, 0], rate, SAMPLE_RATE) * rng.uniform(0.5, 1.0))
    container, coding = FORMATS[path.suffix[1:]]
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, coding, format=container) as file:
        joined = np.concatenate(parts)[:wanted]
        for first in range(0, wanted, SAMPLE_RATE * 10):  # libsndfile's Opus encoder overflows its stack on more
            file.write(joined[first : first + SAMPLE_RATE * 10])
