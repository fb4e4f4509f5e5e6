"""Recordings into samples for an encoder: decode, mix to mono, resample, with no more memory than the result."""

import importlib.metadata
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from speechfeat.decoding import (
    BLOCK_VALUES,
    PYAV_SUFFIXES,
    SNDFILE_SUFFIXES,
    TOLERANCE_SECONDS,
    Recording,
    open_recording,
)
from speechfeat.errors import AudioError, ParameterError
from speechfeat.types import Audio

# Suffixes taken when a directory is walked.
AUDIO_SUFFIXES = SNDFILE_SUFFIXES | PYAV_SUFFIXES

# A header outside of this is damaged; resampling from 1 Hz would fill the memory.
MIN_SOURCE_RATE, MAX_SOURCE_RATE = 1_000, 768_000

# Of soxr: as librosa and most tools have it.
RESAMPLER_QUALITY = "HQ"

# Below -120 dB of full scale: what some decoders give for digital silence.
SILENCE_PEAK = 1e-6

# Context around a segment, so that the resampling filter sees what it would see in the whole recording: beyond
# 20 ms the samples of both agree to float32 rounding (measured from 8 to 96 kHz).
_CONTEXT_SECONDS = 0.05

# What is set aside at once on the word of a header; a longer recording grows its array.
_MAX_CAPACITY = 2**28


class AudioInfo(NamedTuple):
    """What the header of a recording says.

    Attributes:
        duration: in seconds; of compressed files within a frame of the decoder (some 20 ms).
        sample_rate: in Hz.
        num_channels: 1 is mono.
    """

    duration: float
    sample_rate: int
    num_channels: int


def probe(path: str) -> AudioInfo:
    """Length, rate and channels of a recording, by its header alone wherever the header has them.

    Args:
        path: of the recording, as the operating system knows it.

    Raises:
        AudioError: if it cannot be opened or holds no samples.
    """
    with open_recording(path) as recording:
        _check_rate(path, recording)
        num_samples = recording.num_samples
        if num_samples is None:
            num_samples = recording.count_samples()
        if num_samples == 0:
            raise AudioError(f"{path!r} holds no samples")
        return AudioInfo(num_samples / recording.sample_rate, recording.sample_rate, recording.num_channels)


def read_audio(
    path: str,
    sample_rate: int,
    channel: str | int = "mean",
    start: float = 0.0,
    duration: float | None = None,
) -> Audio:
    """Samples of a recording or of a segment of it, mono, at the rate asked for.

    A segment has the samples that the same stretch of the whole recording has: exactly for lossless files at
    their own rate, to float32 rounding after resampling, to the codec's own noise after seeking in Ogg files.
    `n` samples become `round(n * sample_rate / source_rate)`. A segment may end up to 0.1 s past the end of the
    recording, as segments of Kaldi do; a longer part missing is flagged "truncated".

    Args:
        path: of the recording, as the operating system knows it.
        sample_rate: of the result, in Hz.
        channel: "mean" for the average of the channels, or the number of one, from 0.
        start: seconds into the recording.
        duration: seconds; None means to the end.

    Shape:
        samples `[N]`

    Raises:
        ParameterError: if an argument is outside what is allowed.
        AudioError: if the recording cannot be decoded, has no such channel, ends before `start`, or holds no
            samples, NaN or infinity.
    """
    _check_arguments(sample_rate, channel, start, duration)
    with open_recording(path) as recording:
        _check_rate(path, recording)
        _check_channel(path, recording, channel)
        span = _Span.plan(recording.sample_rate, sample_rate, start, duration)
        _check_span(path, recording, span, start)
        blocks = _checked(path, (_mix(block, channel) for block in recording.blocks(span.first)))
        samples, end = _collect(blocks, recording, span)
        if len(samples) == 0:
            cause = f": {recording.damage}" if recording.damage else ""
            raise AudioError(f"{path!r} holds no samples from {start} s on{cause}")
        flags = _flags(samples, recording, span, end)
        return Audio(samples, recording.sample_rate, flags)


