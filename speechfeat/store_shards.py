"""One shard of a store: frames in a safetensors file that grows, rows in a parquet file that commits them.

A shard is `NAME.safetensors` (frames) and `NAME.parquet` (a row an utterance). The parquet file gets its name
last, so a shard is whole or it is not there. Its schema metadata hold the inputs that failed beside these rows,
committed in the same instant.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speechfeat.errors import AudioError, ParameterError, StoreError
from speechfeat.store_config import disk_errors, write_behind

# The safetensors header comes first and its length is known last: this much is kept free for it and padded with
# spaces, as the format allows. Some 2,000 utterances fit; the writer starts the next shard before it overflows.
DATA_START = 256 * 1024
MAX_ID_BYTES = 4096
BLOCK_BYTES = 4 * 1024 * 1024
# Up to so many torch converts in the thread that asks; more it would spread over those that the encoder needs.
SERIAL_VALUES = 32768
SAFETENSORS_DTYPES = {"float16": "F16", "float32": "F32"}
FINGERPRINT_KEY = b"speechfeat.fingerprint"
FAILURES_KEY = b"speechfeat.failures"

FIXED_FIELDS = (
    pa.field("id", pa.string()),
    pa.field("path", pa.string()),
    pa.field("start", pa.float64()),
    pa.field("duration", pa.float64()),
    pa.field("num_frames", pa.int64()),
    pa.field("sample_rate", pa.int64()),
    pa.field("flags", pa.list_(pa.string())),
    pa.field("size", pa.int64()),
)
EMBEDDING = "embedding"

# Of texts, whose frames are tokens: their names, and the first character and one past the last of each.
TOKEN_FIELDS = (
    pa.field("tokens", pa.list_(pa.string())),
    pa.field("offsets", pa.list_(pa.list_(pa.int32(), 2))),
)
TOKENS, OFFSETS = (field_.name for field_ in TOKEN_FIELDS)


@dataclass(frozen=True)
class Row:
    """What a store records of one utterance, beside its features.

    Attributes:
        id: unique in the store.
        path: of the recording; undecodable bytes (surrogates) are escaped with backslashes when stored.
        start: seconds into the recording; None for a text.
        duration: seconds; None for a text.
        num_frames: T.
        sample_rate: of the recording, in Hz; None for a text.
        flags: what a user should know: "short", "silent", "overflow" ...
        size: of the recording's file or of the text, in bytes; tells later whether the input changed.
        labels: other columns; None where unknown.
        tokens: names of the T tokens of a text.
        offsets: `[T, 2]` of their characters.
    """

    id: str
    path: str
    start: float | None
    duration: float | None
    num_frames: int
    sample_rate: int | None
    flags: tuple[str, ...] = ()
    size: int = 0
    labels: Mapping[str, str | None] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    offsets: np.ndarray | None = None


@dataclass(frozen=True)
class Failure:
    """An input that could not be done, and why."""

    id: str
    path: str
    reason: str


def printable(text: str) -> str:
    r"""Valid UTF-8 for any string: `os.fsdecode(b"a\xff")` becomes `a\udcff`, spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_id(key: str) -> None:
    """Refuse an id that a shard cannot hold.

    Raises:
        ParameterError: if it is empty, reserved, too long or not UTF-8.
    """
    if not key or key == "__metadata__":
        raise ParameterError(f"utterance id {key!r} is reserved; give the utterance another id")
    if printable(key) != key:
        raise ParameterError(f"utterance id {key!r} is not valid UTF-8; give the utterance another id")
    if len(key.encode()) > MAX_ID_BYTES:
        raise ParameterError(f"utterance id {key[:40]!r}... is longer than {MAX_ID_BYTES} bytes; give it a shorter id")


