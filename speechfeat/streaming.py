"""Reading ahead in worker threads while the encoder runs: batches of utterances in, pieces of features out."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speechfeat.chunking import Chunk, Chunking
from speechfeat.errors import InputError, SpeechfeatError
from speechfeat.types import Audio, Tokens

if TYPE_CHECKING:
    from speechfeat.encoders.base import BaseEncoder

# Seconds of audio that may lie decoded ahead of the encoder: 40 MB at 16 kHz.
AHEAD_SECONDS = 600.0


class Piece(NamedTuple):
    """Consecutive frames of one utterance; its pieces come in order, all before the next utterance's.

    Attributes:
        item: which utterance.
        values: `[L, t, D]` float32.
        first_frame: where `values` begins.
        num_frames: T, of the whole utterance.
        audio_seconds: length of the whole utterance; of a text, its number of tokens.
        source_rate: of the recording, in Hz; 0 for a text.
        flags: what a user should know of the utterance.
        tokens: of the whole text, or None for a recording.
    """

    item: int
    values: np.ndarray
    first_frame: int
    num_frames: int
    audio_seconds: float
    source_rate: int
    flags: tuple[str, ...]
    tokens: Tokens | None = None

    @property
    def is_last(self) -> bool:
        """Whether the utterance ends with this piece."""
        return self.first_frame + self.values.shape[1] == self.num_frames


class Failure(NamedTuple):
    """An utterance that could not be read or encoded, and why, in one sentence."""

    item: int
    reason: str


class _Ready(NamedTuple):
    """What a worker thread hands over: prepared input of a short utterance, or samples of a long one."""

    item: int
    inputs: np.ndarray
    chunks: list[Chunk]
    num_samples: int
    source_rate: int
    flags: tuple[str, ...]
    tokens: Tokens | None


def stream(
    encoder: "BaseEncoder",
    batches: Sequence[Sequence[int]],
    read: Callable[[int], Audio | Tokens],
    *,
    seconds: Sequence[float],
    chunking: Chunking,
    num_workers: int,
    batch_seconds: float,
    ahead_seconds: float = AHEAD_SECONDS,
) -> Generator[list[Piece | Failure]]:
    """Encode batches of utterances, in order.

    Args:
        encoder: what to run.
        batches: groups of items that run together.
        read: gives the audio of an item at the encoder's rate, or the tokens of a text; called in worker threads.
        seconds: expected length of each item, to bound what is read ahead.
        chunking: how long utterances are cut.
        num_workers: threads that read and prepare.
        batch_seconds: of padded audio that chunks of a long utterance run on together.
        ahead_seconds: that may lie read ahead of the encoder.

    Yields:
        What one run of the encoder gave: pieces and failures. A long utterance takes several runs.
    """
    pending: deque[tuple[float, list[Future[_Ready | Failure]]]] = deque()
    upcoming = deque(batches)
    chunk_batch = max(1, int(batch_seconds / encoder.cost(chunking.length)))

    def prepare(item: int) -> _Ready | Failure:
        try:
            return _prepare(encoder, item, read(item), chunking)
        except SpeechfeatError as error:
            return Failure(item, str(error))
        except Exception as error:  # whatever a codec raises, the other files must go on
            return Failure(item, f"{type(error).__name__}: {' '.join(str(error).split())}")

    with ThreadPoolExecutor(max_workers=max(1, num_workers), thread_name_prefix="read") as pool:
        try:
            while upcoming or pending:
                ahead = sum(cost for cost, _ in pending)
                while upcoming and (not pending or ahead + _cost(upcoming[0], seconds) <= ahead_seconds):
                    cost = _cost(upcoming[0], seconds)
                    pending.append((cost, [pool.submit(prepare, item) for item in upcoming.popleft()]))
                    ahead += cost
                yield from _encode(encoder, [future.result() for future in pending.popleft()[1]], chunk_batch)
        finally:
            for _, futures in pending:
                for future in futures:
                    future.cancel()


def _cost(batch: Sequence[int], seconds: Sequence[float]) -> float:
    return sum(seconds[item] for item in batch)


def _prepare(encoder: "BaseEncoder", item: int, source: Audio | Tokens, chunking: Chunking) -> _Ready:
    num_samples = len(source.samples)
    flags = source.flags
    if num_samples < encoder.grid.window:
        flags = (*flags, "short")
    rate, tokens = (0, source) if isinstance(source, Tokens) else (source.source_rate, None)
    backbone = encoder.backbone
    samples = encoder.lengthen(backbone.normalize(source.samples))
    chunks = chunking.plan(len(samples), encoder.grid, backbone.max_samples, causal=backbone.causal)
    if len(chunks) > 1:
        return _Ready(item, samples, chunks, num_samples, rate, (*flags, "chunked"), tokens)
    return _Ready(item, backbone.prepare(samples), chunks, num_samples, rate, flags, tokens)


def _encode(
    encoder: "BaseEncoder", ready: Sequence[_Ready | Failure], chunk_batch: int
) -> Iterator[list[Piece | Failure]]:
    short = [one for one in ready if isinstance(one, _Ready) and len(one.chunks) == 1]
    results: list[Piece | Failure] = [one for one in ready if isinstance(one, Failure)]
    results.extend(_encode_short(encoder, short))
    if results:
        yield results
    for one in ready:
        if isinstance(one, _Ready) and len(one.chunks) > 1:
            yield from _encode_long(encoder, one, chunk_batch)


def _encode_short(encoder: "BaseEncoder", batch: Sequence[_Ready]) -> list[Piece | Failure]:
    if not batch:
        return []
    try:
        values = encoder.encode_prepared([one.inputs for one in batch], [_samples(encoder, one) for one in batch])
    except InputError as error:
        if len(batch) == 1:
            return [Failure(batch[0].item, str(error))]
        # One of them cannot be encoded; the others can.
        return [result for one in batch for result in _encode_short(encoder, [one])]
    return [_checked(_piece(encoder, one, states, 0)) for one, states in zip(batch, values, strict=True)]


def _encode_long(encoder: "BaseEncoder", one: _Ready, chunk_batch: int) -> Iterator[list[Piece | Failure]]:
    for at in range(0, len(one.chunks), chunk_batch):
        chunks = one.chunks[at : at + chunk_batch]
        inputs = [encoder.backbone.prepare(one.inputs[chunk.start : chunk.stop]) for chunk in chunks]
        try:
            values = encoder.encode_prepared(inputs, [chunk.stop - chunk.start for chunk in chunks])
        except InputError as error:
            yield [Failure(one.item, str(error))]
            return
        kept = [
            states[:, chunk.skip : chunk.skip + chunk.last_frame - chunk.first_frame]
            for chunk, states in zip(chunks, values, strict=True)
        ]
        result = _checked(_piece(encoder, one, np.concatenate(kept, axis=1), chunks[0].first_frame))
        yield [result]
        if isinstance(result, Failure):
            return


def _checked(piece: Piece) -> Piece | Failure:
    if np.isfinite(piece.values).all():
        return piece
    return Failure(piece.item, "the encoder gave NaN or infinite values; try --dtype float32")


def _samples(encoder: "BaseEncoder", one: _Ready) -> int:
    return max(one.num_samples, encoder.grid.min_samples)


def _piece(encoder: "BaseEncoder", one: _Ready, values: np.ndarray, first_frame: int) -> Piece:
    seconds = encoder.grid.seconds(one.num_samples)
    whole = one.chunks[-1].last_frame
    return Piece(one.item, values, first_frame, whole, seconds, one.source_rate, one.flags, one.tokens)
