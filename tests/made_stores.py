"""Stores of made frames and embeddings."""

import numpy as np

from speechfeat.store import Store
from speechfeat.store_shards import Row
from speechfeat.store_writer import StoreWriter
from speechfeat.units import FrameGrid, Stage

GRID = FrameGrid(16000, (Stage(400, 320),))

CONFIG = {"model": {"name": "tiny", "hash": "ab"}, "layers": [2], "grid": GRID.describe()}

ODD_IDS = [
    "plain",
    "spk/a b.wav",
    "quo\"te's",
    "line\nbreak",
    "tab\t\x00",
    "日本語/é.flac",
    "-dash",
    "\\slash",
    "x" * 400,
]


def features(key, num=7, dim=4, layers=0):
    """Frames and an embedding that only the key decides."""
    rng = np.random.default_rng(list(key.encode()))
    frames = rng.standard_normal((layers, num, dim) if layers else (num, dim)).astype(np.float32)
    return frames, frames.mean(-2)


def row(key, num=7, **more):
    return Row(key, f"/data/{key}", 0.5, num * 0.02, num, 44100, **more)


def open_writer(path, config=CONFIG, **options):
    return StoreWriter(path, config, **{"embedding_shape": (4,), **options})


def fill(path, keys, **options):
    with open_writer(path, **options) as writer:
        for key in keys:
            writer.add(row(key), *features(key))
    return Store(path)


def files(path):
    return sorted(file.name for file in (path / "shards").iterdir())
