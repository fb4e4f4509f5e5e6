"""Stores of made embeddings for tests of heads: layer 2 tells the word, layer 4 the speaker, the others nothing."""

from pathlib import Path

import numpy as np

from speechfeat.store import Store
from speechfeat.store_shards import Row
from speechfeat.store_writer import StoreWriter
from speechfeat.units import FrameGrid, Stage

WORDS = ("né, on", 'quo"te', "日本")
SPEAKERS = tuple("abcdef")
DIM = 6
LAYERS = (0, 2, 4)


def write_embeddings(
    path: Path, layers=LAYERS, *, seed=0, per=4, weights="ab", model="tiny", pool="mean", failed=(), words=WORDS
) -> Store:
    """`per` utterances of each word by each speaker; dimensions of unlike scales, far from zero."""
    means = np.random.default_rng(1).standard_normal((2, 8, DIM))
    encoder = {
        "family": "Tiny",
        "definition": {},
        "weights": weights,
        "num_layers": 5,
        "dim": DIM,
        "layers": list(layers),
        "stacked": len(layers) > 1,
    }
    config = {"encoder": encoder, "grid": FrameGrid(16000, (Stage(400, 320),)).describe(), "pool": pool}
    rng = np.random.default_rng(seed)
    shape = (len(layers), DIM) if len(layers) > 1 else (DIM,)
    options = {"label_names": ["word", "speaker", "odd"], "frames": False}
    with StoreWriter(path, config, {"model": model}, embedding_shape=shape, **options) as writer:
        for number in range(per * len(words) * len(SPEAKERS)):
            word, speaker = number % len(words), number // len(words) % len(SPEAKERS)
            values = rng.standard_normal((len(layers), DIM))
            for place, layer in enumerate(layers):
                values[place] += {2: 2 * means[0, word], 4: 2 * means[1, speaker]}.get(layer, 0)
            values = ((values + 30) * np.logspace(-2, 2, DIM)).astype(np.float32)
            labels = {"word": words[word], "speaker": SPEAKERS[speaker], "odd": "x" if number else None}
            row = Row(f"{seed}-{number:03d}", f"/{number}", 0.0, 1.0, 5, 16000, labels=labels)
            writer.add(row, None, values if len(layers) > 1 else values[0])
        for key in failed:
            writer.fail(key, f"/{key}", "it is empty")
    return Store(path)
