"""Encoding alone, on audio that is in memory: speechfeat's batches beside transformers, on one device.

    python -m benchmarks.encode_only [-m wav2vec2-large ...] [--device cuda] [--batch-seconds 600]

Noise of LibriSpeech's lengths (2 to 20 s), models of random weights (`benchmarks.random_weights`). Rates are the
medians of five runs after two to warm up; the share of the limit is of the operations of the stock model up to its
penultimate layer, over the rate of a large matrix product in bfloat16.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch

import speechfeat as sf
from benchmarks.limits import matrix_rate, operations
from benchmarks.random_weights import random_model
from benchmarks.rivals import batches_of
from benchmarks.workload import MIXES
from speechfeat.batching import pad

SAMPLE_RATE = 16000
NUM_LENGTHS = 400


def rate(run: Callable[[], object], seconds: float, device: str) -> float:
    """Real time of a call that encodes so many seconds of audio."""
    times = []
    for turn in range(7):
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        if turn >= 2:
            times.append(time.perf_counter() - began)
    return seconds / statistics.median(times)


@torch.no_grad()
def compare(name: str, device: str, batch_seconds: float, limit: float) -> None:
    """Print the row of one model."""
    rng = np.random.default_rng(0)
    lengths = sorted((MIXES["utterances"].seconds(rng) for _ in range(NUM_LENGTHS)), reverse=True)
    waves = [(0.1 * rng.standard_normal(round(one * SAMPLE_RATE))).astype(np.float32) for one in lengths]
    mixed = [waves[index] for index in rng.permutation(len(waves))[:16]]
    seconds = sum(map(len, mixed)) / SAMPLE_RATE
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        model, extractor = random_model(name)
        model.save_pretrained(folder)
        extractor.save_pretrained(folder)
        per_second = operations(folder, 12.0) / 12.0
        for size, dtype in ((1, torch.float32), (8, torch.float32), (8, torch.bfloat16)):
            encode = batches_of(folder, device, dtype)
            groups = [mixed[first : first + size] for first in range(0, len(mixed), size)]
            rates.append(rate(lambda run=encode, all_=groups: [run(one) for one in all_], seconds, device))
        encoder = sf.load_encoder(folder, device=device, dtype="bfloat16")
    # From the middle of the lengths on, as a plan by length makes them.
    first = NUM_LENGTHS * 3 // 8
    chosen = waves[first : first + max(1, int(batch_seconds / lengths[first]))]
    batch = pad([encoder.prepare(one) for one in chosen], list(map(len, chosen)), pinned=device != "cpu")
    ours = rate(lambda: encoder.forward(batch), sum(map(len, chosen)) / SAMPLE_RATE, device)
    print(f"{name:26}" + "".join(f"{one:10.0f}" for one in [*rates, ours]) + f"{ours * per_second / limit:8.0%}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode_only", description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", action="append", help="by default wav2vec2-large")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-seconds", type=float, default=600)
    options = parser.parse_args()
    limit = matrix_rate(options.device, "bfloat16")
    print(f"bfloat16 matrix product: {limit / 1e12:.1f} TFLOP/s")
    print(f"{'':26}  one, f32  8, f32  8, bf16  speechfeat  of limit")
    for name in options.model or ["wav2vec2-large"]:
        compare(name, options.device, options.batch_seconds, limit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
