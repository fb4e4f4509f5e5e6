"""Recordings in, features out, all in memory: what `Encoder.encode` and `Encoder.embed` do."""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr

from speechfeat.audio import RESAMPLER_QUALITY, probe, read_audio
from speechfeat.batching import plan_batches
from speechfeat.chunking import Chunking
from speechfeat.errors import AudioError, ParameterError
from speechfeat.pooling import Pooler, check_pool
from speechfeat.streaming import Failure, Piece, stream
from speechfeat.types import ALL_FRAMES, Audio, Frames, Wanted

if TYPE_CHECKING:
    from speechfeat.encoders.base import Encoder

Recording = str | os.PathLike | np.ndarray


@dataclass(frozen=True)
class RunOptions:
    """How recordings are run.

    Attributes:
        batch_seconds: of padded audio in a batch; None chooses from the device.
        num_workers: threads that read.
        chunking: how long recordings are cut.
    """

    batch_seconds: float | None = None
    num_workers: int = 2
    chunking: Chunking = field(default_factory=Chunking)


def encode_recordings(
    encoder: "Encoder", recordings: Sequence[Recording], sample_rate: int | None, options: RunOptions
) -> list[Frames]:
    """Features of every recording, in order."""
    pieces: dict[int, list[Piece]] = {}
    for piece in _run(encoder, recordings, sample_rate, options):
        pieces.setdefault(piece.item, []).append(piece)
    return [_frames(encoder, recordings[item], pieces.pop(item)) for item in range(len(recordings))]


def embed_recordings(
    encoder: "Encoder", recordings: Sequence[Recording], pool: str, sample_rate: int | None, options: RunOptions
) -> np.ndarray:
    """A vector of every recording, in order, without keeping the frames."""
    pool = check_pool(pool)
    poolers = [Pooler(pool) for _ in recordings]
    pooled: dict[int, np.ndarray] = {}
    for piece in _run(encoder, recordings, sample_rate, options, Wanted(pool=pool, frames=False)):
        if piece.embedding is None:
            poolers[piece.item].add(piece.frames)
        else:
            pooled[piece.item] = piece.embedding
    vectors = np.stack([pooled[item] if item in pooled else one.result() for item, one in enumerate(poolers)])
    return vectors if encoder.selection.stacked else vectors[:, 0]


def _frames(encoder: "Encoder", recording: Recording, pieces: list[Piece]) -> Frames:
    values = pieces[0].frames if len(pieces) == 1 else np.concatenate([piece.frames for piece in pieces], axis=1)
    return Frames(
        values=values if encoder.selection.stacked else values[0],
        times=encoder.grid.times(values.shape[1]),
        id="" if isinstance(recording, np.ndarray) else os.fspath(recording),
        flags=pieces[0].flags,
    )


def _run(
    encoder: "Encoder",
    recordings: Sequence[Recording],
    sample_rate: int | None,
    options: RunOptions,
    wanted: Wanted = ALL_FRAMES,
) -> Iterator[Piece]:
    if isinstance(recordings, str | os.PathLike) or (isinstance(recordings, np.ndarray) and recordings.ndim == 1):
        raise ParameterError("one recording was given where a list of them is expected; put it into brackets")
    if not len(recordings):
        raise ParameterError("no recordings were given; give a list of paths or of arrays [N]")
    if sample_rate is not None and sample_rate <= 0:
        raise ParameterError(f"sample_rate={sample_rate} must be above 0 Hz")
    seconds = [_seconds(one, sample_rate or encoder.sample_rate) for one in recordings]
    budget = options.batch_seconds or encoder.default_batch_seconds()

    def read(item: int) -> Audio:
        one = recordings[item]
        if isinstance(one, str | os.PathLike):
            return read_audio(os.fspath(one), encoder.sample_rate)
        return from_array(one, sample_rate or encoder.sample_rate, encoder.sample_rate)

    results = stream(
        encoder,
        plan_batches([encoder.cost(duration) for duration in seconds], budget),
        read,
        seconds=seconds,
        chunking=options.chunking,
        num_workers=options.num_workers,
        batch_seconds=budget,
        wanted=wanted,
    )
    with closing(results):  # the readers stop at the first failure
        for result in chain.from_iterable(results):
            if isinstance(result, Failure):
                one = recordings[result.item]
                named = f"{os.fspath(one)!r}" if isinstance(one, str | os.PathLike) else "an array"
                raise AudioError(f"recording {result.item} ({named}): {result.reason}")
            yield result


def _seconds(recording: Recording, sample_rate: int) -> float:
    if isinstance(recording, str | os.PathLike):
        return probe(str(Path(recording))).duration
    return len(recording) / sample_rate


def from_array(values: np.ndarray, source_rate: int, sample_rate: int) -> Audio:
    """Samples `[N]` as audio at another rate.

    Raises:
        ParameterError: if it is not one-dimensional and real.
        AudioError: if it is empty, or holds NaN or infinite samples.
    """
    samples = np.asarray(values)
    if samples.ndim != 1:
        raise ParameterError(f"an array has the shape {samples.shape}; give mono samples [N]")
    if np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    elif not np.issubdtype(samples.dtype, np.floating):
        raise ParameterError(f"an array is of {samples.dtype}; give floats in [-1, 1] or signed integers")
    samples = samples.astype(np.float32)
    if not len(samples):
        raise AudioError("the array holds no samples")
    if not np.isfinite(samples).all():
        raise AudioError("the array holds NaN or infinite samples")
    if source_rate != sample_rate:
        samples = soxr.resample(samples, source_rate, sample_rate, quality=RESAMPLER_QUALITY)
    return Audio(samples, source_rate, () if samples.any() else ("silent",))
