"""Utterances side by side on a CPU, each on some of torch's threads.

Threads that share an utterance wait for each other behind every product, and what is between products keeps both from
multiplying: on two cores a thread for each of two utterances gets through more than both threads for one, of small
models and of large ones (`python -m benchmarks.streams`).
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from speechfeat.encoders.flights import Flight
from speechfeat.types import Landed

Task = Callable[[], Sequence[Flight]]
# Utterances that a large model runs side by side unless told otherwise; the states of each take some 200 MB.
MOST_LARGE = 8


def default_threads(*, is_large: bool) -> int:
    """Threads of torch for an utterance of an encoder that can run several side by side."""
    return math.ceil(torch.get_num_threads() / MOST_LARGE) if is_large else 1


class Streams:
    """Runs tasks side by side; where fewer are left than can run so, with more threads for each.

    Args:
        threads: of torch for the products of a task; None for those that it has.
        count: tasks that run at a time.
    """

    def __init__(self, threads: int | None = None, count: int = 1) -> None:
        self.threads, self.count = threads, count
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._left = 0

    def begin(self, tasks: Sequence[Task], *, alone: bool = False) -> list[Flight]:
        """Begin tasks behind those that were begun before; their flights.

        Args:
            tasks: what to run.
            alone: whether nothing follows before these have ended. Then a single one runs in the thread that asks, as
                torch's threads of a further one would sleep whenever they wait for each other.
        """
        self._add(len(tasks))
        if self.count == 1 or (alone and self._left == 1):
            with torch_threads(self.threads and self.threads * self.count):
                return [Flight(*self._run(task)) for task in tasks]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, "encode")
        return [_Begun(self._pool.submit(self._run, task), self._add) for task in tasks]

    def _run(self, task: Task) -> tuple[list[Landed], float]:
        """What a task gives, and the seconds that it took, as far as no other could run beside it."""
        share = self.count // min(self.count, self._left)
        threads = self.threads and self.threads * share
        if threads and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        began = time.perf_counter()
        try:
            landed = [one for flight in task() for one in flight.land()]
            return landed, (time.perf_counter() - began) * share / self.count
        finally:
            self._add(-1)

    def _add(self, count: int) -> None:
        """So many tasks more are left."""
        with self._lock:
            self._left += count


class _Begun(Flight):
    """A task that runs, or will."""

    def __init__(self, future: "Future[tuple[list[Landed], float]]", add: Callable[[int], None]) -> None:
        super().__init__()
        self._future, self._add, self._num_threads = future, add, torch.get_num_threads()

    def land(self) -> list[Landed]:
        try:
            landed, self.seconds = self._future.result()
        finally:
            # What a worker set for itself is also what torch would give to threads that begin later.
            torch.set_num_threads(self._num_threads)
        return landed

    def cancel(self) -> None:
        if self._future.cancel():
            self._add(-1)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many threads for torch's products; None changes nothing."""
    before = torch.get_num_threads()
    if count in (None, before):
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
