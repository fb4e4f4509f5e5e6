"""Keyword spotting in long recordings: missed keywords against false alarms per hour.

found = match_detections(detections, events, durations)
false_rejection_at(found.scores, found.labels, found.hours, false_alarms_per_hour=1)
statistic = partial(false_rejection_at, false_alarms_per_hour=1)
bootstrap_interval(statistic, found.scores, found.labels, found.hours, groups=found.recordings)
"""

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from speechfeat.errors import ParameterError
from speechfeat.metrics import as_numbers, count_above


class Outcomes(NamedTuple):
    """What became of every detection and every event, whatever the threshold will be; all arrays are `[n]`.

    Attributes:
        scores: of the detection; -inf where there is none: an event that was never found, or a whole recording.
        labels: True for an event, found by its detection or not; False for a false alarm and for a whole recording.
        hours: of the recording, in its own row; 0 in the others. Their sum is what was listened to.
        recordings: name of the recording.
    """

    scores: np.ndarray
    labels: np.ndarray
    hours: np.ndarray
    recordings: np.ndarray


class SpottingCurve(NamedTuple):
    """Both kinds of errors at every threshold, from the strictest on; a detection counts from the threshold upwards.

    Attributes:
        thresholds: `[m]`, falling: infinity, then every distinct score.
        false_alarms_per_hour: `[m]`, rising.
        false_rejection: `[m]`, share of the events that are not found, falling.
    """

    thresholds: np.ndarray
    false_alarms_per_hour: np.ndarray
    false_rejection: np.ndarray


def match_detections(
    detections: Iterable[tuple[str, float, float]],
    events: Iterable[tuple[str, float, float]],
    durations: Mapping[str, float],
    *,
    tolerance: float = 0.5,
    merge: float = 0.5,
) -> Outcomes:
    """Tell the detections of one keyword that found an event from false alarms.

    First, a detection less than `merge` from one of a higher score in its recording is dropped, as a detector does
    that stays silent for a while after it has spoken. Then, from the highest score down, each takes the nearest event
    within `tolerance` that none has taken; what finds no event is a false alarm, and so is a second detection of one
    event that was not merged. Both steps look at higher scores only, so that the outcome at any threshold is that of
    the detections above it alone, and one pass gives the whole curve.

    Half a second is the tolerance of the NIST spoken term detection evaluations, around the span of the event, with
    one detection an event; half a second of silence after a detection is the default of WeKWS (`window_shift` of 50
    frames). Unlike WeKWS, false alarms count in all recordings, those with events too.

    Args:
        detections: recording, time in seconds (its middle, where it has a span) and score of each.
        events: recording, start and end in seconds of each keyword that was spoken.
        durations: seconds of every recording that was listened to, also where nothing happened.
        tolerance: seconds that a detection may lie before the start or after the end of its event.
        merge: seconds; less than from one keyword to the next. 0 merges nothing.

    Raises:
        ParameterError: if a recording has no duration, or a time, score or option is out of range.
    """
    if not (0 <= tolerance < np.inf and 0 <= merge < np.inf):
        raise ParameterError(f"tolerance={tolerance} and merge={merge} must be seconds, 0 or more")
    for name, seconds in durations.items():
        if not 0 < seconds < np.inf:
            raise ParameterError(f"the duration of recording {name!r} is {seconds}; it must be above 0 seconds")
    found_in, spoken_in = _by_recording("detection", detections, durations), _by_recording("event", events, durations)
    rows: list[tuple[float, bool, float, str]] = []
    for name, seconds in durations.items():
        spans = sorted(spoken_in[name])
        for start, end in spans:
            if not 0 <= start <= end <= seconds + tolerance:
                raise ParameterError(
                    f"the event from {start} to {end} s of recording {name!r} must end after it starts and within the "
                    f"{seconds} s of the recording"
                )
        rows.append((-np.inf, False, seconds / 3600, name))
        outcomes = _match(_merged(found_in[name], merge), spans, tolerance)
        rows += [(score, is_event, 0.0, name) for score, is_event in outcomes]
    scores, labels, hours, recordings = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Outcomes(np.array(scores), np.array(labels, bool), np.array(hours), np.array(recordings))


