"""What an encoder costs: parameters, bytes on disk, and times real time on one and two CPU cores.

    python -m benchmarks.encoder_cost -m MODEL [-m MODEL ...] [--seconds 5] [--rounds 7] [--layers penultimate]

Utterances of one length go in as arrays, as many at a time as there are cores, so that small encoders can run them side
by side; front end and encoder are timed, decoding is not. The models run in turns within each round, so that a busy
machine disturbs all alike; the figures are medians over the rounds, and the ratio is to the first model, in the same
setting. A Whisper model is timed with its window of 30 s, as transformers runs it, and with windows of the utterance's
own length (`--short-window`).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import speechfeat as sf
from speechfeat.cli import main_with_errors
from speechfeat.encoders.catalog import find

DTYPES = ("float32", "auto")
THREADS = (1, 2)


class Model(NamedTuple):
    """An encoder, how it is named in the table, and the weights it was loaded from."""

    name: str
    encoder: sf.Encoder
    parameters: int
    size: int


def open_models(names: Sequence[str], dtype: str, layers: str) -> list[Model]:
    models = []
    for name in names:
        whole = sf.load_encoder(name, "last", dtype="float32", device="cpu")
        module = whole.backbone.module
        parameters = sum(parameter.numel() for parameter in module.parameters())
        is_whisper = getattr(getattr(module, "config", None), "model_type", "") == "whisper"
        windows = (False, True) if is_whisper else (False,)
        for short in windows:
            encoder = sf.load_encoder(name, layers, dtype=dtype, device="cpu", short_window=short)
            shown = Path(name).name + (", short window" if short else "")
            models.append(Model(shown, encoder, parameters, bytes_on_disk(name)))
    return models


def bytes_on_disk(name: str) -> int:
    spec = find(name)
    return sum(file.stat().st_size for file in Path(spec.source if spec else name).glob("*.safetensors"))


def measure(models: Sequence[Model], seconds: float, rounds: int, cores: int) -> list[float]:
    """Times real time, the median over the rounds, of each model."""
    times: list[list[float]] = [[] for _ in models]
    for number in range(rounds + 1):
        for model, spent in zip(models, times, strict=True):
            samples = 0.1 * np.random.default_rng(number).standard_normal((cores, round(16000 * seconds)), np.float32)
            began = time.perf_counter()
            model.encoder.encode(list(samples))
            if number:  # the first round warms up
                spent.append(time.perf_counter() - began)
    return [cores * seconds / statistics.median(spent) for spent in times]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", action="append", required=True, dest="models")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", default="penultimate")
    options = parser.parse_args()
    print("| model | parameters | MB on disk | dtype | cores | x real time | against the first |")
    print("|---|---|---|---|---|---|---|")
    for dtype in DTYPES:
        for threads in THREADS:
            torch.set_num_threads(threads)
            models = open_models(options.models, dtype, options.layers)
            speeds = measure(models, options.seconds, options.rounds, threads)
            for model, speed in zip(models, speeds, strict=True):
                print(
                    f"| {model.name} | {model.parameters / 1e6:.1f} M | {model.size / 1e6:.1f} | {model.encoder.dtype} "
                    f"| {threads} | {speed:.0f} | {speed / speeds[0]:.2f} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
