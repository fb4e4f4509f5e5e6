"""How well scores and answers do, and within which interval that is known."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from speechfeat.errors import ParameterError


def equal_error_rate(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The rate at which as large a share of the non-targets is accepted as of the targets is rejected.

    Trials of one score are accepted or rejected together. Between the two thresholds around the crossing both rates
    are taken as straight lines.

    Args:
        scores: `[n]`, higher for what is rather a target.
        labels: `[n]`, truthy for targets.
        weights: `[n]`, how often each trial counts; None counts each once.

    Raises:
        ParameterError: if lengths differ, a score is NaN, or there is no target or no non-target.

    Example:
        >>> equal_error_rate([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0])
        0.5
    """
    values, is_target, counts = _checked_trials(scores, labels, weights)
    # Stable: scores that come sorted, as in a bootstrap that changes weights alone, are passed through once.
    order = np.argsort(-values, kind="stable")
    values, is_target, counts = values[order], is_target[order], counts[order]
    # A threshold for every distinct score: below the last trial that has it.
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    accepted = np.cumsum(np.where(is_target, 0.0, counts))[ends]
    found = np.cumsum(np.where(is_target, counts, 0.0))[ends]
    false_accept = np.append(0.0, accepted / accepted[-1])
    false_reject = np.append(1.0, 1 - found / found[-1])
    gap = false_accept - false_reject  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    share = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(false_accept[after - 1] + share * (false_accept[after] - false_accept[after - 1]))


def _checked_trials(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, is_target = np.asarray(scores), np.asarray(labels).astype(bool)
    counts = np.ones(values.shape) if weights is None else np.asarray(weights, np.float64)
    if values.ndim != 1 or not values.shape == is_target.shape == counts.shape:
        raise ParameterError(
            f"scores, labels and weights have the shapes {values.shape}, {is_target.shape} and {counts.shape}; "
            "they must be [n], with one of each for every trial"
        )
    if np.isnan(values).any():
        raise ParameterError(
            f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN; every trial needs a number"
        )
    for name, chosen in (("target", is_target), ("non-target", ~is_target)):
        if not counts[chosen].sum() > 0:
            raise ParameterError(f"none of {len(values)} trials is a {name}; an equal error rate needs both kinds")
    return values, is_target, counts


def bootstrap_interval(
    statistic: Callable[..., float],
    *values: ArrayLike,
    groups: ArrayLike | None = None,
    num: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of a statistic by the percentile bootstrap: its quantiles over items drawn again with replacement.

    Args:
        statistic: of the arrays; a draw for which it is NaN is left out.
        values: arrays that are drawn together along their first axis.
        groups: `[n]`, such as the speaker of each item: whole groups are drawn rather than items, as is right where
            the items of a group are alike.
        num: draws.
        level: share of the draws within the interval.
        seed: of the draws.

    Returns:
        The lower and the upper end.

    Raises:
        ParameterError: if lengths differ, there is nothing to draw, or `num` or `level` is out of range.

    Example:
        low, high = bootstrap_interval(np.mean, is_correct, groups=speakers)
    """
    if num < 1 or not 0 < level < 1:
        raise ParameterError(f"num={num} and level={level} must be at least 1 and between 0 and 1")
    arrays = [np.asarray(one) for one in values]
    lengths = [len(one) for one in arrays] + ([] if groups is None else [len(np.asarray(groups))])
    if not arrays or len(set(lengths)) > 1 or not lengths[0]:
        raise ParameterError(f"the arrays and groups have {lengths} items; give arrays of one length above 0")
    units = _units(lengths[0], groups)
    rng = np.random.default_rng(seed)
    draws = np.empty(num)
    for index in range(num):
        chosen = rng.integers(len(units), size=len(units))
        rows = chosen if groups is None else np.concatenate([units[unit] for unit in chosen])
        draws[index] = statistic(*(one[rows] for one in arrays))
    if np.isnan(draws).all():
        raise ParameterError(f"the statistic is NaN for all of {num} draws; give more items or groups")
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _units(count: int, groups: ArrayLike | None) -> range | list[np.ndarray]:
    """What is drawn: items, or the rows of each group."""
    if groups is None:
        return range(count)
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
