"""Which utterances run together, and how they are padded."""

from collections.abc import Sequence

import numpy as np
import torch

from speechfeat.errors import ParameterError
from speechfeat.types import Batch

# On a CPU short utterances run together up to so many seconds: more gain nothing and leave the cache. In half precision
# products of so many rows are four times as fast, and what is between them counts for more.
GROUP_SECONDS = 12.0
GROUP_SECONDS_HALF = 48.0
# How long the others of a group are beside its longest, at least.
GROUP_SHARE = 0.8


def plan_batches(costs: Sequence[float], budget: float, max_batch_size: int | None = None) -> list[list[int]]:
    """Group items of similar cost so that no batch, padded to its longest, costs more than the budget.

    Longest first: the batch that needs most memory comes at the start, where a failure costs least, and the batches
    depend on nothing but the costs and their order.

    Args:
        costs: of each item, in seconds.
        budget: seconds that one padded batch may cost; a single item above it is a batch of its own.
        max_batch_size: the most items in a batch.

    Returns:
        Positions in `costs`, each exactly once.

    Example:
        >>> plan_batches([1.0, 9.0, 2.0, 2.0], budget=10.0)
        [[1], [2, 3, 0]]
    """
    if budget <= 0:
        raise ParameterError(f"a batch of {budget} seconds must be above 0")
    order = sorted(range(len(costs)), key=lambda item: (-costs[item], item))
    batches: list[list[int]] = []
    for item in order:
        fits = bool(batches) and costs[batches[-1][0]] * (len(batches[-1]) + 1) <= budget
        if fits and len(batches[-1]) < (max_batch_size or len(costs)):
            batches[-1].append(item)
        else:
            batches.append([item])
    return batches


def group_seconds(*, is_half: bool, is_shared: bool) -> float:
    """Seconds of input that a CPU runs together, at most.

    Args:
        is_half: whether in half precision.
        is_shared: whether a large model runs in several threads. For those beside the first glibc keeps no freed block
            of 64 MB or more, as states of a longer group are, and the system clears every page of a new one.
    """
    return GROUP_SECONDS_HALF if is_half and not is_shared else GROUP_SECONDS


def plan_groups(sizes: Sequence[int], costs: Sequence[float], budget: float, least: float) -> list[list[int]]:
    """Neighbours of about one length, in their order, that a CPU runs padded together, in groups of few sizes.

    Args:
        sizes: of each input.
        costs: of each, in seconds.
        budget: seconds that one padded group may cost; a single input above it is a group of its own.
        least: share of the longest of a group that the others have, 1 for no padding at all.

    Example:
        >>> plan_groups([100, 95, 95, 20], [1.0, 1.0, 1.0, 1.0], budget=4.0, least=0.9)
        [[0, 1, 2], [3]]
        >>> [len(group) for group in plan_groups([100] * 12, [1.0] * 12, budget=11.0, least=1.0)]
        [10, 2]
    """
    groups, first = [], 0
    while first < len(sizes):
        shortest, longest, most, last = sizes[first], sizes[first], costs[first], first + 1
        while last < len(sizes):
            shortest, longest, most = min(shortest, sizes[last]), max(longest, sizes[last]), max(most, costs[last])
            if most * (last + 1 - first) > budget or shortest < least * longest:
                break
            last += 1
        last = first + rounded_down(last - first)
        groups.append([*range(first, last)])
        first = last
    return groups


def rounded_down(count: int) -> int:
    """The nearest below of few numbers, four in an octave.

    Example:
        >>> rounded_down(7), rounded_down(9), rounded_down(47)
        (7, 8, 40)
    """
    step = 2 ** max(0, count.bit_length() - 3)
    return count // step * step


def pad(inputs: Sequence[np.ndarray], num_samples: Sequence[int], *, width: int = 0, pinned: bool = False) -> Batch:
    """Stack inputs `[N]` or `[N, F]` of different lengths, zeros past each; whole numbers stay whole.

    Args:
        inputs: of each utterance.
        num_samples: that each was made from.
        width: of the stack, at least; that of the longest is enough.
        pinned: in memory that a GPU reads by itself.
    """
    sizes = [len(one) for one in inputs]
    dtype = torch.int64 if np.issubdtype(inputs[0].dtype, np.integer) else torch.float32
    padded = torch.zeros((len(inputs), max(*sizes, width), *inputs[0].shape[1:]), dtype=dtype, pin_memory=pinned)
    rows = padded.numpy()
    for row, one in enumerate(inputs):
        rows[row, : len(one)] = one
    return Batch(padded, tuple(sizes), tuple(num_samples))
