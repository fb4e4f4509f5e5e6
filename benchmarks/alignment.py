"""How far off the times of words are: digits of FSDD put together at known times, and found again by their transcript.

    python -m benchmarks.alignment DATA_DIR [-m MODEL] [--speakers lucas,nicolas,yweweler]

Clips are cut to where they are louder than a twentieth of their peak, brought to one level, and noise 55 dB below is
added. Errors are in ms: the median of the signed ones, the median and the 95th percentile of the absolute ones.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import speechfeat as sf
from speechfeat.audio import read_audio

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAUSES = {"none": (0.0, 0.0), "0.1 to 0.3 s": (0.1, 0.3), "0.3 to 0.8 s": (0.3, 0.8)}
RATE = 16000
PEAK, NOISE = 0.3, 5e-4


class Made(NamedTuple):
    """Samples `[N]`, what is said in them, and start and end of each word in seconds, `[W, 2]`."""

    samples: np.ndarray
    transcript: str
    times: np.ndarray


def make_recordings(
    data: Path, count: int, pauses: tuple[float, float], speakers: Sequence[str], *, digits: int = 8, seed: int = 0
) -> list[Made]:
    """Recordings of digits with pauses between, in seconds from one to the other, and half a second at each end."""
    table = pd.read_csv(data / "fsdd.tsv", sep="\t", dtype=str)
    table = table[table["speaker"].isin(speakers)]
    rng = np.random.default_rng(seed)
    return [_make(data, table.sample(digits, random_state=rng), pauses, rng) for _ in range(count)]


def _make(data: Path, clips: pd.DataFrame, pauses: tuple[float, float], rng: np.random.Generator) -> Made:
    parts, times, now = [np.zeros(RATE // 2, np.float32)], [], RATE // 2
    for path in clips["path"]:
        samples = read_audio(str(data / path), RATE).samples
        loud = np.flatnonzero(np.abs(samples) > 0.05 * np.abs(samples).max())
        word = samples[loud[0] : loud[-1] + 1] * (PEAK / np.abs(samples).max())
        pause = np.zeros(int(rng.uniform(*pauses) * RATE), np.float32)
        parts += [word, pause]
        times.append((now / RATE, (now + len(word)) / RATE))
        now += len(word) + len(pause)
    samples = np.concatenate([*parts, np.zeros(RATE // 2, np.float32)])
    noisy = samples + NOISE * rng.standard_normal(len(samples))
    return Made(noisy.astype(np.float32), " ".join(WORDS[int(one)] for one in clips["keyword"]), np.array(times))


def word_errors(aligner: sf.Aligner, made: Sequence[Made]) -> np.ndarray:
    """Found less true times of the starts and ends of all words, in seconds, `[n, 2]`."""
    found = aligner.align([one.samples for one in made], [one.transcript for one in made], sample_rate=RATE)
    times = [np.array([(word.start, word.end) for word in words]) for words in found]
    return np.concatenate(times) - np.concatenate([one.times for one in made])


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="directory of fsdd.tsv")
    parser.add_argument("-m", "--model", default="conformer-s", help="with a CTC head (%(default)s)")
    parser.add_argument("--speakers", default="lucas,nicolas,yweweler", help="of FSDD (%(default)s)")
    parser.add_argument("--count", type=int, default=150, help="recordings of 8 digits a row (%(default)s)")
    options = parser.parse_args()
    aligner = sf.load_aligner(options.model)
    print("| pauses | start, signed | start | 95 % | end, signed | end | 95 % |\n|---|---|---|---|---|---|---|")
    for name, pauses in PAUSES.items():
        made = make_recordings(options.data, options.count, pauses, options.speakers.split(","))
        errors = 1000 * word_errors(aligner, made)
        cells = [
            f"{value:.0f}"
            for side in errors.T
            for value in (np.median(side), np.median(np.abs(side)), np.quantile(np.abs(side), 0.95))
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
