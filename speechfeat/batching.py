"""Which utterances run together, and how they are padded."""

from collections.abc import Sequence

import numpy as np
import torch

from speechfeat.errors import ParameterError
from speechfeat.types import Batch


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


def plan_groups(sizes: Sequence[int], costs: Sequence[float], budget: float, least: float) -> list[list[int]]:
    """Neighbours of about one length, in their order, that a CPU runs padded together.

    Args:
        sizes: of each input.
        costs: of each, in seconds.
        budget: seconds that one padded group may cost; a single input above it is a group of its own.
        least: share of the longest of a group that the others have, 1 for no padding at all.

    Example:
        >>> plan_groups([100, 95, 95, 20], [1.0, 1.0, 1.0, 1.0], budget=4.0, least=0.9)
        [[0, 1, 2], [3]]
    """
    groups: list[list[int]] = []
    shortest, longest, most = 0, 0, 0.0
    for item, (size, cost) in enumerate(zip(sizes, costs, strict=True)):
        joined = min(shortest, size), max(longest, size), max(most, cost)
        fits = groups and joined[2] * (len(groups[-1]) + 1) <= budget
        if fits and joined[0] >= least * joined[1]:
            groups[-1].append(item)
            shortest, longest, most = joined
        else:
            groups.append([item])
            shortest, longest, most = size, size, cost
    return groups


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
