"""Utterances side by side on a CPU, each on some of torch's threads.

Threads that share an utterance wait for each other behind every product, and what is between products keeps both from
multiplying: on two cores a thread for each of two utterances gets through more than both threads for one, of small
models and of large ones (`python -m benchmarks.streams`).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
# Utterances that a large model runs side by side unless told otherwise; the states of each take some 200 MB.
MOST_LARGE = 8


def default_threads(*, is_large: bool) -> int:
    """Threads of torch for an utterance of an encoder that can run several side by side."""
    return math.ceil(torch.get_num_threads() / MOST_LARGE) if is_large else 1


class Streams:
    """Runs tasks side by side; where they are fewer than can run so, with more threads for each.

    Args:
        threads: of torch for the products of a task; None for those that it has.
        count: tasks that run at a time.
    """

    def __init__(self, threads: int | None = None, count: int = 1) -> None:
        self.threads, self.count = threads, count
        self._pool: ThreadPoolExecutor | None = None

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """What the tasks give, in their order; the first error of one, when all that run have ended."""
        share = self.count // max(1, min(self.count, len(tasks)))
        threads = self.threads and self.threads * share
        if self.count == 1 or len(tasks) <= 1:
            with torch_threads(threads):
                return [task() for task in tasks]
        before = torch.get_num_threads()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, "encode")
        futures = [self._pool.submit(_run_on, threads or 1, task) for task in tasks]
        try:
            errors = [future.exception() for future in futures]
        finally:
            for future in futures:  # of an interrupted run nothing more is begun
                future.cancel()
            # What the workers set for themselves is also what torch would give to threads that begin later.
            torch.set_num_threads(before)
        if error := next(filter(None, errors), None):
            raise error
        return [future.result() for future in futures]


def _run_on(threads: int, task: Callable[[], T]) -> T:
    """What a task gives, with so many threads of torch for it and for what the thread that runs it does next."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return task()


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