def false_rejection_curve(scores: ArrayLike, labels: ArrayLike, hours: ArrayLike) -> SpottingCurve:
    """False rejection rate and false alarms per hour at every threshold.

    Args:
        scores: `[n]` of detections; -inf for an event without one.
        labels: `[n]`, True for an event, False for a false alarm.
        hours: that were listened to: a number, or `[n]` numbers whose sum it is.

    Raises:
        ParameterError: if lengths differ, a value is no number, or there is no event or no time.
    """
    values, is_event = as_numbers("scores", scores).astype(np.float64), as_numbers("labels", labels).astype(bool)
    times = as_numbers("hours", hours)
    if values.ndim != 1 or values.shape != is_event.shape or times.shape not in ((), values.shape):
        raise ParameterError(
            f"scores {values.shape}, labels {is_event.shape} and hours {times.shape} must be [n], hours also one number"
        )
    if not is_event.any() or not 0 < times.sum() < np.inf:
        raise ParameterError(f"{int(is_event.sum())} events in {times.sum()} hours; a rate needs both above 0")
    thresholds, alarms, found = count_above(values, is_event, np.ones(len(values)))
    num = int(np.searchsorted(-thresholds, np.inf))  # -inf is no detection
    return SpottingCurve(
        np.append(np.inf, thresholds[:num]),
        np.append(0.0, alarms[:num] / times.sum()),
        np.append(1.0, 1 - found[:num] / is_event.sum()),
    )


def false_rejection_at(
    scores: ArrayLike, labels: ArrayLike, hours: ArrayLike, false_alarms_per_hour: float = 1.0
) -> float:
    """Share of the events that are not found at the lowest threshold with at most so many false alarms per hour.

    A threshold that exists, with no line in between. Where even the lowest score keeps below the false alarms allowed,
    events are missed for want of detections: let the detector give lower scores too.

    Args:
        scores: as for `false_rejection_curve`, with `labels` and `hours`.
        labels: True for an event.
        hours: that were listened to.
        false_alarms_per_hour: that are allowed, 0 or more.

    Raises:
        ParameterError: as of `false_rejection_curve`, and if the false alarms allowed are below 0.
    """
    if not false_alarms_per_hour >= 0:
        raise ParameterError(f"false_alarms_per_hour={false_alarms_per_hour} must be 0 or more")
    curve = false_rejection_curve(scores, labels, hours)
    last = np.searchsorted(curve.false_alarms_per_hour, false_alarms_per_hour, side="right") - 1
    return float(curve.false_rejection[last])


def _by_recording(
    what: str, rows: Iterable[tuple[str, float, float]], durations: Mapping[str, float]
) -> defaultdict[str, list[tuple[float, float]]]:
    found = defaultdict(list)
    for name, first, second in rows:
        if name not in durations:
            raise ParameterError(f"the {what} at {first} s is in recording {name!r}, which has no duration")
        if not (0 <= first < np.inf and -np.inf < second < np.inf):
            raise ParameterError(
                f"the {what} ({name!r}, {first}, {second}) must have finite numbers and no time below 0"
            )
        found[name].append((float(first), float(second)))
    return found


def _merged(detections: Sequence[tuple[float, float]], merge: float) -> list[tuple[float, float]]:
    """Those kept, from the highest score down; the earlier first among equals."""
    times: list[float] = []
    kept = []
    for time, score in sorted(detections, key=lambda one: (-one[1], one[0])):
        place = bisect_left(times, time)
        if all(abs(other - time) >= merge for other in times[max(place - 1, 0) : place + 1]):
            insort(times, time)
            kept.append((time, score))
    return kept


def _match(
    detections: Sequence[tuple[float, float]], spans: Sequence[tuple[float, float]], tolerance: float
) -> list[tuple[float, bool]]:
    """Score and whether it is of an event: of every detection, then of every event that none has found."""
    starts = [start for start, _ in spans]
    longest = max((end - start for start, end in spans), default=0.0)
    free = [True] * len(spans)
    outcomes = []
    for time, score in detections:
        near = range(bisect_left(starts, time - tolerance - longest), bisect_right(starts, time + tolerance))
        distances = [(max(spans[k][0] - time, time - spans[k][1], 0.0), k) for k in near if free[k]]
        distance, nearest = min(distances, default=(np.inf, -1))
        if distance <= tolerance:
            free[nearest] = False
        outcomes.append((score, bool(distance <= tolerance)))
    return outcomes + [(-np.inf, True)] * sum(free)
