"""Reading a store, or several as one: frames with their times, embeddings, rows, errors.

    store = Store("features")
    frames = store.frames(store.ids[0])          # .values [T, D] float32, .times [T] seconds
    ids, embeddings = store.embeddings()         # [n, D'] float32, in the order of store.ids

A store that is still being written, or whose writer was killed, opens with what is committed.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError, safe_open

from speechfeat.errors import StoreError
from speechfeat.store_config import SHARDS, STORE_JSON, StoreConfig, differences, read_config
from speechfeat.store_shards import EMBEDDING, FIXED_FIELDS, OFFSETS, TOKENS, Failure, read_rows
from speechfeat.types import Frames
from speechfeat.units import frame_times

MAX_OPEN_FILES = 32

# Kept of the rows from the opening on: where an utterance is, and what its frames need beside their values.
KEPT_COLUMNS = ("id", "start", "flags")


class _Shard(NamedTuple):
    """A shard as it was when the store was opened: its parquet file, and of its rows the `KEPT_COLUMNS`."""

    file: Path
    rows: pa.Table


class Store:
    """Features on disk, by utterance id.

    Args:
        path: of a store, of a directory of stores, or a list of either; several open as one.

    Raises:
        StoreError: if there is no store, its configuration differs from another's, an id repeats, or a shard is
            damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> None:
        given = [path] if isinstance(path, str | os.PathLike) else list(path)
        self._paths = [found for entry in given for found in _find_stores(Path(entry))]
        self._config = _common_config(self._paths)
        self._shards: list[_Shard] = []
        self._failures: dict[str, Failure] = {}
        for store in self._paths:
            for file in sorted((store / SHARDS).glob("*.parquet")):
                rows, failures = read_rows(file, self.fingerprint, KEPT_COLUMNS)
                self._shards.append(_Shard(file, rows))
                self._failures.update((failure.id, failure) for failure in failures)
        # Rows are counted through all shards: those of the k-th begin at _bounds[k] and end before _bounds[k + 1].
        self._bounds = np.cumsum([0, *(shard.rows.num_rows for shard in self._shards)])
        self._ids, self._rows = self._sort()
        self._positions = {key: position for position, key in enumerate(self._ids)}

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, key: object) -> bool:
        return key in self._positions

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __repr__(self) -> str:
        return f"Store({', '.join(map(str, self._paths))}: {len(self)} utterances)"

    @property
    def ids(self) -> list[str]:
        """Of the utterances, sorted."""
        return list(self._ids)

    @property
    def config(self) -> dict[str, Any]:
        """What decided the features."""
        return self._config.config

    @property
    def info(self) -> dict[str, Any]:
        """For the record: versions, date (of the first, where several stores are open as one)."""
        return self._config.info

    @property
    def fingerprint(self) -> str:
        """Of the configuration."""
        return self._config.fingerprint

    @property
    def grid(self) -> dict[str, Any]:
        """The frame grid as `FrameGrid.describe` gives it: sample_rate, hop, window, offset.

        Raises:
            StoreError: if the configuration has none.
        """
        if "grid" not in self.config:
            raise StoreError(f"store {self._paths[0]} has no field 'grid', so its frames have no times")
        return self.config["grid"]

    def frames(self, key: str) -> Frames:
        """The frames of one utterance, `[T, D]` or `[L, T, D]`, with their times in seconds of its recording.

        Those of a text come with the names and characters of its tokens instead.

        Raises:
            StoreError: if the id is unknown, the store keeps no frames, or the shard is damaged.
        """
        shard, row = self._locate(int(self._rows[self._position(key)]))
        if not self.config["store"]["frames"]:
            raise StoreError(f"store {self._paths[0]} keeps no frames; it has embeddings only")
        file = shard.file.with_suffix(".safetensors")
        try:
            status = file.stat()
            stored = _open_tensors(file, status.st_ino, status.st_mtime_ns).get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"shard {file} is damaged or missing ({error}); restore it from a copy") from error
        # Always a copy: what a caller does to the values must not reach the file through a memory map.
        values = np.array(stored, np.float32)
        start, flags = (shard.rows.column(name)[row].as_py() for name in ("start", "flags"))
        if self.config["store"].get("tokens"):
            tokens, offsets = _open_tokens(shard.file, shard.file.stat().st_mtime_ns, self.fingerprint)[key]
            return Frames(values, np.empty(0), key, tuple(flags), tokens, offsets)
        grid = {name: self.grid[name] for name in ("offset", "window", "hop", "sample_rate")}
        return Frames(values, frame_times(values.shape[-2], start, **grid), key, tuple(flags))

    def embeddings(self, ids: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
        """Embeddings, `[n, D']` or `[n, L, D']` float32.

        Args:
            ids: of the utterances, in the order wanted; None for all, sorted.

        Returns:
            The ids and the array, in the same order.

        Raises:
            StoreError: if an id is unknown or the store has no embeddings.
        """
        shape = self.config["store"]["embedding_shape"]
        if shape is None:
            raise StoreError(f"store {self._paths[0]} has no embeddings; extract with a pooling (--pool mean)")
        keys = self.ids if ids is None else list(ids)
        rows = self._rows
        if ids is not None:
            rows = rows[np.fromiter(map(self._position, keys), np.int64, len(keys))]
        by_row = np.argsort(rows)
        ends = np.searchsorted(rows[by_row], self._bounds)
        result = np.empty((len(keys), *shape), np.float32)

        def fill(number: int) -> None:
            places = by_row[ends[number] : ends[number + 1]]
            wanted = rows[places] - self._bounds[number]
            values = self._embeddings_of(self._shards[number]).reshape(-1, *shape)
            # Each row once, as when all are asked for: no copy in between.
            is_whole = np.array_equal(wanted, np.arange(len(values)))
            result[places] = values if is_whole else values[wanted]

        # Decoding parquet lets other threads run; each keeps one shard in memory.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(fill, np.flatnonzero(np.diff(ends)).tolist()))
        return keys, result

    def table(self) -> pd.DataFrame:
        """A row an utterance, in the order of `ids`: what was recorded of it and its labels."""
        tables = [read_rows(shard.file, self.fingerprint)[0].replace_schema_metadata() for shard in self._shards]
        tables.append(pa.schema(FIXED_FIELDS).empty_table())
        # Shards of runs with other labels lack some columns: their cells are empty.
        frame = pa.concat_tables(tables, promote_options="default").to_pandas().sort_values("id", ignore_index=True)
        frame["flags"] = [tuple(flags) for flags in frame["flags"]]
        return frame

    def errors(self) -> list[dict[str, str]]:
        """The inputs that could not be done: id, path, reason; sorted by id."""
        return [asdict(self._failures[key]) for key in sorted(self._failures) if key not in self._positions]

    def _sort(self) -> tuple[list[str], np.ndarray]:
        """The ids, sorted, and the row of each.

        Raises:
            StoreError: if an id repeats.
        """
        chunks = [chunk for shard in self._shards for chunk in shard.rows.column("id").chunks]
        # Ids of all shards together may pass the 2 GB that `string` can address.
        ids = pa.chunked_array(chunks, pa.string()).cast(pa.large_string()).combine_chunks()
        rows = pc.sort_indices(ids)
        ordered = ids.take(rows)
        repeats = pc.equal(ordered[1:], ordered[:-1])
        if pc.any(repeats).as_py():
            first = pc.index(repeats, True).as_py()
            one, other = (self._locate(rows[first + step].as_py())[0].file for step in (0, 1))
            raise StoreError(
                f"utterance {ordered[first].as_py()!r} is in {one} and in {other}; remove one of the two shards"
            )
        return ordered.to_pylist(), rows.to_numpy().astype(np.int64)

    def _locate(self, row: int) -> tuple[_Shard, int]:
        """The shard of a row, and the row's number there."""
        shard = bisect_right(self._bounds, row) - 1
        return self._shards[shard], row - int(self._bounds[shard])

    def _position(self, key: str) -> int:
        """Of an id among the sorted ones."""
        position = self._positions.get(key)
        if position is None:
            raise StoreError(f"no utterance {key!r} in {self!r}{_suggest(key, self._ids)}")
        return position

    def _embeddings_of(self, shard: _Shard) -> np.ndarray:
        """Embeddings of all rows of a shard, in its order, flat."""
        table, _ = read_rows(shard.file, self.fingerprint, ("id", EMBEDDING))
        if not table.column("id").equals(shard.rows.column("id")):
            raise StoreError(f"shard {shard.file} was replaced since the store was opened; open it again")
        return table.column(EMBEDDING).combine_chunks().flatten().to_numpy()


def _find_stores(path: Path) -> list[Path]:
    """The path itself, or the stores right below it where it is none."""
    below = [] if (path / STORE_JSON).exists() else sorted(file.parent for file in path.glob(f"*/{STORE_JSON}"))
    return below or [path]


def _common_config(paths: Sequence[Path]) -> StoreConfig:
    if not paths:
        raise StoreError("no store was given; name at least one directory")
    first, *others = (read_config(path) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        if fields := differences(first, other):
            raise StoreError(f"stores {paths[0]} and {path} differ ({fields}); open them one by one")
    return first


@lru_cache(maxsize=MAX_OPEN_FILES)
def _open_tensors(file: Path, inode: int, modified: int) -> Any:
    """A memory-mapped safetensors file; inode and time of change tell a replaced file from the one kept open."""
    return safe_open(file, "numpy")


@lru_cache(maxsize=4)
def _open_tokens(file: Path, modified: int, fingerprint: str) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Tokens and offsets of the texts of a shard, by id; the time of change tells a replaced file."""
    table, _ = read_rows(file, fingerprint, ("id", TOKENS, OFFSETS))
    ids, tokens = (table.column(name).to_pylist() for name in ("id", TOKENS))
    flat = table.column(OFFSETS).combine_chunks().flatten().flatten().to_numpy().reshape(-1, 2)
    ends = np.cumsum([len(names) for names in tokens])[:-1]
    return {
        key: (tuple(names), np.array(own)) for key, names, own in zip(ids, tokens, np.split(flat, ends), strict=True)
    }


def _suggest(key: str, ids: Sequence[str]) -> str:
    """What may have been meant: an id that contains the key (its folder was left out), or one spelt alike."""
    place = bisect_left(ids, key)
    # All of 300,000 ids would take half a minute to compare; a misspelling leaves an id near its place.
    near = ids[max(0, place - 500) : place + 500]
    matches = [other for other in ids if key in other][:3] or get_close_matches(key, near, 3)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""
