"""What a machine could do at most: operations of a model over the rate of products, bytes over that of the disk."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.random_weights import empty_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def matrix_rate(device: str, dtype: str, seconds: float = 1.0) -> float:
    """Operations a second in large matrix products, the median of some seconds; in float32 of torch's faster library.

    Not the best of them: what other work on the machine takes, an encoder does not have either.
    """
    size = 8192 if device != "cpu" and dtype != "float32" else 4096 if device != "cpu" else 2048
    one = torch.randn(size, size, device=device).to(DTYPES[dtype])
    products: list[Callable[[], object]] = [lambda: one @ one]
    if device == "cpu" and dtype == "float32" and torch.backends.mkldnn.is_available():
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], ""))
    return max(2 * size**3 / _median_time(product, device, seconds) for product in products)


def _median_time(product: Callable[[], object], device: str, seconds: float) -> float:
    product()
    times: list[float] = []
    while sum(times) < seconds:
        _wait(device)
        began = time.perf_counter()
        product()
        _wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def disk_rate(folder: Path, megabytes: int = 512) -> float:
    """Bytes a second that are written to a folder's disk, and there."""
    block, path = os.urandom(2**20), folder / "disk.bin"
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    rate = megabytes * 2**20 / (time.perf_counter() - began)
    path.unlink()
    return rate


def operations(model: str, seconds: float) -> float:
    """Operations of the stock model on one recording, up to the penultimate layer: products, convolutions, attention.

    Nothing is computed: the model and its input have shapes only.
    """
    config = transformers.AutoConfig.from_pretrained(model)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(model)
    for name in ("num_hidden_layers", "encoder_layers"):
        if hasattr(config, name):
            setattr(config, name, getattr(config, name) - 1)
            break
    inputs = extractor(np.zeros(round(seconds * 16000), np.float32), sampling_rate=16000, return_tensors="pt")
    with torch.device("meta"):
        encoder = empty_model(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(inputs[encoder.main_input_name].to("meta"))
    return float(counter.get_total_flops())


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
