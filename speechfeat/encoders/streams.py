"""Utterances side by side on a CPU, each on some of torch's threads.

The products of a small model are over before several threads have met: on two cores `conformer-s` gets through more
with a thread for each of two utterances than with both threads for one (`python -m benchmarks.streams`).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

T = TypeVar("T")


class Streams:
    """Runs tasks side by side.

    Args:
        threads: of torch for the products of a task; None for those that it has.
        count: tasks that run at a time.
    """

    def __init__(self, threads: int | None = None, count: int = 1) -> None:
        self.threads, self.count = threads, count
        self._pool: ThreadPoolExecutor | None = None

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """What the tasks give, in their order; the first error of one, when all that run have ended."""
        if self.count == 1:
            with torch_threads(self.threads):
                return [task() for task in tasks]
        before = torch.get_num_threads()
        if self._pool is None:
            begin = partial(torch.set_num_threads, self.threads or 1)
            self._pool = ThreadPoolExecutor(self.count, "encode", initializer=begin)
        futures = [self._pool.submit(task) for task in tasks]
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
