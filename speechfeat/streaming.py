"""Reading ahead in worker threads while the encoder runs: batches of utterances in, pieces of features out."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speechfeat.chunking import Chunk, Chunking
from speechfeat.errors import SpeechfeatError
from speechfeat.types import ALL_FRAMES, Audio, Landed, Tokens, Wanted

if TYPE_CHECKING:
    from speechfeat.encoders.base import BaseEncoder
    from speechfeat.encoders.flights import Flight

# Seconds of audio that may lie decoded ahead of the encoder: 40 MB at 16 kHz.
AHEAD_SECONDS = 600.0
# At least so many batches: a GPU is through one in less time than its recordings take to read.
AHEAD_BATCHES = 4


class Piece(NamedTuple):
    """Consecutive frames of one utterance; its pieces come in order, all before the next utterance's.

    Attributes:
        item: which utterance.
        values: `[L, t, D]` float32 or float16; None where only the embedding was wanted.
        first_frame: where the piece begins.
        last_frame: one past where it ends.
        num_frames: T, of the whole utterance.
        audio_seconds: length of the whole utterance; of a text, its number of tokens.
        source_rate: of the recording, in Hz; 0 for a text.
        flags: what a user should know of the utterance.
        tokens: of the whole text, or None for a recording.
        embedding: of the whole utterance, `[L, D']`, where the device pooled it.
    """

    item: int
    values: np.ndarray | None
    first_frame: int
    last_frame: int
    num_frames: int
    audio_seconds: float
    source_rate: int
    flags: tuple[str, ...]
    tokens: Tokens | None = None
    embedding: np.ndarray | None = None

    @property
    def is_last(self) -> bool:
        """Whether the utterance ends with this piece."""
        return self.last_frame == self.num_frames

    @property
    def frames(self) -> np.ndarray:
        """`values`, where frames were wanted."""
        assert self.values is not None
        return self.values


class Failure(NamedTuple):
    """An utterance that could not be read or encoded, and why, in one sentence."""

    item: int
    reason: str


@dataclass
class Times:
    """Where the time of a run went, in seconds.

    Attributes:
        encoding: that the device worked.
        reading: that it had nothing to do before more was read.
    """

    encoding: float = 0.0
    reading: float = 0.0


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
    wanted: Wanted = ALL_FRAMES,
    times: Times | None = None,
) -> Generator[list[Piece | Failure]]:
    """Encode batches of utterances, in order; a GPU has the next one before the last has landed.

    Args:
        encoder: what to run.
        batches: groups of items that run together.
        read: gives the audio of an item at the encoder's rate, or the tokens of a text; called in worker threads.
        seconds: expected length of each item, to bound what is read ahead.
        chunking: how long utterances are cut.
        num_workers: threads that read and prepare.
        batch_seconds: of padded audio that chunks of a long utterance run on together.
        ahead_seconds: that may lie read ahead of the encoder.
        wanted: of the features.
        times: where the time goes is added to.

    Yields:
        What one run of the encoder gave: pieces and failures. A long utterance takes several runs.
    """
    pending: deque[tuple[float, list[Future[_Ready | Failure]]]] = deque()
    upcoming = deque(batches)
    chunk_batch = max(1, int(batch_seconds / encoder.cost(chunking.length)))
    launcher = _Launcher(encoder, chunk_batch, wanted, alone=len(batches) == 1)
    times = times or Times()
    ahead_seconds = max(ahead_seconds, AHEAD_BATCHES * batch_seconds)

    def prepare(item: int) -> _Ready | Failure:
        try:
            return make_ready(encoder, item, read(item), chunking)
        except SpeechfeatError as error:
            return Failure(item, str(error))
        except Exception as error:  # whatever a codec raises, the other files must go on
            return Failure(item, f"{type(error).__name__}: {' '.join(str(error).split())}")

    def groups() -> Iterator[list[_Ready | Failure]]:
        while upcoming or pending:
            ahead = sum(cost for cost, _ in pending)
            while upcoming and (not pending or ahead + _cost(upcoming[0], seconds) <= ahead_seconds):
                cost = _cost(upcoming[0], seconds)
                pending.append((cost, [pool.submit(prepare, item) for item in upcoming.popleft()]))
                ahead += cost
            began = time.perf_counter()
            group = [future.result() for future in pending.popleft()[1]]
            times.reading += time.perf_counter() - began
            yield group

    with ThreadPoolExecutor(max_workers=max(1, num_workers), thread_name_prefix="read") as pool:
        in_flight: deque[_Launched] = deque()
        try:
            most_in_flight = 1 if encoder.is_asynchronous else 0
            for launched in launcher.launch(groups()):
                in_flight.append(launched)
                if len(in_flight) > most_in_flight:
                    yield in_flight[0].land(times)
                    in_flight.popleft()
            for launched in in_flight:
                yield launched.land(times)
        finally:
            for launched in in_flight:
                launched.cancel()
            for _, futures in pending:
                for future in futures:
                    future.cancel()


def _cost(batch: Sequence[int], seconds: Sequence[float]) -> float:
    return sum(seconds[item] for item in batch)


def make_ready(encoder: "BaseEncoder", item: int, source: Audio | Tokens, chunking: Chunking) -> _Ready:
    """What a worker thread does with an utterance that it has read."""
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


class _Launched(NamedTuple):
    """A run of the encoder, and what makes results of its features."""

    flights: list["Flight"]
    finish: Callable[[list[Landed]], list[Piece | Failure]]

    def land(self, times: Times) -> list[Piece | Failure]:
        """Wait for the run; its results."""
        landed = [one for flight in self.flights for one in flight.land()]
        times.encoding += sum(flight.seconds for flight in self.flights)
        return self.finish(landed)

    def cancel(self) -> None:
        """Begin nothing more of it."""
        for flight in self.flights:
            flight.cancel()


class _Launcher:
    """Runs the encoder on what was read.

    Args:
        encoder: to run.
        chunk_batch: chunks of a long utterance that run together.
        wanted: of the features.
        alone: whether there is one group only.
    """

    def __init__(self, encoder: "BaseEncoder", chunk_batch: int, wanted: Wanted, *, alone: bool = False) -> None:
        self.encoder, self.chunk_batch, self.alone = encoder, chunk_batch, alone
        self.wanted = wanted
        # What is pooled of a long utterance is pooled piece by piece.
        self.wanted_of_chunks = wanted._replace(pool=None, frames=True)

    def launch(self, groups: Iterable[Sequence[_Ready | Failure]]) -> Iterator[_Launched]:
        """Launch groups of utterances, the short ones of a group together."""
        for group in groups:
            failures = [one for one in group if isinstance(one, Failure)]
            if failures:
                yield _failed(failures)
            ready = [one for one in group if isinstance(one, _Ready)]
            if short := [one for one in ready if len(one.chunks) == 1]:
                yield self._launch_short(short)
            for one in ready:
                if len(one.chunks) > 1:
                    yield from self._launch_long(one)

    def _launch_short(self, batch: Sequence[_Ready]) -> _Launched:
        encoder = self.encoder
        counts = [_samples(encoder, one) for one in batch]
        flights = encoder.launch([one.inputs for one in batch], counts, self.wanted, alone=self.alone)
        return _Launched(flights, lambda landed: [_piece(encoder, *pair) for pair in zip(batch, landed, strict=True)])

    def _launch_long(self, one: _Ready) -> Iterator[_Launched]:
        encoder, has_failed = self.encoder, False

        def finish(chunks: list[Chunk], landed: list[Landed]) -> list[Piece | Failure]:
            """What a run gave, unless an earlier one failed, after which this one may have been launched already."""
            nonlocal has_failed
            if has_failed:
                return []
            result = _joined(encoder, one, chunks, landed)
            has_failed = isinstance(result, Failure)
            return [result]

        for at in range(0, len(one.chunks), self.chunk_batch):
            if has_failed:
                return
            chunks = one.chunks[at : at + self.chunk_batch]
            inputs = [encoder.backbone.prepare(one.inputs[chunk.start : chunk.stop]) for chunk in chunks]
            flights = encoder.launch(inputs, [chunk.stop - chunk.start for chunk in chunks], self.wanted_of_chunks)
            yield _Launched(flights, partial(finish, chunks))


def _failed(failures: list[Failure]) -> _Launched:
    return _Launched([], lambda _: [*failures])


def _joined(encoder: "BaseEncoder", one: _Ready, chunks: Sequence[Chunk], landed: Sequence[Landed]) -> Piece | Failure:
    """The frames that consecutive chunks give, without what they give up to their neighbours."""
    kept = [
        states.values[:, chunk.skip : chunk.skip + chunk.last_frame - chunk.first_frame]
        for chunk, states in zip(chunks, landed, strict=True)
        if states.values is not None
    ]
    whole = landed[0]._replace(
        values=np.concatenate(kept, axis=1) if len(kept) > 1 else next(iter(kept), None),
        is_finite=all(states.is_finite for states in landed),
        error=next((states.error for states in landed if states.error), None),
    )
    return _piece(encoder, one, whole, chunks[0].first_frame, chunks[-1].last_frame)


def _samples(encoder: "BaseEncoder", one: _Ready) -> int:
    return max(one.num_samples, encoder.grid.min_samples)


def _piece(
    encoder: "BaseEncoder", one: _Ready, landed: Landed, first_frame: int = 0, last_frame: int | None = None
) -> Piece | Failure:
    """Frames of an utterance from one to another, by default all of them."""
    if landed.error:
        return Failure(one.item, str(landed.error))
    if not (landed.is_finite or landed.values is None or np.isfinite(landed.values).all()):
        return Failure(one.item, "the encoder gave NaN or infinite values; try --dtype float32")
    whole = one.chunks[-1].last_frame
    return Piece(
        one.item,
        landed.values,
        first_frame,
        whole if last_frame is None else last_frame,
        whole,
        encoder.grid.seconds(one.num_samples),
        one.source_rate,
        one.flags,
        one.tokens,
        landed.embedding,
    )
