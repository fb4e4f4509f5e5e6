"""One run over a plan: readers ahead of the encoder, the encoder in this thread, pooling and the store behind it."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechfeat.config import RunConfig
from speechfeat.encoders.base import BaseEncoder
from speechfeat.errors import InputError, SpeechfeatError
from speechfeat.media import Medium
from speechfeat.memory import give_back_freed, peak_memory
from speechfeat.planning import Plan, Survey, Work
from speechfeat.pooling import Pooler
from speechfeat.store_writer import StoreWriter
from speechfeat.streaming import Failure, Piece, Times, stream
from speechfeat.types import Utterance, Wanted

# Runs of the encoder that may wait for the disk.
QUEUE_LENGTH = 8
# Between two times that freed memory is given back: it takes up to 20 ms, and a fast device fills shards in less.
GIVE_BACK_SECONDS = 1.0


@dataclass
class Summary:
    """What a run did.

    Attributes:
        done: utterances done now.
        already: utterances that the store held before.
        failed: inputs that failed, now or before and not mended since.
        hours: of audio done now; of texts, their tokens over 3600.
        seconds: that it took, from the first read to the last commit.
        encoding: seconds of it that the device worked.
        reading: seconds of it in which the next batch was not read yet.
        writing: seconds of it in which the store could not take more.
        memory: the most that this process ever held, in bytes; None where the system does not tell.
        interrupted: whether it was stopped before its end.
    """

    done: int = 0
    already: int = 0
    failed: int = 0
    hours: float = 0.0
    seconds: float = 0.0
    encoding: float = 0.0
    reading: float = 0.0
    writing: float = 0.0
    memory: int | None = None
    interrupted: bool = False

    @property
    def x_real_time(self) -> float:
        """Hours of audio in an hour."""
        return self.hours * 3600 / self.seconds if self.seconds else 0.0


class TooManyErrors(SpeechfeatError):  # noqa: N818 - it is called what it means
    """More inputs failed than `max_errors` bears; what was done is in the store."""


Observer = Callable[[float, list[str]], None]


class Run:
    """State of one run: the encoder in this thread, readers ahead of it, the store behind it."""

    def __init__(
        self,
        encoder: BaseEncoder,
        config: RunConfig,
        plan: Plan,
        found: Survey,
        writer: StoreWriter,
        *,
        medium: Medium,
        num_readers: int,
        observer: Observer,
        stop: threading.Event,
    ) -> None:
        self.encoder = encoder
        self.config = config
        self.medium = medium
        self.plan = plan
        self.num_readers = num_readers
        self.stop = stop
        self.works = found.works
        # What was done before stays done, though its recording is gone by now.
        self.failures = [failure for failure in found.failures if failure[0].id not in writer.done]
        self.writer = writer
        self.observer = observer
        self.summary = Summary(
            already=sum(work.utterance.id in writer.done for work in found.works)
            + len(found.failures)
            - len(self.failures)
        )
        self.num_failed = 0
        self.times = Times()
        self.recorder = Recorder(encoder, config, found.works, writer, medium)

    def run(self) -> Summary:
        """Do everything, or stop where the extractor's `stop` is set; what was done is committed."""
        began = time.perf_counter()
        try:
            self._fail(self.failures)
            self._encode()
        finally:
            self.recorder.close()
            summary = self.summary
            summary.seconds = time.perf_counter() - began
            summary.encoding, summary.reading = self.times.encoding, self.times.reading
            summary.writing, summary.memory = self.recorder.waited, peak_memory()
        return self.summary

    def _fail(self, failures: Sequence[tuple[Utterance, str]]) -> None:
        for utterance, reason in failures:
            self.recorder.put(("fail", utterance, reason))
        self._count(0.0, [f"{utterance.id}: {reason}" for utterance, reason in failures])

    def _count(self, seconds: float, reasons: list[str]) -> None:
        self.num_failed += len(reasons)
        self.summary.hours += seconds / 3600
        self.observer(seconds, reasons)
        limit = self.config.max_errors
        if limit is not None and self.num_failed > limit:
            raise TooManyErrors(
                f"{self.num_failed} inputs failed, more than --max-errors {limit}, the last: {reasons[-1]}; what was "
                "done is in the store"
            )

    def _wanted(self) -> Wanted:
        """What a device may prepare: frames in no more precision than they were computed and are stored in."""
        is_half = self.encoder.dtype != "float32" and self.config.store_dtype == "float16"
        pools = self.medium.pools_all_frames and self.config.pooling != "none"
        return Wanted("float16" if is_half else "float32", self.config.pooling if pools else None, self.config.frames)

    def _encode(self) -> None:
        done = self.writer.done
        todo = [
            [[item for item in batch if self.works[item].utterance.id not in done] for batch in batches]
            for batches in self.plan.shards
        ]
        left = [sum(map(len, batches)) for batches in todo]
        shard_of = {item: number for number, batches in enumerate(todo) for batch in batches for item in batch}
        results = stream(
            self.encoder,
            [batch for batches in todo for batch in batches if batch],
            lambda item: self.medium.read(self.works[item]),
            seconds=[work.seconds for work in self.works],
            chunking=self.medium.chunking,
            num_workers=self.num_readers,
            batch_seconds=self.plan.batch_seconds,
            ahead_seconds=self.medium.ahead_seconds,
            wanted=self._wanted(),
            times=self.times,
        )
        with closing(results):
            for group in results:
                for item in self._take(group):
                    left[shard_of[item]] -= 1
                    if not left[shard_of[item]]:
                        self.recorder.put(("commit",))
                if self.stop.is_set():
                    self.summary.interrupted = True
                    return

    def _take(self, group: Sequence[Piece | Failure]) -> list[int]:
        """Hand results on; the items that ended with them."""
        ended: list[int] = []
        seconds = 0.0
        reasons: list[str] = []
        for result in group:
            self.recorder.put(result)
            if isinstance(result, Failure):
                reasons.append(f"{self.works[result.item].utterance.id}: {result.reason}")
                ended.append(result.item)
                continue
            seconds += result.audio_seconds * (result.last_frame - result.first_frame) / result.num_frames
            if result.is_last:
                ended.append(result.item)
                self.summary.done += 1
        self._count(seconds, reasons)
        return ended


