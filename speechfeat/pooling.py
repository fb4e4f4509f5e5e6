"""From frames to one vector: statistics over time, gathered piece by piece."""

import numpy as np

from speechfeat.errors import ParameterError

POOLS = ("mean", "std", "mean+std", "max", "first", "last")

# Of a text's tokens: the special one that begins it, and the last of all, which the others may leave out.
EDGE_TOKENS = {"cls": "first", "last_token": "last"}
TEXT_POOLS = (*POOLS, *EDGE_TOKENS)

SPELLINGS = {"meanstd": "mean+std", "mean_std": "mean+std", "stats": "mean+std", "lasttoken": "last_token"}


def check_pool(pool: str, allowed: tuple[str, ...] = POOLS) -> str:
    """The pooling's name, with common spellings understood.

    Raises:
        ParameterError: if it is not known.
    """
    name = SPELLINGS.get(pool, pool)
    if name not in allowed:
        raise ParameterError(f"pool={pool!r} is not known; use {', '.join(allowed)}")
    return name


def pooled_dim(pool: str, dim: int) -> int:
    """Dimensions of a pooled vector made from `dim` of a frame."""
    return 2 * dim if pool == "mean+std" else dim


class Pooler:
    """Statistics over the frames of one utterance.

    Mean and variance are merged as Chan, Golub and LeVeque (1979) do, in float64, so that a recording of hours and
    its pieces give the same vector. The standard deviation is that of the population (divided by T).

    Args:
        pool: one of `TEXT_POOLS`; the tokens that it should not see are left out by its caller.

    Example:
        >>> pooler = Pooler("mean+std")
        >>> pooler.add(np.array([[[1.0], [3.0]]]))
        >>> pooler.result().tolist()
        [[2.0, 1.0]]
    """

    def __init__(self, pool: str) -> None:
        self.pool = EDGE_TOKENS.get(pool) or check_pool(pool)
        self.num_frames = 0
        self._mean = self._squares = self._edge = np.zeros(0)

    def add(self, values: np.ndarray) -> None:
        """Take the next frames, `[L, T, D]` or `[T, D]`; a piece without frames changes nothing."""
        count = values.shape[-2]
        if count == 0:
            return
        if self.pool in ("max", "first", "last"):
            self._add_edge(values)
        else:
            self._add_moments(values, count)
        self.num_frames += count

    def _add_edge(self, values: np.ndarray) -> None:
        if self.pool == "max":
            peak = values.max(axis=-2)
            self._edge = np.maximum(self._edge, peak) if self.num_frames else peak
        elif self.pool == "last":
            self._edge = values[..., -1, :].copy()
        elif not self.num_frames:
            self._edge = values[..., 0, :].copy()

    def _add_moments(self, values: np.ndarray, count: int) -> None:
        mean = values.mean(axis=-2, dtype=np.float64)
        squares = np.zeros_like(mean)
        if self.pool != "mean":
            squares = np.square(values - mean[..., None, :].astype(values.dtype)).sum(axis=-2, dtype=np.float64)
        if self.num_frames:
            total = self.num_frames + count
            shift = mean - self._mean
            squares += self._squares + shift**2 * (self.num_frames * count / total)
            mean = self._mean + shift * (count / total)
        self._mean, self._squares = mean, squares

    def result(self) -> np.ndarray:
        """The pooled vector, `[L, D']` or `[D']` float32.

        Raises:
            ParameterError: if no frame was given.
        """
        if not self.num_frames:
            raise ParameterError("pooling needs at least one frame, got none")
        if self.pool in ("max", "first", "last"):
            return self._edge.astype(np.float32)
        std = np.sqrt(self._squares / self.num_frames)
        parts = {"mean": [self._mean], "std": [std], "mean+std": [self._mean, std]}[self.pool]
        return np.concatenate(parts, axis=-1).astype(np.float32)


def pool_frames(values: np.ndarray, pool: str) -> np.ndarray:
    """Pool all frames of an utterance at once.

    Shape:
        `[T, D]` -> `[D']`, `[L, T, D]` -> `[L, D']`; D' is 2 D for "mean+std", else D
    """
    pooler = Pooler(pool)
    pooler.add(values)
    return pooler.result()
