"""Batches made ahead of the training that takes them, in processes of their own."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

MOST_WORKERS = 12

Key = TypeVar("Key")
Made = TypeVar("Made")


class _Made(Dataset, Generic[Key, Made]):
    """Batches by their key, as torch's loader wants them."""

    def __init__(self, make: Callable[[Key], Made]) -> None:
        self._make = make

    def __getitem__(self, key: Key) -> Made:
        return self._make(key)


def make_ahead(make: Callable[[Key], Made], keys: Sequence[Key], num_workers: int) -> Iterator[Made]:
    """What `make` gives for each key, in their order, made ahead by worker processes (0: in this one)."""
    loader = DataLoader(
        _Made(make),
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        collate_fn=_as_made,
        worker_init_fn=_start_worker if num_workers else None,
        prefetch_factor=4 if num_workers else None,
        # Forked workers share the memory maps and need nothing pickled.
        multiprocessing_context="fork" if num_workers else None,
    )
    return iter(loader)


def workers_for(device: torch.device, least: int) -> int:
    """How many workers suit a training on a device.

    A GPU takes batches faster than one core makes them; on a CPU the training needs the cores itself, and has `least`.
    """
    return least if device.type == "cpu" else max(1, min(MOST_WORKERS, (os.cpu_count() or 2) - 1))


def _as_made(made: Made) -> Made:
    return made


def _start_worker(number: int) -> None:
    del number
    # Its threads would wait for the one that a worker pushes aside: on two cores training takes 1.3 times as long.
    os.nice(19)
    # Ctrl-C, and what a cluster sends to end a job, are for the training, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
