"""Laws of frame grids."""

import doctest

import numpy as np
import pytest

from speechfeat import batching, chunking, layers, pooling, units
from speechfeat.encoders import shapes
from speechfeat.errors import ParameterError
from speechfeat.units import FrameGrid, Stage, conv_stages

WAV2VEC2 = FrameGrid(16000, conv_stages((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)))


@pytest.mark.parametrize("module", [units, layers, batching, pooling, chunking, shapes])
def test_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def test_wav2vec2_convolutions() -> None:
    assert (WAV2VEC2.hop, WAV2VEC2.window, WAV2VEC2.offset) == (320, 400, 0)
    for count in (0, 1, 399, 400, 719, 720, 16000, 16001, 123457):
        assert WAV2VEC2.num_frames(count) == (max(0, (count - 400) // 320 + 1) if count >= 400 else 0)
    assert np.allclose(WAV2VEC2.times(3), 0.01246875 + 0.02 * np.arange(3), atol=1e-12)


def test_shortest_input_is_the_shortest() -> None:
    grids = [WAV2VEC2, FrameGrid(16000, (Stage(400, 160, 200, 200), Stage(3, 2, 1, 1), Stage(3, 2, 1, 1)))]
    for grid in grids:
        assert grid.num_frames(grid.min_samples) == 1
        assert grid.min_samples == 1 or grid.num_frames(grid.min_samples - 1) == 0


def test_padding_moves_the_first_centre() -> None:
    grid = FrameGrid(16000, (Stage(400, 160, 200, 40),))
    assert grid.offset == -200
    assert grid.num_frames(16000) == 100
    assert grid.times(1)[0] == pytest.approx(-0.5 / 16000)


def test_bad_grids_are_refused() -> None:
    with pytest.raises(ParameterError, match="sample_rate=0"):
        FrameGrid(0, (Stage(1, 1),))
    with pytest.raises(ParameterError, match="at least 1"):
        FrameGrid(16000, (Stage(0, 1),))
