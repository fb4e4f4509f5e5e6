"""The store: how fast it is written beside the disk alone, and how fast it is read.

    python -m benchmarks.store [FOLDER] [--rows 1000000] [--megabytes 512] [--rounds 3]

FOLDER (by default that of temporary files) is on the disk that is measured; nothing is left in it. Writing: utterances
of 5 s, 250 frames of 768 dimensions with their mean, from memory to the last commit, in shards of 900 s as the extract
command makes them, against a file of as many bytes written and flushed to the same disk in turns; bytes are those on
disk. Reading: `Store.frames(id)` of utterances of that store drawn at random, from shards that are open already and
from those that are not, and `Store.embeddings()` of all rows (256 dimensions, shards of 25,000) of another, each time
after an array of that size was filled: a virtual machine may hand out memory slowly when it is asked the first time.
Medians.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limits import disk_rate
from speechfeat.planning import SHARD_SECONDS
from speechfeat.store import Store, _open_tensors
from speechfeat.store_shards import Row
from speechfeat.store_writer import StoreWriter

GRID = {"grid": {"offset": 0, "window": 400, "hop": 320, "sample_rate": 16000}}
SECONDS, NUM_FRAMES, DIM = 5.0, 250, 768
EMBEDDING_DIM, ROWS_OF_SHARD = 256, 25_000


def row(number: int) -> Row:
    key = f"speaker{number % 997}/session/{number:08d}.wav"
    return Row(key, f"/data/corpus/{key}", 0.0, SECONDS, NUM_FRAMES, 16000)


def write_frames(path: Path, dtype: str, megabytes: int) -> float:
    """Bytes a second of a new store of about so many megabytes."""
    shutil.rmtree(path, ignore_errors=True)
    frames = np.random.default_rng(0).standard_normal((NUM_FRAMES, DIM)).astype(np.float32)
    size = NUM_FRAMES * DIM * np.dtype(dtype).itemsize
    embedding, count = frames.mean(axis=0), megabytes * 2**20 // size
    began = time.perf_counter()
    with StoreWriter(path, GRID, embedding_shape=(DIM,), store_dtype=dtype) as writer:
        for number in range(count):
            writer.add(row(number), frames, embedding)
            if writer.num_pending * SECONDS >= SHARD_SECONDS:
                writer.commit()
    return count * size / (time.perf_counter() - began)


def write_embeddings(path: Path, rows: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((ROWS_OF_SHARD, EMBEDDING_DIM)).astype(np.float32)
    with StoreWriter(path, GRID, embedding_shape=(EMBEDDING_DIM,), frames=False) as writer:
        for number in range(rows):
            writer.add(row(number), embedding=vectors[number % ROWS_OF_SHARD])
            if writer.num_pending == ROWS_OF_SHARD:
                writer.commit()


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def write_table(folder: Path, megabytes: int, rounds: int) -> None:
    rates: dict[str, list[float]] = {"disk": [], "float16": [], "float32": []}
    for _ in range(rounds):
        for name, found in rates.items():
            found.append(
                disk_rate(folder, megabytes) if name == "disk" else write_frames(folder / name, name, megabytes)
            )
    for name, found in rates.items():
        share = statistics.median(one / disk for one, disk in zip(found, rates["disk"], strict=True))
        label = "disk alone" if name == "disk" else f"store, frames in {name}"
        print(f"{label:36} {statistics.median(found) / 1e6:8.0f} MB/s  {share:6.0%} of the disk")


def read_table(folder: Path, rows: int, rounds: int) -> None:
    for name in ("float16", "float32"):
        store = Store(folder / name)
        keys = np.random.default_rng(0).choice(store.ids, 1000).tolist()
        for state in ("open", "closed"):
            found = []
            for key in keys:
                if state == "closed":
                    _open_tensors.cache_clear()
                found.append(1e3 * seconds(partial(store.frames, key)))
            label = f"frames(id), {name}, shard {state}"
            print(f"{label:36} {statistics.median(found):8.3f} ms    95 % below {np.quantile(found, 0.95):.3f} ms")
    write_embeddings(folder / "rows", rows)
    opening, filling, reading = [], [], []
    for _ in range(rounds):
        opening.append(seconds(partial(Store, folder / "rows")))
        store = Store(folder / "rows")
        filling.append(seconds(partial(np.full, (rows, EMBEDDING_DIM), 1.0, np.float32)))
        reading.append(seconds(store.embeddings))
    for label, found in (
        (f"Store(...) of {rows:,} rows", opening),
        (f"embeddings() of {rows:,} rows", reading),
        ("memory for them, filled", filling),
    ):
        print(f"{label:36} {statistics.median(found):8.2f} s     each {'  '.join(f'{one:.2f}' for one in found)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        write_table(Path(name), options.megabytes, options.rounds)
        read_table(Path(name), options.rows, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