def check_finite(values: np.ndarray) -> None:
    """Refuse values that no store should hold.

    Raises:
        AudioError: if one is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise AudioError("the encoder gave NaN or infinite values")


class Slab:
    """A place in a file for the frames of one utterance, filled in any order, in the store's precision.

    Args:
        file: open for writing.
        offset: of the place, in bytes.
        shape: `[T, D]` or `[L, T, D]`.
        dtype: on disk.
    """

    def __init__(self, file: BinaryIO, offset: int, shape: Sequence[int], dtype: np.dtype) -> None:
        if len(shape) not in {2, 3} or min(shape) < 0:
            raise ParameterError(f"frames have shape {list(shape)}, must be [T, D] or [L, T, D]")
        self.shape = tuple(int(size) for size in shape)
        self.num_bytes = int(np.prod(self.shape, dtype=np.int64)) * dtype.itemsize
        self.num_written = 0
        self.overflow = False
        self._file, self._offset, self._dtype = file, offset, dtype

    @property
    def num_frames(self) -> int:
        """T."""
        return self.shape[-2]

    def write(self, frames: np.ndarray, at: int = 0) -> None:
        """Write the frames from `at` on.

        Args:
            frames: `[t, D]` or `[L, t, D]`.
            at: the first one's index along T.

        Raises:
            AudioError: if a value is NaN or infinite.
            ParameterError: if the frames do not fit the shape.
        """
        num = frames.shape[-2] if frames.ndim >= 2 else -1
        if frames.shape != (*self.shape[:-2], num, self.shape[-1]) or not 0 <= at <= self.num_frames - num:
            raise ParameterError(f"frames of shape {list(frames.shape)} at {at} do not fit into {list(self.shape)}")
        dim = self.shape[-1]
        step = max(1, BLOCK_BYTES // max(1, dim * frames.itemsize))
        for layer, values in enumerate(frames.reshape(-1, num, dim) if frames.size else ()):
            for first in range(0, num, step):
                block, overflow = _to_stored(values[first : first + step], self._dtype)
                self.overflow |= overflow
                position = (layer * self.num_frames + at + first) * dim * self._dtype.itemsize
                self._file.seek(self._offset + position)
                self._file.write(block.data)
        self.num_written += num


def _to_stored(values: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, bool]:
    """Values in the store's precision, clipped to its range, and whether that was needed."""
    if (values.dtype, dtype) == (np.float32, np.float16):
        stored = _halved(values)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            stored = np.ascontiguousarray(values, dtype)
    if _is_finite(stored):
        return stored, False
    check_finite(values)
    limit = np.finfo(dtype).max
    return np.ascontiguousarray(np.clip(values, -limit, limit), dtype), True


def _halved(values: np.ndarray) -> np.ndarray:
    """float32 as float16 by torch, which rounds as numpy does and is three times as fast."""
    import torch  # not for those who only read

    source = torch.from_numpy(np.require(values, requirements=["C", "W"]).reshape(-1))
    stored = np.empty(values.shape, np.float16)
    target = torch.from_numpy(stored.reshape(-1))
    for piece, place in zip(source.split(SERIAL_VALUES), target.split(SERIAL_VALUES), strict=True):
        place.copy_(piece)
    return stored


def _is_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; of float16 by its exponent, which is ten times as fast as numpy."""
    if values.dtype != np.float16:
        return bool(np.isfinite(values).all())
    exponent = 0x7C00
    return values.size == 0 or bool((values.view(np.uint16) & exponent).max() < exponent)


class TensorFile:
    """A safetensors file that grows by one tensor at a time and never holds one in memory.

    Args:
        path: of the file, made anew.
        dtype: "float16" or "float32".
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.path = path
        self.num_bytes = 0
        self._dtype = np.dtype(dtype)
        self._entries: list[bytes] = []
        self._header_bytes = 2
        self._num_sent = 0
        self._file = path.open("wb+")

    def slab(self, shape: Sequence[int]) -> Slab:
        """A place at the end; it counts only once it is closed with `append`."""
        return Slab(self._file, DATA_START + self.num_bytes, shape, self._dtype)

    def fits(self, key: str, shape: Sequence[int]) -> bool:
        """Whether the header has room for one more tensor; always so in an empty file."""
        longest = self._entry(key, shape, 2**62, 2**62)
        return 8 + self._header_bytes + len(longest) + 1 <= DATA_START

    def append(self, key: str, slab: Slab) -> None:
        """Keep what was written to the slab as the tensor `key`."""
        entry = self._entry(key, slab.shape, self.num_bytes, self.num_bytes + slab.num_bytes)
        self._entries.append(entry)
        self._header_bytes += len(entry) + 1
        self.num_bytes += slab.num_bytes
        if self.num_bytes - self._num_sent >= BLOCK_BYTES:
            write_behind(self._file, DATA_START + self._num_sent, self.num_bytes - self._num_sent)
            self._num_sent = self.num_bytes

    def copy(self, key: str, source: BinaryIO, slab: Slab) -> None:
        """Append a tensor whose bytes were written to a file of their own."""
        source.seek(0)
        self._file.seek(DATA_START + self.num_bytes)
        remaining = slab.num_bytes
        while remaining:
            block = source.read(min(remaining, BLOCK_BYTES))
            self._file.write(block)
            remaining -= len(block)
        self.append(key, slab)

    def finish(self) -> None:
        """Write the header and close; what was written but not kept is cut off."""
        header = (b"{" + b",".join(self._entries) + b"}").ljust(DATA_START - 8)
        self._file.seek(0)
        self._file.write(struct.pack("<Q", len(header)) + header)
        self._file.truncate(DATA_START + self.num_bytes)
        self.close()

    def close(self) -> None:
        """Close without a header: the file stays a leftover."""
        self._file.close()

    def _entry(self, key: str, shape: Sequence[int], begin: int, end: int) -> bytes:
        dtype = SAFETENSORS_DTYPES[self._dtype.name]
        value = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        return json.dumps({key: value}, ensure_ascii=False, separators=(",", ":"))[1:-1].encode()


