"""Writing a store so that a kill at any moment leaves only whole shards.

Everything is written under a `.tmp` name. A commit finishes and names the safetensors file, then the parquet
file: that last rename is the commit. Opening a writer removes what an interrupted one left and tells what is done.

    with StoreWriter("features", {"model": "wavlm-base"}, embedding_shape=(768,)) as writer:
        for row, frames, embedding in results:
            if row.id not in writer.done:
                writer.add(row, frames, embedding)
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np

from speechfeat.errors import InputError, ParameterError, StoreError
from speechfeat.store_config import disk_errors, make_config, publish
from speechfeat.store_directory import Done, StoreDirectory
from speechfeat.store_shards import (
    SAFETENSORS_DTYPES,
    Failure,
    Row,
    Slab,
    TensorFile,
    check_finite,
    check_id,
    label_columns,
    printable,
    write_rows,
)


class _Part(NamedTuple):
    """An utterance that arrives in pieces, in a file of its own until it is whole."""

    path: Path
    file: BinaryIO
    slab: Slab


class StoreWriter:
    """Adds utterances to a store, shard by shard. For one thread.

    Args:
        path: directory of the store; made where there is none, continued where it has the same configuration.
        config: what decides the features, nested, JSON values; its field `store` is filled in here.
        info: for the record: versions, date.
        prefix: of the shard names, such as "3of8-", so that several machines can write to one directory.
        label_names: labels of the rows, a column each.
        embedding_shape: `[D']` or `[L, D']`; None for a store without embeddings.
        store_dtype: of the frames on disk, "float16" or "float32".
        frames: whether the store keeps frames.
        tokens: whether the frames are tokens of texts, whose names and characters the rows have too.
        overwrite: remove what the store holds, whatever its configuration.

    Raises:
        StoreError: if the directory is in use, of another configuration, not a store, or cannot be written.
        ParameterError: if an argument is not allowed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        info: Mapping[str, Any] | None = None,
        *,
        prefix: str = "",
        label_names: Sequence[str] = (),
        embedding_shape: Sequence[int] | None = None,
        store_dtype: str = "float16",
        frames: bool = True,
        tokens: bool = False,
        overwrite: bool = False,
    ) -> None:
        if store_dtype not in SAFETENSORS_DTYPES:
            raise ParameterError(f"store_dtype={store_dtype!r} must be one of {', '.join(SAFETENSORS_DTYPES)}")
        if "store" in config:
            raise ParameterError("the configuration's field 'store' is the writer's own; give it another name")
        self._dtype, self._keeps_frames, self._keeps_tokens = store_dtype, frames, tokens
        self._shape = None if embedding_shape is None else [int(size) for size in embedding_shape]
        self._embedding_size = int(np.prod(self._shape or [0]))
        self._labels = label_columns(label_names, tokens=tokens)
        stored: dict[str, Any] = {"dtype": store_dtype, "frames": frames, "embedding_shape": self._shape}
        if tokens:
            stored["tokens"] = True
        whole = make_config({**config, "store": stored}, info)
        self._fingerprint = whole.fingerprint
        self._directory = StoreDirectory(Path(path), whole, prefix, overwrite)
        self._rows: dict[str, Row] = {}
        self._embeddings: list[np.ndarray] = []
        self._failures: dict[str, Failure] = {}
        self._tensors: TensorFile | None = None
        self._parts: dict[str, _Part] = {}
        self._num_parts = 0
        self._closed = False

    @property
    def path(self) -> Path:
        """Of the store."""
        return self._directory.path

    @property
    def info(self) -> Mapping[str, Any]:
        """For the record, as the run that made the store wrote it."""
        return self._directory.info

    @property
    def done(self) -> Mapping[str, Done]:
        """Committed utterances, by id."""
        return self._directory.done

    @property
    def failed(self) -> Mapping[str, Failure]:
        """Committed failures of inputs that were not done later, by id."""
        return self._directory.failed

    @property
    def num_pending(self) -> int:
        """Utterances and failures that the next commit will make durable."""
        return len(self._rows) + len(self._failures)

    @property
    def pending_bytes(self) -> int:
        """Bytes of features that the next commit will make durable."""
        frames = self._tensors.num_bytes if self._tensors else 0
        return frames + len(self._embeddings) * self._embedding_size * np.dtype(np.float32).itemsize

    def add(self, row: Row, frames: np.ndarray | None = None, embedding: np.ndarray | None = None) -> None:
        """Add a whole utterance; when the shard is full, what is pending is committed first.

        Args:
            row: what to record of it.
            frames: `[T, D]` or `[L, T, D]`; None if the store keeps none.
            embedding: `[D']` or `[L, D']`; None if the store has none.

        Raises:
            AudioError: if a value is NaN or infinite; nothing of the utterance is kept.
            StoreError: if the utterance is in the store, or the disk refuses, which closes the writer.
            ParameterError: if the features do not fit the store.
        """
        self._check_new(row.id)
        self._check_labels(row)
        self._check_frames(row.id, frames is not None)
        vector = self._vector(embedding)
        if frames is None:
            self._record(row, vector)
            return
        with self._writing():
            tensors = self._tensors_for(row.id, frames.shape)
            slab = tensors.slab(frames.shape)
            slab.write(frames)
            _check_complete(row, slab)
            tensors.append(row.id, slab)
        self._record(row, vector, slab.overflow)

    def begin(self, key: str, shape: Sequence[int]) -> None:
        """Announce an utterance that comes in pieces; commits pass it by until it is finished.

        Args:
            key: its id.
            shape: of all its frames, `[T, D]` or `[L, T, D]`.
        """
        self._check_new(key)
        self._check_frames(key, given=True)
        path = self._directory.part(self._num_parts)
        with self._writing():
            file = path.open("wb+")
            self._parts[key] = _Part(path, file, Slab(file, 0, shape, np.dtype(self._dtype)))
        self._num_parts += 1

    def write(self, key: str, frames: np.ndarray, at: int) -> None:
        """Write frames `[t, D]` or `[L, t, D]` of a begun utterance, each frame once.

        Args:
            key: the utterance's id.
            frames: the piece.
            at: index of its first frame along T.

        Raises:
            AudioError: if a value is NaN or infinite; the utterance is discarded.
        """
        with self._discarding(key), self._writing():
            self._part(key).slab.write(frames, at)

    def finish(self, row: Row, embedding: np.ndarray | None = None) -> None:
        """Add a begun utterance whose frames are all written; arguments and errors are those of `add`."""
        _, file, slab = self._part(row.id)
        self._check_labels(row)
        _check_complete(row, slab)
        with self._discarding(row.id):
            vector = self._vector(embedding)
        with self._writing():
            self._tensors_for(row.id, slab.shape).copy(row.id, file, slab)
            self.discard(row.id)
        self._record(row, vector, slab.overflow)

    def discard(self, key: str) -> None:
        """Drop a begun utterance."""
        path, file, _ = self._part(key)
        del self._parts[key]
        _close_anyway(file)
        path.unlink(missing_ok=True)

    def fail(self, key: str, path: str, reason: str) -> None:
        """Record an input that could not be done; what was begun of it is dropped."""
        if key in self._parts:
            self.discard(key)
        self._check_new(key)
        failure = Failure(key, printable(path), printable(reason))
        # Retried and failed as before: one more shard on every run would say nothing new.
        if self.failed.get(key) != failure:
            self._failures[key] = failure

    def commit(self) -> None:
        """Make everything added durable, as one shard; nothing happens when nothing is pending.

        Raises:
            StoreError: if the disk refuses; the writer is closed, earlier shards stay.
        """
        self._check_open()
        if not self.num_pending:
            return
        final = self._directory.shards / f"{self._directory.name}.parquet"
        temporary = final.with_name(final.name + ".tmp")
        with self._writing():
            if self._tensors and self._rows:
                self._tensors.finish()
                publish(self._tensors.path, final.with_suffix(".safetensors"))
                self._tensors = None
            write_rows(
                temporary,
                list(self._rows.values()),
                embeddings=None if self._shape is None else self._embeddings,
                embedding_size=self._embedding_size,
                labels=self._labels,
                failures=list(self._failures.values()),
                fingerprint=self._fingerprint,
                tokens=self._keeps_tokens,
            )
            publish(temporary, final)
            self._directory.number += 1
            self._rows, self._embeddings, self._failures = {}, [], {}
            self._directory.refresh()

    def close(self) -> None:
        """Commit, drop what was begun and not finished, and let the next writer in."""
        if not self._closed:
            self.commit()
            self.abort()

    def abort(self) -> None:
        """Drop everything since the last commit and let the next writer in."""
        if self._closed:
            return
        self._closed = True
        for part in self._parts.values():
            _close_anyway(part.file)
        if self._tensors:
            _close_anyway(self._tensors)
        with suppress(OSError):  # a disk that refuses this too leaves it to the next writer
            self._directory.remove_leftovers()
        self._directory.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # Whatever went wrong around it, what was added is whole, so it is kept; unless the store itself failed.
        if isinstance(error, StoreError):
            self.abort()
        else:
            self.close()

    def _record(self, row: Row, vector: np.ndarray | None, overflow: bool = False) -> None:
        labels = {name: value and printable(value) for name, value in row.labels.items()}
        flags = (*row.flags, "overflow") if overflow else row.flags
        self._rows[row.id] = replace(row, path=printable(row.path), flags=flags, labels=labels)
        self._failures.pop(row.id, None)
        if vector is not None:
            self._embeddings.append(vector)

    def _vector(self, embedding: np.ndarray | None) -> np.ndarray | None:
        """The embedding as it is stored: `[D']`, or flattened `[L * D']`."""
        given = None if embedding is None else list(np.shape(embedding))
        if given != self._shape:
            raise ParameterError(f"an embedding has shape {given}, the store's embedding_shape={self._shape}")
        if embedding is None:
            return None
        vector = np.array(embedding, np.float32).reshape(-1)
        check_finite(vector)
        return vector

    def _tensors_for(self, key: str, shape: Sequence[int]) -> TensorFile:
        """The shard's safetensors file, with room for one more tensor."""
        if self._tensors and not self._tensors.fits(key, shape):
            self.commit()
        if not self._tensors:
            path = self._directory.shards / f"{self._directory.name}.safetensors.tmp"
            self._tensors = TensorFile(path, self._dtype)
        return self._tensors

    def _part(self, key: str) -> _Part:
        self._check_open()
        if key not in self._parts:
            raise ParameterError(f"utterance {key!r} is not begun, or was discarded since; call begin first")
        return self._parts[key]

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the writer of {self.path} is closed; open another")

    def _check_new(self, key: str) -> None:
        self._check_open()
        check_id(key)
        if key in self.done or key in self._rows or key in self._parts:
            raise StoreError(f"utterance {key!r} is in the store {self.path} already; give each its own id")

    def _check_labels(self, row: Row) -> None:
        if unknown := sorted(row.labels.keys() - self._labels.keys()):
            raise ParameterError(
                f"utterance {row.id!r} has labels {unknown}, the store's label_names are {list(self._labels)}"
            )

    def _check_frames(self, key: str, given: bool) -> None:
        if given != self._keeps_frames:
            raise ParameterError(
                f"utterance {key!r} has {'' if given else 'no '}frames, the store's frames={self._keeps_frames}"
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A disk that refuses closes the writer: what the file then holds is not known."""
        try:
            with disk_errors(f"write to the store {self.path}"):
                yield
        except StoreError:
            self.abort()
            raise

    @contextmanager
    def _discarding(self, key: str) -> Iterator[None]:
        """An utterance with values that cannot be stored is dropped."""
        try:
            yield
        except InputError:
            self.discard(key)
            raise


def _check_complete(row: Row, slab: Slab) -> None:
    if not row.num_frames == slab.num_frames == slab.num_written:
        raise ParameterError(
            f"utterance {row.id!r} has num_frames={row.num_frames}, but {slab.num_written} frames of "
            f"{slab.num_frames} were written; all three must be equal"
        )


def _close_anyway(file: BinaryIO | TensorFile) -> None:
    """A full disk may refuse the last buffered bytes, which nobody wants any more."""
    with suppress(OSError):
        file.close()
