"""Laws of chunks: together they give every frame once, each from a place with context."""

import numpy as np
import pytest

from speechfeat.chunking import Chunking, cut
from speechfeat.errors import ParameterError
from speechfeat.units import FrameGrid, Stage

GRIDS = [
    FrameGrid(16000, (Stage(400, 320),)),
    FrameGrid(16000, (Stage(400, 160, 200, 40), Stage(3, 2, 1, 1))),
    FrameGrid(8000, (Stage(25, 7),)),
]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("extra", [1, 319, 320, 5000, 40000, 99999])
def test_every_frame_once_and_in_order(grid: FrameGrid, extra: int) -> None:
    length, overlap = grid.align(20000), grid.align(6000)
    num_samples = length + extra
    chunks = cut(num_samples, grid, length, overlap)
    frames = [frame for chunk in chunks for frame in range(chunk.first_frame, chunk.last_frame)]
    assert frames == list(range(grid.num_frames(num_samples)))
    for chunk in chunks:
        assert chunk.start % grid.hop == 0
        assert 0 < chunk.stop - chunk.start <= length
        assert chunk.skip + chunk.last_frame - chunk.first_frame <= grid.num_frames(chunk.stop - chunk.start)
    assert chunks[-1].stop == num_samples


@pytest.mark.parametrize("grid", GRIDS)
def test_an_encoder_that_sees_one_window_is_stitched_without_error(grid: FrameGrid) -> None:
    samples = np.random.default_rng(0).standard_normal(70001)

    def encode(signal: np.ndarray) -> np.ndarray:
        # Mean over what lies inside of the signal of each frame's window.
        starts = grid.offset + grid.hop * np.arange(grid.num_frames(len(signal)))
        return np.array([signal[max(0, start) : start + grid.window].mean() for start in starts])

    chunks = cut(len(samples), grid, grid.align(20000), grid.align(6000))
    stitched = [
        encode(samples[chunk.start : chunk.stop])[chunk.skip : chunk.skip + chunk.last_frame - chunk.first_frame]
        for chunk in chunks
    ]
    assert np.allclose(np.concatenate(stitched), encode(samples), atol=1e-12)


def test_short_inputs_stay_whole() -> None:
    chunking = Chunking(length=30, overlap=4, above=60)
    assert len(chunking.plan(60 * 16000, GRIDS[0])) == 1
    assert len(chunking.plan(60 * 16000 + 1, GRIDS[0])) > 1
    assert len(chunking.plan(31 * 16000, GRIDS[0], max_samples=30 * 16000)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "chunk=0"),
        ({"length": 10, "overlap": 10}, r"overlap=10 must be in \[0, chunk=10\)"),
        ({"length": 10, "overlap": -1}, "overlap=-1"),
        ({"length": 10, "above": 5}, "chunk_above=5"),
    ],
)
def test_bad_chunks_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Chunking(**arguments)


def test_a_chunk_without_a_frame_is_refused() -> None:
    with pytest.raises(ParameterError, match="gives no frame"):
        Chunking(length=0.01, overlap=0.0, above=0.01).plan(16000, GRIDS[0])
