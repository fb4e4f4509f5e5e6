"""Made stores of frames: one layer tells the word, another the speaker, the rest is noise."""

from pathlib import Path

import numpy as np

from speechfeat.store import Store
from speechfeat.store_shards import Row
from speechfeat.store_writer import StoreWriter
from speechfeat.units import FrameGrid, Stage

WORDS, SPEAKERS, DIM = ("go", "né, on", "stop"), tuple("abcdefgh"), 6

LAYERS = (0, 2, 3)

# Quick, and long enough for what is made here.
EVEN = {"mix_starts": 0}

QUICK = {**EVEN, "epochs": 8, "patience": 4, "width": 16, "embedding_dim": 8, "learning_rate": 1e-2, "batch_size": 16}


def write_store(path: Path, *, layers=LAYERS, frames=True, seed=0, per=4, weights="ab", speakers=SPEAKERS) -> Store:
    """Words in layer 2, speakers in layer 3; dimensions of unlike scales, far from zero."""
    means = np.random.default_rng(1).standard_normal((2, 8, DIM))
    scale, shift = np.logspace(-2, 2, DIM), 30.0
    config = {
        "encoder": {
            "family": "Tiny",
            "definition": {},
            "weights": weights,
            "num_layers": 4,
            "dim": DIM,
            "layers": list(layers),
            "stacked": len(layers) > 1,
        },
        "grid": FrameGrid(16000, (Stage(400, 320),)).describe(),
        "pool": "mean",
    }
    rng = np.random.default_rng(seed)
    shape = (len(layers), DIM) if len(layers) > 1 else (DIM,)
    options = {"store_dtype": "float32", "label_names": ["word", "speaker"], "frames": frames}
    with StoreWriter(path, config, {"model": "tiny"}, embedding_shape=shape, **options) as writer:
        for number in range(per * len(WORDS) * len(speakers)):
            word, speaker = number % len(WORDS), number // len(WORDS) % len(speakers)
            values = rng.standard_normal((len(layers), int(rng.integers(2, 12)), DIM))
            for place, layer in enumerate(layers):
                values[place] += {2: 2 * means[0, word], 3: 2 * means[1, speaker]}.get(layer, 0)
            values = ((values + shift) * scale).astype(np.float32)
            values = values if len(layers) > 1 else values[0]
            labels = {"word": WORDS[word], "speaker": speakers[speaker]}
            row = Row(f"{seed}-{number:03d}", f"/{number}", 0.0, 1.0, values.shape[-2], 16000, labels=labels)
            writer.add(row, values if frames else None, values.mean(axis=-2))
    return Store(path)


def words_of(store: Store) -> list[str]:
    return store.table()["word"].tolist()
