"""Cutting long inputs into chunks on the frame grid, so that their frames join to those of the whole."""

from dataclasses import dataclass
from typing import NamedTuple

from speechfeat.errors import ParameterError
from speechfeat.units import FrameGrid


class Chunk(NamedTuple):
    """A stretch of an input and the frames that it answers for.

    Attributes:
        start: first sample, a multiple of the hop.
        stop: one past its last sample.
        first_frame: of the whole, the first that this chunk gives.
        last_frame: of the whole, one past the last that this chunk gives.
        skip: frames of the chunk before `first_frame`, which only gave context.
    """

    start: int
    stop: int
    first_frame: int
    last_frame: int
    skip: int


@dataclass(frozen=True)
class Chunking:
    """When and how long inputs are cut.

    Attributes:
        length: of a chunk, in seconds.
        overlap: of two neighbours, in seconds; each gives up half of it.
        above: inputs up to this many seconds are encoded whole.
    """

    length: float = 30.0
    overlap: float = 4.0
    above: float = 60.0

    def __post_init__(self) -> None:
        if self.length <= 0:
            raise ParameterError(f"chunk={self.length} must be above 0 seconds")
        if not 0 <= self.overlap < self.length:
            raise ParameterError(f"overlap={self.overlap} must be in [0, chunk={self.length}) seconds")
        if self.above < self.length:
            raise ParameterError(f"chunk_above={self.above} must be at least chunk={self.length} seconds")

    def plan(
        self, num_samples: int, grid: FrameGrid, max_samples: int | None = None, *, causal: bool = False
    ) -> list[Chunk]:
        """Chunks of an input, one if it is short enough.

        Args:
            num_samples: of the input, at least `grid.min_samples`.
            grid: of the encoder.
            max_samples: the longest input that the encoder takes, or None.
            causal: as for `cut`.
        """
        whole = grid.samples(self.above) if max_samples is None else min(max_samples, grid.samples(self.above))
        if num_samples <= whole:
            return [Chunk(0, num_samples, 0, grid.num_frames(num_samples), 0)]
        length = grid.samples(self.length) if max_samples is None else min(max_samples, grid.samples(self.length))
        return cut(num_samples, grid, grid.align(length), grid.align(grid.samples(self.overlap)), causal=causal)


def cut(num_samples: int, grid: FrameGrid, length: int, overlap: int, *, causal: bool = False) -> list[Chunk]:
    """Cut an input into as few chunks as will do, of nearly equal length.

    Equal chunks pad little in a batch, and none is so short that it would lack context.

    Args:
        num_samples: of the input.
        grid: of the encoder.
        length: the most samples in a chunk.
        overlap: samples that neighbours share, a multiple of the hop.
        causal: whether frames see only what is before them: then the later chunk gives up the whole overlap, else
            each gives up half of it.

    Raises:
        ParameterError: if a chunk is too short to advance beyond its overlap.

    Example:
        >>> from speechfeat.units import Stage
        >>> grid = FrameGrid(16000, (Stage(400, 320),))
        >>> [(c.start, c.stop, c.first_frame) for c in cut(960000, grid, 480000, 64000)]
        [(0, 362560, 0), (298560, 661120, 1033), (597120, 960000, 1966)]
    """
    # Starts are brought onto the grid, which may lengthen a chunk by less than a hop.
    step = length - overlap - grid.hop
    if step < grid.hop or length < grid.min_samples + overlap:
        raise ParameterError(
            f"a chunk of {grid.seconds(length):g} s with an overlap of {grid.seconds(overlap):g} s gives no frame of "
            f"its own (window {grid.window} samples, hop {grid.hop}); make it longer or the overlap shorter"
        )
    count = max(1, -(-(num_samples - overlap) // step))
    starts = [grid.align(number * (num_samples - overlap) // count) for number in range(count)]
    stops = [*(start + overlap for start in starts[1:]), num_samples]
    given_up = overlap // grid.hop if causal else overlap // grid.hop // 2
    borders = [0, *(start // grid.hop + given_up for start in starts[1:]), grid.num_frames(num_samples)]
    return [
        Chunk(start, stop, borders[number], borders[number + 1], borders[number] - start // grid.hop)
        for number, (start, stop) in enumerate(zip(starts, stops, strict=True))
    ]
