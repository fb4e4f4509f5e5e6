"""Windows sliding over the frames of a recording, pooled: what a head on embeddings is asked about every place.

embeddings, firsts = window_embeddings(frames.values, length=10, hop=1, pool="mean+std")   # [n, L, D'], [n]
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.ndimage import maximum_filter1d

from speechfeat.errors import ParameterError
from speechfeat.heads.binding import Binding
from speechfeat.pooling import check_pool
from speechfeat.store import Store
from speechfeat.units import frame_times

POOLS = ("mean", "std", "mean+std", "max")

# Windows pooled at a time: 2,048 of ten frames of 768 dimensions take some 50 MB, sums in float64 and all.
PIECE = 2048


def window_embeddings(values: np.ndarray, length: int, hop: int, pool: str) -> tuple[np.ndarray, np.ndarray]:
    """Pooled statistics of windows, in one pass, whose work does not grow with their length.

    What `pool_frames` gives for each window, to 1e-5 of the deviation over the recording: sums are differences of
    cumulative sums, taken in float64 around the mean of a piece.

    Holds all embeddings, `n * L * D' * 4` bytes: for recordings of hours, take `pooled_windows` piece by piece.

    Args:
        values: frames `[L, T, D]`.
        length: of a window, in frames; a recording shorter than that is one window.
        hop: from one window to the next, in frames; the last window ends with the recording whatever the hop.
        pool: "mean", "std", "mean+std" or "max".

    Returns:
        Embeddings `[n, L, D']` float32, and the first frame of each window `[n]`.

    Raises:
        ParameterError: if the shape, a number or the pooling is not as above.
    """
    parts = list(pooled_windows(values, length, hop, pool))
    return np.concatenate([part for part, _ in parts]), np.concatenate([firsts for _, firsts in parts])


def pooled_windows(values: np.ndarray, length: int, hop: int, pool: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`window_embeddings` in pieces of up to 2,048 windows; takes and raises what that does."""
    length, firsts = _plan(values, length, hop)
    if check_pool(pool) not in POOLS:
        raise ParameterError(f"pool={pool!r} says nothing of a window; use {', '.join(POOLS)}")
    for begin in range(0, len(firsts), PIECE):
        chosen = firsts[begin : begin + PIECE]
        piece = values[:, chosen[0] : chosen[-1] + length]
        yield _pool(piece, length, chosen - chosen[0], check_pool(pool)).swapaxes(0, 1), chosen


def window_firsts(num_frames: int, length: int, hop: int) -> np.ndarray:
    """First frame of every window, `[n]`; see `window_embeddings`."""
    last = max(0, num_frames - length)
    firsts = np.arange(0, last + 1, hop)
    return firsts if firsts[-1] == last else np.append(firsts, last)


def _plan(values: np.ndarray, length: int, hop: int) -> tuple[int, np.ndarray]:
    if values.ndim != 3 or not values.shape[1]:
        raise ParameterError(f"frames have the shape {values.shape}; give [L, T, D] with T above 0")
    if not (length >= 1 and hop >= 1):
        raise ParameterError(f"length={length} and hop={hop} must be at least 1 frame")
    return min(length, values.shape[1]), window_firsts(values.shape[1], length, hop)


def _pool(piece: np.ndarray, length: int, firsts: np.ndarray, pool: str) -> np.ndarray:
    """`[L, n, D']` float32 of the windows of a piece `[L, T, D]`."""
    if pool == "max":
        # The filter is centred: its value `length // 2` frames on is of the window that starts here.
        return maximum_filter1d(piece, length, axis=1)[:, firsts + length // 2]
    centre = piece.mean(axis=1, keepdims=True, dtype=np.float64)
    centred = piece - centre
    mean = _sums(centred, length, firsts) / length
    parts = [mean + centre] if pool != "std" else []
    if pool != "mean":
        variance = _sums(np.square(centred), length, firsts) / length - np.square(mean)
        parts.append(np.sqrt(np.maximum(variance, 0)))  # rounding may leave less than nothing of a constant
    return np.concatenate(parts, axis=-1).astype(np.float32)


def _sums(values: np.ndarray, length: int, firsts: np.ndarray) -> np.ndarray:
    """Sums over windows, `[L, n, D]`, of `[L, T, D]` float64."""
    running = np.cumsum(values, axis=1)
    ends = running[:, firsts + length - 1]
    before = running[:, np.maximum(firsts - 1, 0)]
    return ends - np.where(firsts[:, None] > 0, before, 0)


class Windows(NamedTuple):
    """Some windows of one length over a recording.

    Attributes:
        length: in frames.
        embeddings: `[n, L, D']` float32.
        starts: `[n]`, in seconds of the recording.
        ends: `[n]`.
    """

    length: int
    embeddings: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class Slider:
    """Slides windows over the recordings of a store, as a head on pooled embeddings takes them.

    A window reaches from half a hop of the frames before the centre of its first frame to half a hop past that of its
    last.

    Args:
        store: with the frames.
        binding: of the head: which layers, which pooling.
        windows: their lengths in seconds; those of one number of frames are one.
        hop: seconds from one window to the next; at least a frame is taken.

    Raises:
        ParameterError: if the store keeps no frames, is of another encoder or lacks the layers.
    """

    def __init__(self, store: Store, binding: Binding, windows: Sequence[float], hop: float) -> None:
        if not store.config["store"]["frames"]:
            raise ParameterError(f"{store!r} keeps no frames to slide over; extract without --no-frames")
        replace(binding, pool="none").check(store)  # how the store pooled whole recordings does not matter here
        self._store, self._binding = store, binding
        self._grid = {name: store.grid[name] for name in ("offset", "window", "hop", "sample_rate")}
        self._period = self._grid["hop"] / self._grid["sample_rate"]
        self._lengths = sorted({max(1, round(window / self._period)) for window in windows})
        self._hop = max(1, round(hop / self._period))
        table = store.table()
        self._starts = dict(zip(table["id"], table["start"], strict=True))
        self._num_frames = dict(zip(table["id"], table["num_frames"], strict=True))

    def slide(self, key: str) -> Iterator[Windows]:
        """All windows of one recording, by length and then by time, in pieces of up to 2,048.

        Raises:
            StoreError: if the id is not in the store.
        """
        values = self._binding.frames(self._store, key)
        for length in self._lengths:
            for embeddings, firsts in pooled_windows(values, length, self._hop, self._binding.pool):
                yield Windows(length, embeddings, *self._span(key, firsts, length))

    def spans(self, key: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Starts and ends of the windows of one recording, for each length, `[n]` rising; no frame is read."""
        for length in self._lengths:
            yield self._span(key, window_firsts(self._num_frames[key], length, self._hop), length)

    def _span(self, key: str, firsts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        times = frame_times(self._num_frames[key], self._starts[key], **self._grid)
        lasts = np.minimum(firsts + length, len(times)) - 1
        return np.maximum(times[firsts] - self._period / 2, self._starts[key]), times[lasts] + self._period / 2
