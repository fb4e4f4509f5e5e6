"""What users run today: each way leaves the penultimate frames in float16 and their mean on disk, and prints its time.

    python -m benchmarks.rivals WAY LIST -m MODEL -o OUT [--device cuda]

LIST names recordings, a line each, MODEL a checkpoint directory of transformers. What is timed goes from the first read
to the last byte written; loading the model and a first batch to warm up are not in it.
"""

import argparse
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers

BATCH_SIZE = 8
SAMPLE_RATE = 16000
# Frames of each of a batch of recordings, from their samples.
Encode = Callable[[list[np.ndarray]], list[np.ndarray]]


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
        longest = max(map(len, batch))
        # Those who pad cut the frames of the padding off, or they have none of use.
        counts = [max(1, round(states.shape[1] * len(one) / longest)) for one in batch]
        return [values[:count] for values, count in zip(states, counts, strict=True)]

    return encode


def torchaudio_loop(model: str, device: str) -> tuple[Encode, int]:
    """The wav2vec 2.0 of torchaudio with the same sizes, one recording at a time."""
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    # It imports models with a CTC head only.
    config = transformers.AutoConfig.from_pretrained(model)
    stock = transformers.Wav2Vec2ForCTC(config).eval()
    encoder = import_huggingface_model(stock).eval().to(device)

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        states, _ = encoder.extract_features(torch.from_numpy(batch[0])[None].to(device))
        return [states[-2][0].cpu().numpy()]

    return encode, 1


def speechbrain_wrapper(model: str, device: str) -> tuple[Encode, int]:
    """SpeechBrain's wrapper around transformers, padded batches."""
    from speechbrain.lobes.models.huggingface_transformers.wav2vec2 import Wav2Vec2

    encoder = Wav2Vec2(source=model, save_path=model, output_all_hiddens=True, freeze=True).to(device)

    def encode(batch: list[np.ndarray]) -> list[np.ndarray]:
        longest = max(map(len, batch))
        waves = torch.from_numpy(np.stack([np.pad(one, (0, longest - len(one))) for one in batch])).to(device)
        relative = torch.tensor([len(one) / longest for one in batch], device=device)
        states = encoder(waves, relative)[-2].float().cpu().numpy()
        return [
            values[: max(1, round(len(values) * len(one) / longest))] for values, one in zip(states, batch, strict=True)
        ]

    return encode, BATCH_SIZE


# name -> what makes it, and the package that it needs beside transformers
WAYS: dict[str, tuple[Callable[[str, str], tuple[Encode, int]], str]] = {
    "plain loop": (plain_loop, "transformers"),
    "padded batches of 8": (padded, "transformers"),
    "padded batches of 8, bfloat16": (padded_bfloat16, "transformers"),
    "torchaudio loop": (torchaudio_loop, "torchaudio"),
    "SpeechBrain wrapper": (speechbrain_wrapper, "speechbrain"),
}


def available(model_type: str) -> list[str]:
    """The ways that can run a model here."""
    found = [name for name, (_, package) in WAYS.items() if importlib.util.find_spec(package)]
    only_wav2vec2 = {"torchaudio loop", "SpeechBrain wrapper"}
    return [name for name in found if model_type == "wav2vec2" or name not in only_wav2vec2]


def batches(files: list[str], size: int) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Recordings with their samples, a batch at a time."""
    for first in range(0, len(files), size):
        names = files[first : first + size]
        yield names, [soundfile.read(name, dtype="float32")[0] for name in names]


def run(way: str, files: list[str], model: str, device: str, out: Path) -> dict[str, float]:
    """Seconds that a way takes, and those of them in which it encodes."""
    encode, size = WAYS[way][0](model, device)
    out.mkdir()
    encoding = 0.0
    with torch.no_grad():
        for _, samples in batches(files[:size], size):
            encode(samples)
        began = time.perf_counter()
        for names, samples in batches(files, size):
            before = time.perf_counter()
            states = encode(samples)
            encoding += time.perf_counter() - before
            for name, values in zip(names, states, strict=True):
                path = out / f"{Path(name).stem}.npz"
                np.savez(path, frames=values.astype(np.float16), embedding=values.mean(axis=0))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": time.perf_counter() - began, "encoding": encoding, "memory": memory}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description=__doc__.splitlines()[0])
    parser.add_argument("way", choices=list(WAYS))
    parser.add_argument("list", type=Path)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    files = options.list.read_text().split("\n")
    print(json.dumps(run(options.way, files, options.model, options.device, options.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