class Recorder:
    """Pools and stores in a thread of its own, so that the encoder does not wait for the disk."""

    def __init__(
        self, encoder: BaseEncoder, config: RunConfig, works: Sequence[Work], writer: StoreWriter, medium: Medium
    ) -> None:
        self.encoder = encoder
        self.config = config
        self.medium = medium
        self.works = works
        self.writer = writer
        self.waited = 0.0
        self._pooler: Pooler | None = None
        self._queue: queue.Queue[Any] = queue.Queue(QUEUE_LENGTH)
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._gave_back = time.perf_counter()
        threading.Thread(target=self._work, name="write", daemon=True).start()

    def put(self, job: Any) -> None:
        """Queue a piece, a failure or a commit.

        Raises:
            StoreError: if an earlier one could not be written.
        """
        if self._error:
            raise self._error
        began = time.perf_counter()
        self._queue.put(job)
        self.waited += time.perf_counter() - began

    def close(self) -> None:
        """Wait for everything queued; Ctrl-C drops what is queued, but the job in hand is always finished.

        The store is closed after this, which must never happen beside a thread that still writes to it.

        Raises:
            StoreError: if something could not be written.
        """
        # An event, because an interrupted `Thread.join` of Python 3.11 takes the thread for ended.
        while not self._ended.is_set():
            try:
                self._queue.put(None)
                self._ended.wait()
            except KeyboardInterrupt as error:
                self._error = self._error or error
        if self._error:
            raise self._error

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            # After an error the queue is still emptied, or the encoder would wait for room in it for ever.
            if self._error:
                continue
            try:
                self._do(job)
            except BaseException as error:  # it is raised again in the encoder's thread
                self._error = error
        self._ended.set()

    def _do(self, job: Any) -> None:
        if isinstance(job, Piece):
            try:
                self._add(job)
            except InputError as error:  # finite frames whose pooling is not
                self._do(Failure(job.item, str(error)))
        elif isinstance(job, Failure):
            utterance = self.works[job.item].utterance
            self.writer.fail(utterance.id, utterance.path, job.reason)
        elif job[0] == "fail":
            self.writer.fail(job[1].id, job[1].path, job[2])
        else:
            self.writer.commit()
            if time.perf_counter() - self._gave_back >= GIVE_BACK_SECONDS:
                give_back_freed()
                self._gave_back = time.perf_counter()

    def _add(self, piece: Piece) -> None:
        config = self.config
        work = self.works[piece.item]
        key = work.utterance.id
        values = None if piece.values is None else self._unstacked(piece.values)
        if piece.embedding is None:
            self._pool(piece)
        embedding = self._embedding(piece) if piece.is_last else None
        if piece.first_frame == 0 and piece.is_last:
            self.writer.add(self.medium.row(work, piece), values if config.frames else None, embedding)
            return
        if config.frames and values is not None:
            if piece.first_frame == 0:
                self.writer.begin(key, (*values.shape[:-2], piece.num_frames, values.shape[-1]))
            self.writer.write(key, values, at=piece.first_frame)
        if piece.is_last:
            row = self.medium.row(work, piece)
            if config.frames:
                self.writer.finish(row, embedding)
            else:
                self.writer.add(row, None, embedding)

    def _pool(self, piece: Piece) -> None:
        if piece.first_frame == 0:
            self._pooler = Pooler(self.config.pooling) if self.config.pool != "none" else None
        if self._pooler:
            self._pooler.add(self._unstacked(self.medium.pooled(piece)))

    def _embedding(self, piece: Piece) -> np.ndarray | None:
        if piece.embedding is not None:
            return self._unstacked(piece.embedding)
        return self._pooler.result() if self._pooler else None

    def _unstacked(self, values: np.ndarray) -> np.ndarray:
        return values if self.encoder.selection.stacked else values[0]
