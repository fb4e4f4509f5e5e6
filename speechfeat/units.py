"""Samples, frames and seconds: the only place that converts between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from speechfeat.errors import ParameterError


class Stage(NamedTuple):
    """One sliding window of a front end: a convolution, an STFT, a pooling or a stacking of frames.

    Attributes:
        kernel: window length, in inputs of this stage.
        stride: step between windows, in inputs of this stage.
        pad_left: inputs added before the first one.
        pad_right: inputs added after the last one; negative where a definition drops its last window.
    """

    kernel: int
    stride: int
    pad_left: int = 0
    pad_right: int = 0

    def count(self, num_inputs: int) -> int:
        """Windows that fit into `num_inputs` inputs."""
        if num_inputs <= 0:
            return 0
        return max(0, (num_inputs + self.pad_left + self.pad_right - self.kernel) // self.stride + 1)

    def fewest(self, count: int) -> int:
        """Inputs, at least 1, that give `count` windows, of at least 1."""
        return max(1, (count - 1) * self.stride + self.kernel - self.pad_left - self.pad_right)


def count_windows(stages: Sequence[Stage], num_inputs: int) -> int:
    """Windows of the last of several stages for inputs of the first."""
    for stage in stages:
        num_inputs = stage.count(num_inputs)
    return num_inputs


def fewest_inputs(stages: Sequence[Stage], count: int) -> int:
    """Inputs of the first of several stages, at least 1, that give `count` windows of the last."""
    for stage in reversed(stages):
        count = stage.fewest(count)
    return count


@dataclass(frozen=True)
class FrameGrid:
    """When each frame of an encoder happens, from the arithmetic of its own front end.

    Args:
        sample_rate: of the encoder's input, in Hz.
        stages: the windows between samples and frames, in order.

    Example:
        >>> convs = [Stage(10, 5)] + [Stage(3, 2)] * 4 + [Stage(2, 2)] * 2
        >>> grid = FrameGrid(16000, tuple(convs))
        >>> grid.hop, grid.window, grid.num_frames(16000), grid.min_samples
        (320, 400, 49, 400)
        >>> grid.times(2).tolist()
        [0.01246875, 0.03246875]
    """

    sample_rate: int
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if self.sample_rate <= 0:
            raise ParameterError(f"sample_rate={self.sample_rate} must be above 0 Hz")
        for stage in self.stages:
            if stage.kernel < 1 or stage.stride < 1:
                raise ParameterError(f"{stage} must have kernel and stride of at least 1")

    @cached_property
    def hop(self) -> int:
        """Samples between the starts of two frames."""
        return int(np.prod([stage.stride for stage in self.stages], dtype=np.int64))

    @cached_property
    def window(self) -> int:
        """Samples that one frame sees before the first block (the receptive field of the front end)."""
        window, hop = 1, 1
        for stage in self.stages:
            window += (stage.kernel - 1) * hop
            hop *= stage.stride
        return window

    @cached_property
    def offset(self) -> int:
        """First sample of the window of frame 0; negative where the front end pads."""
        offset, hop = 0, 1
        for stage in self.stages:
            offset -= stage.pad_left * hop
            hop *= stage.stride
        return offset

    @property
    def frame_rate(self) -> float:
        """Frames in a second."""
        return self.sample_rate / self.hop

    @cached_property
    def min_samples(self) -> int:
        """The shortest input that gives a frame; anything shorter is padded to it and flagged `short`."""
        return fewest_inputs(self.stages, 1)

    def num_frames(self, num_samples: int) -> int:
        """Frames of an input of `num_samples` samples."""
        return count_windows(self.stages, num_samples)

    def times(self, num_frames: int, start: float = 0.0) -> np.ndarray:
        """Centre of each frame in seconds, `[T]` float64, for an input that starts at `start` seconds."""
        return frame_times(
            num_frames,
            start,
            offset=self.offset,
            window=self.window,
            hop=self.hop,
            sample_rate=self.sample_rate,
        )

    def samples(self, seconds: float) -> int:
        """The nearest number of samples to `seconds`."""
        return round(seconds * self.sample_rate)

    def seconds(self, num_samples: int) -> float:
        """The length of `num_samples` samples in seconds."""
        return num_samples / self.sample_rate

    def align(self, num_samples: int) -> int:
        """The largest multiple of the hop that is not above `num_samples`."""
        return num_samples - num_samples % self.hop

    def describe(self) -> dict[str, float | int]:
        """What a store records of the grid; equal grids give equal descriptions."""
        return {
            "sample_rate": self.sample_rate,
            "hop": self.hop,
            "window": self.window,
            "offset": self.offset,
            "min_samples": self.min_samples,
        }


class Measure(NamedTuple):
    """How amounts of input are told to people.

    Attributes:
        unit: of an amount.
        seconds: of the frame grid, in one unit.
        digits: after the point.
        rate: what a second of the grid in a second of time is called.
        rate_digits: after the point.
    """

    unit: str
    seconds: float
    digits: int
    rate: str
    rate_digits: int

    def amount(self, seconds: float) -> str:
        """An amount in words."""
        return f"{seconds / self.seconds:.{self.digits}f} {self.unit}"

    def speed(self, seconds: float, time: float) -> str:
        """An amount in a time, in words."""
        return f"{seconds / max(time, 1e-9):.{self.rate_digits}f} {self.rate}"


HOURS = Measure("h", 3600.0, 2, "x real time", 1)
# A text's grid has a token a second.
TOKENS = Measure("tokens", 1.0, 0, "tokens/s", 0)


def frame_times(
    num_frames: int, start: float = 0.0, *, offset: int, window: int, hop: int, sample_rate: int
) -> np.ndarray:
    """Centre of each frame in seconds, `[T]` float64, from what `FrameGrid.describe` recorded.

    Args:
        num_frames: T.
        start: of the input, in seconds of its recording.
        offset: first sample of the window of frame 0.
        window: samples that one frame sees.
        hop: samples between the starts of two frames.
        sample_rate: of the input, in Hz.
    """
    centres = offset + (window - 1) / 2 + hop * np.arange(num_frames, dtype=np.float64)
    return start + centres / sample_rate


def conv_stages(kernels: Sequence[int], strides: Sequence[int]) -> tuple[Stage, ...]:
    """Stages of a stack of unpadded convolutions."""
    return tuple(Stage(kernel, stride) for kernel, stride in zip(kernels, strides, strict=True))
