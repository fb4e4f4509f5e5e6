"""What users run today: each way leaves the penultimate frames in float16 and their mean on disk, and prints its time.

    python -m benchmarks.rivals WAY LIST -m MODEL -o OUT [--device cuda]

LIST names recordings, a line each, MODEL a checkpoint directory of transformers. What is timed goes from the first read
to the last byte written; loading the model and a first batch to warm up are not in it. Recordings above a minute are
cut into pieces of 30 s, as users do whose memory ends: attention to an hour at once would be slower still. The encoders
of other packages are in `benchmarks.rival_packages`.
"""

import argparse
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
import transformers

from benchmarks.rival_packages import (
    BATCH_SIZE,
    SAMPLE_RATE,
    Encode,
    cut,
    librosa_loop,
    s3prl_upstream,
    sentence_transformers_encode,
    speechbrain_wrapper,
    torchaudio_loop,
    torchaudio_transforms,
)
from speechfeat.encoders.classical import NUM_MELS


def encoder_of(model: str, dtype: torch.dtype) -> Any:
    """The model, or of a recogniser its encoder, as users load it."""
    config = transformers.AutoConfig.from_pretrained(model)
    if config.model_type == "whisper":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder.from_pretrained(model, dtype=dtype).eval()
    return transformers.AutoModel.from_pretrained(model, dtype=dtype).eval()


def plain_loop(model: str, device: str) -> tuple[Encode, int]:
    """The library itself in float32, one recording at a time, all hidden states."""
    return batches_of(model, device, torch.float32), 1


def padded(model: str, device: str) -> tuple[Encode, int]:
    """The library itself in float32, padded batches in the order of the list."""
    return batches_of(model, device, torch.float32), BATCH_SIZE


def padded_bfloat16(model: str, device: str) -> tuple[Encode, int]:
    """The same with weights and states in bfloat16."""
    return batches_of(model, device, torch.bfloat16), BATCH_SIZE


def batches_of(model: str, device: str, dtype: torch.dtype) -> Encode:
    extractor = transformers.AutoFeatureExtractor.from_pretrained(model)
    encoder = encoder_of(model, dtype).to(device)
    # Whisper takes its window of 30 s whatever the recording.
    padding = "max_length" if isinstance(extractor, transformers.WhisperFeatureExtractor) else True

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        inputs = extractor(batch, sampling_rate=SAMPLE_RATE, return_tensors="pt", padding=padding).to(device)
        given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
        states = encoder(**given, output_hidden_states=True).hidden_states[-2].float().cpu().numpy()
        return cut(states, batch)

    return encode


class Way(NamedTuple):
    """How an encoder can be run.

    Attributes:
        make: gives, of a checkpoint directory and a device, what encodes, and how many recordings it takes at a time.
        package: that it needs.
        model_types: that it can run, or names of classical features; empty for all of transformers.
    """

    make: Callable[[str, str], tuple[Encode, int]]
    package: str = "transformers"
    model_types: tuple[str, ...] = ()


CLASSICAL = tuple(NUM_MELS)
WAYS = {
    "plain loop": Way(plain_loop),
    "padded batches of 8": Way(padded),
    "padded batches of 8, bfloat16": Way(padded_bfloat16),
    "torchaudio loop": Way(torchaudio_loop, "torchaudio", ("wav2vec2",)),
    "SpeechBrain wrapper": Way(speechbrain_wrapper, "speechbrain", ("wav2vec2", "hubert", "wavlm")),
    "s3prl, upstream alone": Way(s3prl_upstream, "s3prl", ("wav2vec2",)),
    "sentence-transformers, last": Way(
        sentence_transformers_encode, "sentence_transformers", ("wav2vec2", "hubert", "wavlm")
    ),
    "librosa loop": Way(librosa_loop, "librosa", CLASSICAL),
    "torchaudio transforms": Way(torchaudio_transforms, "torchaudio", CLASSICAL),
}


def missing_packages() -> list[str]:
    """Those of the ways that are not installed here."""
    return sorted({way.package for way in WAYS.values() if not importlib.util.find_spec(way.package)})


def available(model_type: str) -> list[str]:
    """The ways that can run a model, or classical features of this name, here."""
    missing = missing_packages()
    return [
        name
        for name, way in WAYS.items()
        if way.package not in missing
        and (model_type in way.model_types or (not way.model_types and model_type not in CLASSICAL))
    ]


# Samples of a recording that is not cut, and of a piece of one that is.
LONGEST, PIECE = 60 * SAMPLE_RATE, 30 * SAMPLE_RATE


def pieces(files: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Recordings, or pieces of long ones, with a name each."""
    for file in files:
        name, samples = Path(file).stem, soundfile.read(file, dtype="float32")[0]
        if len(samples) <= LONGEST:
            yield name, samples
        else:
            yield from ((f"{name}-{at}", samples[at : at + PIECE]) for at in range(0, len(samples), PIECE))


def batches(files: list[str], size: int) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Names and samples, a batch at a time."""
    found = pieces(files)
    while batch := list(islice(found, size)):
        names, samples = zip(*batch, strict=True)
        yield list(names), list(samples)


def run(way: str, files: list[str], model: str, device: str, out: Path) -> dict[str, float]:
    """Seconds that a way takes, and those of them in which it encodes."""
    encode, size = WAYS[way].make(model, device)
    out.mkdir()
    encoding = 0.0
    with torch.no_grad():
        encode(next(batches(files, min(size, BATCH_SIZE)))[1])
        began = time.perf_counter()
        for names, samples in batches(files, size):
            before = time.perf_counter()
            states = encode(samples)
            encoding += time.perf_counter() - before
            for name, values in zip(names, states, strict=True):
                np.savez(out / f"{name}.npz", frames=values.astype(np.float16), embedding=values.mean(axis=0))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": time.perf_counter() - began, "encoding": encoding, "memory": memory}


def limit_memory() -> None:
    """Let a way that needs more memory than is free end by itself, not by the system's choice of a process."""
    free = int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (int(0.9 * free), resource.RLIM_INFINITY))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("list", type=Path)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    files = options.list.read_text().split("\n")
    if sys.platform == "linux" and options.device == "cpu":
        limit_memory()
    print(json.dumps(run(options.way, files, options.model, options.device, options.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
