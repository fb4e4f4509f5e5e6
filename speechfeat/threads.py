"""How many threads an encoder's products run on, and how many read, by what both take on this machine."""

import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from speechfeat.media import Medium
from speechfeat.planning import Work
from speechfeat.streaming import make_ready

if TYPE_CHECKING:
    from speechfeat.encoders.base import BaseEncoder

# A run is measured for if it is so many times as long as what is measured on: then choosing takes 3 % of it.
WORTH = 200
# What is not faster by so much is not taken: measuring is noisy.
GAIN = 1.05
# Readers keep up although the lengths of recordings and the machine vary.
READING_MARGIN = 1.5
NUM_READ = 3
MOST_READERS = 32


def is_worth_measuring(encoder: "BaseEncoder", seconds: float) -> bool:
    """Whether a run of the encoder on so many seconds of input is long beside trying how to do it."""
    return seconds > WORTH * encoder.probe_cost


def fastest_threads(encoder: "BaseEncoder") -> float:
    """Give an encoder on a CPU the threads for an utterance that it is fastest with: all, half of them, a quarter ...

    Those that it has are given up only for such as are faster twice: the rate of a machine that others use may double
    from one second to the next.

    Returns:
        Seconds of input that the encoder runs on in a second.
    """
    best = encoder.num_threads
    assert best is not None
    speed = _speed_with(encoder, best)
    threads = torch.get_num_threads()
    while threads:
        if threads != best:
            if _speed_with(encoder, threads) <= GAIN * speed:  # fewer still could take longer than the run itself
                break
            speed = _speed_with(encoder, best)
            found = _speed_with(encoder, threads)
            if found <= GAIN * speed:
                break
            best, speed = threads, found
        threads //= 2
    encoder.use_threads(best)
    return speed


def _speed_with(encoder: "BaseEncoder", threads: int) -> float:
    encoder.use_threads(threads)
    return encoder.measure_speed()


def enough_readers(encoder: "BaseEncoder", medium: Medium, works: Sequence[Work], speed: float) -> int:
    """As many readers as keep up with the encoder, up to the number of cores, by what a few utterances take to read.

    Args:
        encoder: that what is read is prepared for.
        medium: that reads.
        works: the utterances.
        speed: seconds of input that the encoder runs on in a second.
    """
    # Of those that are read quickly: a recording of an hour is not read for this.
    works = [work for work in works if work.seconds <= medium.chunking.above]
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
