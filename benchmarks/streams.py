"""Threads for an utterance against utterances side by side, on a CPU.

    python -m benchmarks.streams [-m conformer-s -m random:whisper-tiny ...] [--dtype auto] [--rounds 3]

Noise of LibriSpeech's lengths (2 to 20 s) that is in memory, prepared; ways alternate, medians of rounds. MODEL is as
`load_encoder` has it, or `random:NAME` as in `benchmarks.throughput`.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import speechfeat as sf
from benchmarks.throughput import make_checkpoint
from benchmarks.workload import MIXES

SAMPLE_RATE = 16000


def ways() -> Iterator[int]:
    """Threads for an utterance: all, half of them, a quarter ..."""
    threads = torch.get_num_threads()
    while threads:
        yield threads
        threads //= 2


def compare(name: str, dtype: str, rounds: int, num_utterances: int) -> None:
    """Print a row for each number of threads."""
    rng = np.random.default_rng(0)
    lengths = sorted((MIXES["utterances"].seconds(rng) for _ in range(num_utterances)), reverse=True)
    waves = [(0.1 * rng.standard_normal(round(one * SAMPLE_RATE))).astype(np.float32) for one in lengths]
    with tempfile.TemporaryDirectory() as folder:
        model = make_checkpoint(name.removeprefix("random:"), Path(folder)) if name.startswith("random:") else name
        encoder = sf.load_encoder(model, device="cpu", dtype=dtype)
    inputs, counts = [encoder.prepare(wave) for wave in waves], list(map(len, waves))
    taken: dict[int, list[float]] = {threads: [] for threads in ways()}
    chosen = encoder.num_threads
    for turn in range(rounds + 1):
        for threads, times in taken.items():
            encoder.use_threads(threads)
            began = time.perf_counter()
            encoder.encode_prepared(inputs, counts)
            if turn:
                times.append(time.perf_counter() - began)
    for threads, times in taken.items():
        encoder.use_threads(threads)
        speed = sum(lengths) / statistics.median(times)
        default = "  (default)" if threads == chosen else ""
        print(f"{name:28} {encoder.dtype:9} {threads:8} {encoder.num_streams:12} {speed:12.1f}{default}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", action="append", help="by default conformer-s")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=24)
    options = parser.parse_args()
    print(f"{'model':28} {'dtype':9} {'threads':>8} {'side by side':>12} {'x real time':>12}")
    for name in options.model or ["conformer-s"]:
        compare(name, options.dtype, options.rounds, options.utterances)
    return 0


if __name__ == "__main__":
    sys.exit(main())
