"""Padded batches of the frames in a store, read when they are wanted."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from speechfeat.batching import plan_batches
from speechfeat.errors import ParameterError
from speechfeat.heads.binding import Binding
from speechfeat.store import Store

# In an epoch, the length of an utterance counts for up to this much more than it is: utterances of like lengths then
# do not meet in every epoch.
LONGEST_BLUR = 1.3
# Of a padded batch: 256 MiB, and some three times as much while a network is trained on it.
MOST_VALUES = 2**26


class FrameBatch(NamedTuple):
    """Padded frames with their lengths.

    Attributes:
        frames: `[B, L, T, D]` float32, zeros past each length.
        lengths: `[B]` valid frames of each.
        rows: `[B]`, which of the utterances given each is.
    """

    frames: Tensor
    lengths: Tensor
    rows: np.ndarray

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self._replace(frames=self.frames.to(device), lengths=self.lengths.to(device))


class Reader(Protocol):
    """Where the frames of utterances come from.

    Attributes:
        ids: of the utterances, one a row.
        lengths: `[n]` frames of each.
        frame_size: values of a frame, L * D.
    """

    ids: list[str]
    lengths: np.ndarray
    frame_size: int

    def read(self, row: int) -> np.ndarray:
        """The frames of one utterance, `[L, T, D]`."""


class FrameReader:
    """Frames of a store, of the layers of a binding.

    Utterances are read one by one as they are asked for, and kept as long as there is room. The first ones are kept and
    none is given up for another: an epoch asks for each once, so that whatever was used last is wanted last.

    Args:
        store: with frames.
        binding: that says which layers.
        ids: of the utterances.
        cache_bytes: of memory that frames may take between two uses.

    Raises:
        StoreError: if an id is not in the store, or it keeps no frames.
        ParameterError: if an utterance has no frame.
    """

    def __init__(self, store: Store, binding: Binding, ids: Sequence[str], cache_bytes: int = 0) -> None:
        self.ids = list(ids)
        for key in self.ids:
            if key not in store:
                store.frames(key)  # says what may have been meant
        table = store.table().set_index("id")["num_frames"]
        self.lengths = table.loc[self.ids].to_numpy()
        if (empty := np.flatnonzero(self.lengths < 1)).size:
            raise ParameterError(f"{len(empty)} utterances have no frame, first {self.ids[empty[0]]!r}; leave them out")
        self.frame_size = len(binding.layers) * store.config["encoder"]["dim"]
        self._store, self._binding = store, binding
        # What was stored in half precision takes half the room, and loses nothing.
        self._dtype = np.dtype(store.config["store"]["dtype"])
        self._room = cache_bytes
        self._kept: dict[str, np.ndarray] = {}

    def read(self, row: int) -> np.ndarray:
        """The frames of one utterance, `[L, T, D]`."""
        key = self.ids[row]
        if key in self._kept:
            return self._kept[key]
        values = self._binding.frames(self._store, key)
        kept = values.astype(self._dtype)
        if kept.nbytes <= self._room:
            self._room -= kept.nbytes
            self._kept[key] = kept
        return values


class EmbeddingReader:
    """Embeddings of a store, each taken for an utterance of a single frame.

    Args:
        store: with embeddings.
        binding: that says which layers.
        ids: of the utterances.

    Raises:
        StoreError: if an id is not in the store.
    """

    def __init__(self, store: Store, binding: Binding, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        self.lengths = np.ones(len(self.ids), np.int64)
        self._values = binding.embeddings(store, self.ids)[:, :, None]
        self.frame_size = int(np.prod(self._values.shape[1:]))

    def read(self, row: int) -> np.ndarray:
        """`[L, 1, D]`."""
        return self._values[row]


def open_reader(store: Store, binding: Binding, ids: Sequence[str], cache_bytes: int = 0) -> Reader:
    """The reader that a binding asks for; takes and raises what `FrameReader` does."""
    if binding.pool == "none":
        return FrameReader(store, binding, ids, cache_bytes)
    return EmbeddingReader(store, binding, ids)


class FrameBatches:
    """Batches of some utterances of a reader.

    Args:
        reader: of the frames.
        rows: which of its utterances.
        batch_frames: the most frames in a padded batch, fewer where frames are so large that it would not fit into
            256 MiB; a longer utterance is a batch of its own.
        batch_size: the most utterances in a batch.
        crop: frames that are taken of a longer utterance in an epoch, from a place drawn anew; None takes all.
        seed: of order and crops.
    """

    def __init__(
        self,
        reader: Reader,
        rows: Sequence[int] | np.ndarray,
        *,
        batch_frames: int = 16000,
        batch_size: int = 32,
        crop: int | None = None,
        seed: int = 0,
    ) -> None:
        self.reader, self.rows = reader, np.asarray(rows, np.int64)
        self.batch_frames = max(1, min(batch_frames, MOST_VALUES // reader.frame_size))
        self.batch_size, self.crop, self.seed = batch_size, crop, seed

    def epoch(self, number: int) -> Iterator[FrameBatch]:
        """Each utterance once, beside others of about its length, in an order that seed and number decide."""
        rng = np.random.default_rng((self.seed, number))
        lengths = self.reader.lengths[self.rows]
        taken = lengths if self.crop is None else np.minimum(lengths, self.crop)
        starts = rng.integers(lengths - taken + 1)
        # The order decides between equal lengths.
        order = rng.permutation(len(self.rows))
        blurred = taken[order] * rng.uniform(1, LONGEST_BLUR, len(order))
        batches = self._plan(blurred)
        for place in rng.permutation(len(batches)):
            chosen = order[batches[place]]
            yield self._make(chosen, starts[chosen], taken[chosen])

    def once(self) -> Iterator[FrameBatch]:
        """Each utterance once and whole, the longest first."""
        lengths = self.reader.lengths[self.rows]
        for batch in self._plan(lengths):
            chosen = np.array(batch)
            yield self._make(chosen, np.zeros_like(chosen), lengths[chosen])

    def _plan(self, lengths: np.ndarray) -> list[list[int]]:
        return plan_batches(lengths.tolist(), self.batch_frames, self.batch_size)

    def _make(self, chosen: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> FrameBatch:
        taken = [
            self.reader.read(row)[:, start : start + length]
            for row, start, length in zip(self.rows[chosen].tolist(), starts, lengths, strict=True)
        ]
        num_layers, _, dim = taken[0].shape
        padded = np.zeros((len(taken), num_layers, lengths.max(), dim), np.float32)
        for target, values in zip(padded, taken, strict=True):
            target[:, : values.shape[1]] = values
        return FrameBatch(torch.from_numpy(padded), torch.from_numpy(lengths.astype(np.int64)), self.rows[chosen])