def decoder_versions() -> dict[str, str]:
    """Versions of all that decides which samples a recording gives, for the record of a store."""
    versions = {"libsndfile": soundfile.__libsndfile_version__}
    for package in ("soundfile", "soxr", "av"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # PyAV is optional
    return versions


class _Span(NamedTuple):
    """Which samples of the source make which samples of the result.

    The result lies on the grid that the whole recording has at the new rate. The two grids meet every
    `source_rate / gcd` samples of the source: a resampler started there has the phase of one started at 0.

    Attributes:
        source_rate: of the recording, in Hz.
        target_rate: of the result, in Hz.
        first: sample of the source to start at, on both grids.
        stop: sample of the source to stop before; None is its end.
        skip: resampled samples to drop before the result begins.
        begin: first sample of the result, counted from the start of the recording at the new rate.
        limit: samples of the result; None is up to the end.
    """

    source_rate: int
    target_rate: int
    first: int
    stop: int | None
    skip: int
    begin: int
    limit: int | None

    @classmethod
    def plan(cls, source_rate: int, target_rate: int, start: float, duration: float | None) -> "_Span":
        begin = round(start * target_rate)
        limit = None if duration is None else round(duration * target_rate)
        common = math.gcd(source_rate, target_rate)
        period, step = source_rate // common, target_rate // common
        context = 0 if period == step else math.ceil(_CONTEXT_SECONDS * source_rate)
        meets = max(0, begin * period // step - context) // period
        stop = None if limit is None else -(-(begin + limit) * period // step) + context
        return cls(source_rate, target_rate, meets * period, stop, begin - meets * step, begin, limit)

    def resampled(self, num_samples: int) -> int:
        """Samples at the new rate of the first `num_samples` of the source: the nearest number, halves up."""
        return (2 * num_samples * self.target_rate + self.source_rate) // (2 * self.source_rate)

    def capacity(self, num_samples: int | None) -> int:
        """Samples to set aside for a source of `num_samples`."""
        expected = BLOCK_VALUES if num_samples is None else self.resampled(num_samples) - self.begin
        return min(expected, _MAX_CAPACITY) if self.limit is None else min(expected, _MAX_CAPACITY, self.limit)


def _collect(blocks: Iterator[np.ndarray], recording: Recording, span: _Span) -> tuple[np.ndarray, int | None]:
    """The result, and where the source ended if it did before `span.stop`."""
    output = _Output(span.capacity(recording.num_samples), span.skip)
    resampler = None
    if span.source_rate != span.target_rate:
        # Streaming for short recordings too: equal in every bit to soxr.resample, whatever the blocks.
        resampler = soxr.ResampleStream(
            span.source_rate, span.target_rate, 1, dtype="float32", quality=RESAMPLER_QUALITY
        )
    position, end = span.first, None
    while span.stop is None or position < span.stop:
        block = next(blocks, None)
        if block is None:
            end = position
            break
        block = block if span.stop is None else block[: span.stop - position]
        position += len(block)
        output.append(block if resampler is None else resampler.resample_chunk(block))
    if resampler is not None:
        output.append(resampler.resample_chunk(np.empty(0, dtype=np.float32), last=True))
    size = span.limit
    if end is not None:
        available = max(0, span.resampled(end) - span.begin)
        size = available if size is None else min(size, available)
    return output.take(size or 0), end


class _Output:
    """One array that samples are written into, after dropping the first few."""

    def __init__(self, capacity: int, skip: int) -> None:
        self._values = np.empty(max(1, capacity), dtype=np.float32)
        self._size = 0
        self._skip = skip

    def append(self, samples: np.ndarray) -> None:
        dropped = min(self._skip, len(samples))
        self._skip -= dropped
        samples = samples[dropped:]
        end = self._size + len(samples)
        if end > len(self._values):
            # In place (realloc moves pages, not bytes): the header lied, or there was none to go by.
            self._values.resize(max(end, len(self._values) * 3 // 2), refcheck=False)
        self._values[self._size : end] = samples
        self._size = end

    def take(self, size: int) -> np.ndarray:
        """The first `size` samples, with zeros if there are fewer; the array is given up."""
        self._values[self._size :] = 0
        self._values.resize(size, refcheck=False)
        return self._values


def _mix(block: np.ndarray, channel: str | int) -> np.ndarray:
    """One channel `[n]` of a block `[n, C]`, always a copy."""
    if isinstance(channel, int):
        return block[:, channel].copy()
    # Column by column: numpy's mean over a short last axis takes several times as long.
    mono = block[:, 0].copy()
    with np.errstate(invalid="ignore", over="ignore"):  # what comes of infinite samples is checked after this
        for index in range(1, block.shape[1]):
            mono += block[:, index]
    mono /= block.shape[1]
    return mono


def _checked(path: str, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks, as long as they are finite."""
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError(f"{path!r} holds NaN or infinite samples; export it again from its source")
        yield block


def _flags(samples: np.ndarray, recording: Recording, span: _Span, end: int | None) -> tuple[str, ...]:
    flags = []
    if max(samples.max(), -samples.min()) < SILENCE_PEAK:
        flags.append("silent")
    if span.source_rate < span.target_rate:
        flags.append("narrowband")
    if end is not None and len(samples) != span.limit and _is_truncated(len(samples), recording, span, end):
        flags.append("truncated")
    return tuple(flags)


def _is_truncated(num_samples: int, recording: Recording, span: _Span, end: int) -> bool:
    """Whether a source that ended at `end` should have gone on."""
    promised = recording.num_samples or 0
    asked = span.limit or 0
    return (
        bool(recording.damage)
        or promised - end > TOLERANCE_SECONDS * span.source_rate
        or asked - num_samples > TOLERANCE_SECONDS * span.target_rate
    )


def _check_arguments(sample_rate: int, channel: str | int, start: float, duration: float | None) -> None:
    if sample_rate <= 0:
        raise ParameterError(f"sample_rate={sample_rate} must be above 0 Hz")
    is_number = isinstance(channel, int) and not isinstance(channel, bool) and channel >= 0
    if channel != "mean" and not is_number:
        raise ParameterError(f"channel={channel!r} must be 'mean' or the number of a channel, from 0")
    if not 0 <= start < math.inf:
        raise ParameterError(f"start={start} must be a number of seconds, at least 0")
    if duration is not None and not 0 < duration < math.inf:
        raise ParameterError(f"duration={duration} must be a number of seconds above 0")


def _check_rate(path: str, recording: Recording) -> None:
    if not MIN_SOURCE_RATE <= recording.sample_rate <= MAX_SOURCE_RATE:
        raise AudioError(
            f"{path!r} has a sample rate of {recording.sample_rate} Hz in its header,"
            f" outside [{MIN_SOURCE_RATE}, {MAX_SOURCE_RATE}]: the header is damaged"
        )


def _check_channel(path: str, recording: Recording, channel: str | int) -> None:
    if isinstance(channel, int) and channel >= recording.num_channels:
        count = recording.num_channels
        raise AudioError(f"{path!r} has no channel {channel}: it has {count}, counted from 0")


def _check_span(path: str, recording: Recording, span: _Span, start: float) -> None:
    num_samples = recording.num_samples
    if num_samples == 0:
        raise AudioError(f"{path!r} holds no samples")
    end = None if num_samples is None else span.resampled(num_samples)
    if span.limit == 0 or end == 0:
        raise AudioError(f"{path!r} from {start} s on is shorter than a sample at {span.target_rate} Hz")
    if num_samples is not None and end is not None and span.begin >= end:
        length = num_samples / recording.sample_rate
        raise AudioError(f"start={start} s is past the end of {path!r}, which has {length:.3f} s")
