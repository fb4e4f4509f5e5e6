"""How well scores tell targets from non-targets, and within which interval a statistic is known."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from speechfeat.errors import ParameterError


class DetCurve(NamedTuple):
    """Both error rates at every threshold (detection error trade-off), from the strictest threshold on.

    A trial is accepted if its score is at least the threshold, so trials of one score go together.

    Attributes:
        thresholds: `[m]`, falling: infinity, which accepts nothing, then every distinct score.
        false_alarm: `[m]`, share of the non-targets that are accepted, rising from 0 to 1.
        miss: `[m]`, share of the targets that are not, falling from 1 to 0.
    """

    thresholds: np.ndarray
    false_alarm: np.ndarray
    miss: np.ndarray

    def equal_error_rate(self) -> float:
        """The rate where both cross; between the two thresholds around that, both are taken as straight lines."""
        gap = self.false_alarm - self.miss  # rises from -1 to 1
        after = int(np.argmax(gap >= 0))
        before, reached = self.false_alarm[after - 1 : after + 1]
        return float(before - gap[after - 1] / (gap[after] - gap[after - 1]) * (reached - before))

    def min_dcf(self, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
        """The least detection cost of any threshold, over that of the better of accepting all and accepting none.

        `c_miss * p_target * miss + c_fa * (1 - p_target) * false_alarm`, as in the NIST speaker recognition
        evaluations since 2008 and in VoxCeleb: from 0 to 1, at thresholds that exist (no lines in between).

        Args:
            p_target: share of targets that is expected in use, whatever it is among the trials; 0.01 or 0.05 is usual.
            c_miss: cost of a target that is not accepted.
            c_fa: cost of a non-target that is.

        Raises:
            ParameterError: if `p_target` is not between 0 and 1, or a cost is not above 0.
        """
        if not (0 < p_target < 1 and 0 < c_miss < np.inf and 0 < c_fa < np.inf):
            raise ParameterError(
                f"p_target={p_target}, c_miss={c_miss} and c_fa={c_fa} must be between 0 and 1, above 0 and above 0"
            )
        weight_of_miss, weight_of_fa = c_miss * p_target, c_fa * (1 - p_target)
        cost = weight_of_miss * self.miss + weight_of_fa * self.false_alarm
        return float(cost.min() / min(weight_of_miss, weight_of_fa))


def det_curve(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> DetCurve:
    """False alarm and miss rate at every threshold: one sort, from which the EER and minDCF of any prior follow.

    Args:
        scores: `[n]`, higher for what is rather a target.
        labels: `[n]`, True or 1 for targets, False or 0 for the rest.
        weights: `[n]`, how often each trial counts; None counts each once.

    Raises:
        ParameterError: if lengths differ, a value is no number, or there is no target or no non-target.

    Example:
        >>> det_curve([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0]).miss.tolist()
        [1.0, 0.5, 0.5, 0.0, 0.0]
    """
    values, is_target, counts = _checked_trials(scores, labels, weights)
    thresholds, accepted, found = count_above(values, is_target, counts)
    return DetCurve(
        np.append(np.inf, thresholds),
        np.append(0.0, accepted / accepted[-1]),
        np.append(1.0, 1 - found / found[-1]),
    )


def equal_error_rate(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The rate at which as large a share of the non-targets is accepted as of the targets is rejected.

    Trials of one score are accepted or rejected together. Between the two thresholds around the crossing both rates
    are taken as straight lines: the crossing of scikit-learn's `roc_curve`, drawn with lines, and the other diagonal.
    Takes and raises what `det_curve` does.

    Example:
        >>> equal_error_rate([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0])
        0.5
    """
    return det_curve(scores, labels, weights).equal_error_rate()


def min_dcf(
    scores: ArrayLike,
    labels: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
    """The least normalised detection cost of any threshold; see `DetCurve.min_dcf`, and `det_curve` for the trials.

    Example:
        >>> min_dcf([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0])
        0.5
    """
    return det_curve(scores, labels, weights).min_dcf(p_target, c_miss, c_fa)


def count_above(
    values: np.ndarray, is_target: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much is accepted at every threshold.

    Args:
        values: `[n]` scores, at least one.
        is_target: `[n]` booleans.
        counts: `[n]`, how often each counts.

    Returns:
        The distinct scores, falling, and the non-targets and the targets with at least that score, each `[m]`.
    """
    # Stable: scores that come sorted, as in a bootstrap that changes weights alone, are passed through once.
    order = np.argsort(-values, kind="stable")
    values, is_target, counts = values[order], is_target[order], counts[order]
    # A threshold for every distinct score: below the last trial that has it. Compared, for inf - inf is not 0.
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    accepted = np.cumsum(np.where(is_target, 0.0, counts))[ends]
    found = np.cumsum(np.where(is_target, counts, 0.0))[ends]
    return values[ends], accepted, found


def as_numbers(name: str, values: ArrayLike) -> np.ndarray:
    """An array of floats, or of booleans where it is one, without NaN; `name` is for the error."""
    array = np.asarray(values)
    if array.dtype.kind not in "bf":  # whole numbers too: those without a sign would be negated wrongly
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{name} must be numbers: {error}") from error
    if np.isnan(array).any():
        raise ParameterError(f"{int(np.isnan(array).sum())} of {array.size} {name} are NaN; each must be a number")
    return array


def _checked_trials(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, is_target = as_numbers("scores", scores), as_numbers("labels", labels).astype(bool)
    counts = np.ones(values.shape) if weights is None else as_numbers("weights", weights)
    if values.ndim != 1 or not values.shape == is_target.shape == counts.shape:
        raise ParameterError(
            f"scores, labels and weights have the shapes {values.shape}, {is_target.shape} and {counts.shape}; "
            "they must be [n], with one of each for every trial"
        )
    if counts.min(initial=0) < 0:
        raise ParameterError(f"the weights go down to {counts.min()}; a trial counts 0 times or more")
    for name, chosen in (("target", is_target), ("non-target", ~is_target)):
        if not counts[chosen].sum() > 0:
            raise ParameterError(f"none of {len(values)} trials is a {name}; error rates need both kinds")
    return values.astype(np.float64) if values.dtype.kind == "b" else values, is_target, counts


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
        statistic: of the arrays; a draw for which it is NaN, or for which it raises a ParameterError (as for trials
            without a target), is left out.
        values: arrays that are drawn together along their first axis.
        groups: `[n]`, such as the speaker of each item: whole groups are drawn rather than items, as is right where
            the items of a group are alike.
        num: draws.
        level: share of the draws within the interval.
        seed: of the draws.

    Returns:
        The lower and the upper end.

    Raises:
        ParameterError: if lengths differ, there is nothing to draw, `num` or `level` is out of range, or the
            statistic has no value for any draw.

    Example:
        low, high = bootstrap_interval(np.mean, is_correct, groups=speakers)
        low, high = bootstrap_interval(partial(min_dcf, p_target=0.05), scores, labels, groups=speakers)
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
        draws[index], reason = _value(statistic, [one[rows] for one in arrays])
    if np.isnan(draws).all():
        raise ParameterError(f"the statistic is NaN for all of {num} draws ({reason}); give more items or groups")
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _value(statistic: Callable[..., float], drawn: list[np.ndarray]) -> tuple[float, str]:
    """The statistic of one draw, or NaN and the reason."""
    try:
        return statistic(*drawn), "no number in them"
    except ParameterError as error:
        return float("nan"), str(error)


def _units(count: int, groups: ArrayLike | None) -> range | list[np.ndarray]:
    """What is drawn: items, or the rows of each group."""
    if groups is None:
        return range(count)
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
