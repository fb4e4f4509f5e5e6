"""How many threads an encoder's products run on, and how many read, by what both take on this machine."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from speechfeat.media import Medium
from speechfeat.planning import Work
from speechfeat.streaming import make_ready

if TYPE_CHECKING:
    from speechfeat.encoders.base import BaseEncoder

# A run is measured for if it is so many times as long as what is measured on: then choosing takes 3 % of it.
WORTH = 200
# Readers keep up although the lengths of recordings and the machine vary.
READING_MARGIN = 1.5
NUM_READ = 3
MOST_READERS = 32


def is_worth_measuring(encoder: "BaseEncoder", seconds: float) -> bool:
    """Whether a run of the encoder on so many seconds of input is long beside trying how to do it."""
    return seconds > WORTH * encoder.probe_cost


def default_threads(encoder: "BaseEncoder") -> int | None:
    """Those that torch takes for products on a CPU; None for an encoder elsewhere."""
    return torch.get_num_threads() if encoder.device.type == "cpu" else None


def fastest_threads(encoder: "BaseEncoder") -> tuple[int, float]:
    """The number of threads that an encoder on a CPU is fastest with, of torch's, half of them, a quarter and so on.

    Returns:
        The number, and seconds of input that the encoder runs on in a second.
    """
    threads = torch.get_num_threads()
    speed = encoder.measure_speed()
    while threads > 1:
        with torch_threads(threads // 2):
            other = encoder.measure_speed()
        if other <= speed:
            break
        threads, speed = threads // 2, other
    return threads, speed


def enough_readers(encoder: "BaseEncoder", medium: Medium, works: Sequence[Work], speed: float) -> int:
    """As many readers as keep up with the encoder, up to the number of cores, by what a few utterances take to read.

    Args:
        encoder: that what is read is prepared for.
        medium: that reads.
        works: the utterances.
        speed: seconds of input that the encoder runs on in a second.
    """
    seconds, needed = 0.0, 0.0
    for work in works[:: max(1, len(works) // NUM_READ)][:NUM_READ]:
        began = time.perf_counter()
        try:
            make_ready(encoder, 0, medium.read(work), medium.chunking)
        except Exception:  # whatever a codec raises is told when the utterance's turn comes
            continue
        seconds += time.perf_counter() - began
        needed += encoder.cost(work.seconds)
    most = default_readers()
    return min(most, max(1, math.ceil(READING_MARGIN * speed * seconds / needed))) if needed else most


def default_readers() -> int:
    """Readers of a run that is not measured for: one a core."""
    return min(MOST_READERS, os.cpu_count() or 1)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """So many threads for torch's products; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
