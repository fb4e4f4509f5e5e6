"""Made corpora of two 'words' and of other 'speech', for tests of keyword detection."""

from pathlib import Path

import numpy as np
import soundfile

from speechfeat.types import Utterance

RATE = 16000
WORDS = {"low": 500.0, "high": 2500.0}


def word(name: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A tone with an overtone: nothing of the background is like it."""
    times = np.arange(round(seconds * RATE)) / RATE
    pitch = WORDS[name] * rng.uniform(0.97, 1.03)
    return (0.2 * np.sin(2 * np.pi * pitch * times) + 0.05 * np.sin(4 * np.pi * pitch * times)).astype(np.float32)


def murmur(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Noise that swells and pauses twice a second."""
    count = round(seconds * RATE)
    swell = np.clip(np.sin(4 * np.pi * np.arange(count) / RATE + rng.uniform(0, 6)) + 0.5, 0, 1)
    return (0.1 * swell * rng.standard_normal(count)).astype(np.float32)


def write_words(folder: Path, count: int = 12, speakers: int = 3) -> list[Utterance]:
    """`count` clips of each word, by speakers in turn."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for number in range(count):
        for name in WORDS:
            file = folder / f"{name}{number}.wav"
            soundfile.write(file, word(name, rng.uniform(0.3, 0.5), rng), RATE)
            clips.append(Utterance(file.name, str(file), labels={"keyword": name, "speaker": f"s{number % speakers}"}))
    return clips


def write_background(folder: Path, count: int = 12, seconds: float = 4.0, speakers: int = 4) -> list[Utterance]:
    """`count` recordings without words."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    recordings = []
    for number in range(count):
        file = folder / f"murmur{number}.wav"
        soundfile.write(file, murmur(seconds, rng), RATE)
        labels = {"speaker": f"b{number % speakers}", "text": f"sentence number {number}"}
        recordings.append(Utterance(file.name, str(file), labels=labels))
    return recordings