def label_columns(names: Sequence[str], *, tokens: bool = False) -> dict[str, str]:
    """The column of each label: its name, with `_label` where a fixed column has that name already."""
    columns: dict[str, str] = {}
    fixed = (*FIXED_FIELDS, *TOKEN_FIELDS) if tokens else FIXED_FIELDS
    taken = {field_.name for field_ in fixed} | {EMBEDDING}
    for name in names:
        column = printable(name)
        while column in taken:
            column += "_label"
        taken.add(column)
        columns[name] = column
    return columns


def write_rows(
    file: Path,
    rows: Sequence[Row],
    *,
    embeddings: Sequence[np.ndarray] | None,
    embedding_size: int,
    labels: Mapping[str, str],
    failures: Sequence[Failure],
    fingerprint: str,
    tokens: bool = False,
) -> None:
    """Write the parquet file of a shard.

    Args:
        file: to write; not yet under its final name.
        rows: of the utterances done.
        embeddings: `[size]` float32 each; None where the store has none.
        embedding_size: length of an embedding.
        labels: column of each label.
        failures: of the inputs that could not be done.
        fingerprint: of the store's configuration.
        tokens: whether the frames are tokens, whose names and characters are written too.
    """
    columns = [pa.array([getattr(row, field_.name) for row in rows], field_.type) for field_ in FIXED_FIELDS]
    fields = list(FIXED_FIELDS)
    if embeddings is not None:
        flat = np.concatenate(embeddings) if embeddings else np.empty(0, np.float32)
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), embedding_size))
        fields.append(pa.field(EMBEDDING, columns[-1].type))
    if tokens:
        columns.extend(_token_columns(rows))
        fields.extend(TOKEN_FIELDS)
    for name, column in labels.items():
        columns.append(pa.array([row.labels.get(name) for row in rows], pa.string()))
        fields.append(pa.field(column, pa.string()))
    failed = json.dumps([asdict(failure) for failure in failures])
    schema = pa.schema(fields, {FINGERPRINT_KEY: fingerprint.encode(), FAILURES_KEY: failed.encode()})
    # A dictionary of embeddings would be tried on every shard and be given up on every one.
    names = [field_.name for field_ in fields if field_.name != EMBEDDING] + [f"{TOKENS}.list.element"]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, use_dictionary=names)


def _token_columns(rows: Sequence[Row]) -> list[pa.Array]:
    ends = np.cumsum([0, *(len(row.tokens) for row in rows)], dtype=np.int32)
    flat = np.concatenate([row.offsets for row in rows if row.offsets is not None] or [np.empty((0, 2), np.int32)])
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1), pa.int32()), 2)
    names = pa.array([name for row in rows for name in row.tokens], pa.string())
    return [
        pa.ListArray.from_arrays(pa.array(ends), values, type=field_.type)
        for values, field_ in zip((names, pairs), TOKEN_FIELDS, strict=True)
    ]


def read_rows(file: Path, fingerprint: str, columns: Sequence[str] | None = None) -> tuple[pa.Table, list[Failure]]:
    """Read the rows and failures of a shard.

    Args:
        file: the shard's parquet file.
        fingerprint: that it must have.
        columns: to read, where the shard has them; None for all but the embedding and the tokens.

    Raises:
        StoreError: if the file is damaged or belongs to another store.
    """
    try:
        with disk_errors(f"read {file}"), pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            large = {EMBEDDING, *(field_.name for field_ in schema if field_ in TOKEN_FIELDS)}
            wanted = [name for name in schema.names if name not in large] if columns is None else list(columns)
            table = parquet.read(wanted)
            recorded = schema.metadata[FINGERPRINT_KEY].decode()
            failures = [Failure(**failure) for failure in json.loads(schema.metadata[FAILURES_KEY])]
    except (pa.ArrowException, StoreError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"shard {file} is damaged ({error}); remove it and its .safetensors, and run again to do it anew"
        ) from error
    if recorded != fingerprint:
        raise StoreError(
            f"shard {file} was made with another configuration: its fingerprint is {recorded!r}, the store's "
            f"{fingerprint!r}; move it to a store of its own"
        )
    return table, failures
