"""Laws of pooling."""

import numpy as np
import pytest

from speechfeat.errors import ParameterError
from speechfeat.pooling import POOLS, Pooler, pool_frames, pooled_dim

VALUES = np.random.default_rng(0).standard_normal((3, 101, 5)).astype(np.float32) * 10 + 100


@pytest.mark.parametrize("pool", POOLS)
def test_pieces_equal_the_whole(pool: str) -> None:
    pooler = Pooler(pool)
    for start, stop in ((0, 1), (1, 40), (40, 40), (40, 101)):
        pooler.add(VALUES[:, start:stop])
    whole = pool_frames(VALUES, pool)
    assert whole.shape == (3, pooled_dim(pool, 5))
    assert np.allclose(pooler.result(), whole, rtol=1e-6)


def test_against_numpy() -> None:
    assert np.allclose(pool_frames(VALUES[0], "mean"), VALUES[0].mean(0))
    assert np.allclose(pool_frames(VALUES[0], "std"), VALUES[0].std(0, dtype=np.float64), rtol=1e-5)
    assert np.array_equal(pool_frames(VALUES[0], "max"), VALUES[0].max(0))
    assert np.array_equal(pool_frames(VALUES[0], "first"), VALUES[0, 0])
    assert np.array_equal(pool_frames(VALUES[0], "last"), VALUES[0, -1])
    both = pool_frames(VALUES[0], "mean+std")
    assert np.array_equal(both, np.concatenate([pool_frames(VALUES[0], "mean"), pool_frames(VALUES[0], "std")]))


def test_order_of_frames_does_not_matter_to_statistics() -> None:
    shuffled = VALUES[:, np.random.default_rng(1).permutation(101)]
    for pool in ("mean", "std", "max"):
        assert np.allclose(pool_frames(shuffled, pool), pool_frames(VALUES, pool), rtol=1e-6)


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ParameterError, match="pool='median'"):
        Pooler("median")
    with pytest.raises(ParameterError, match="at least one frame"):
        Pooler("mean").result()
