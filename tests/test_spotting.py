"""Laws of keyword spotting scores: which detections find an event, and the curve over all thresholds."""

from functools import partial

import numpy as np
import pytest

from speechfeat.errors import ParameterError
from speechfeat.metrics import bootstrap_interval
from speechfeat.spotting import Outcomes, false_rejection_at, false_rejection_curve, match_detections

HOUR = {"day": 3600.0}


def found_by(outcomes: Outcomes) -> set[tuple[float, bool]]:
    return set(zip(outcomes.scores.tolist(), outcomes.labels.tolist(), strict=True))


def spoken(count: int = 60, num_recordings: int = 6) -> tuple[list, list, dict]:
    """Events with one detection or two or none, and false alarms, in recordings of 10 minutes."""
    rng = np.random.default_rng(0)
    durations = {f"r{number}": 600.0 for number in range(num_recordings)}
    events, detections = [], []
    for index in range(count):
        name, start = f"r{index % num_recordings}", 20.0 + 9 * index % 560
        events.append((name, start, start + 0.6))
        for _ in range(rng.choice(3, p=[0.1, 0.6, 0.3])):
            detections.append((name, start + rng.uniform(-0.7, 1.6), round(rng.normal(1), 1)))
    for _ in range(150):
        detections.append((f"r{rng.integers(num_recordings)}", rng.uniform(0, 599), round(rng.normal(-1), 1)))
    return detections, events, durations


def test_by_hand() -> None:
    events = [("day", 10.0, 11.0), ("day", 50.0, 51.0), ("day", 90.0, 91.0)]
    detections = [
        ("day", 10.5, 0.9),  # finds the first event
        ("day", 10.7, 0.8),  # 0.2 s from a higher score: merged
        ("day", 11.4, 0.7),  # the first event is taken: a false alarm
        ("day", 49.5, 0.6),  # half a second before the second event: finds it
        ("day", 70.0, 0.5),  # nothing there: a false alarm
        ("day", 91.6, 0.4),  # 0.6 s after the third event: a false alarm
    ]
    found = match_detections(detections, events, {"day": 7200.0})
    assert found_by(found) == {
        *((0.9, True), (0.7, False), (0.6, True), (0.5, False), (0.4, False)),
        *((-np.inf, True), (-np.inf, False)),  # the third event, which none found, and the recording
    }
    curve = false_rejection_curve(*found[:3])
    assert curve.thresholds.tolist() == [np.inf, 0.9, 0.7, 0.6, 0.5, 0.4]
    assert curve.false_alarms_per_hour.tolist() == [0, 0, 0.5, 0.5, 1, 1.5]  # in two hours
    assert curve.false_rejection == pytest.approx([1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert false_rejection_at(*found[:3], false_alarms_per_hour=0) == pytest.approx(2 / 3)
    assert false_rejection_at(*found[:3], false_alarms_per_hour=0.5) == pytest.approx(1 / 3)


def test_second_detections_are_merged_or_false_alarms() -> None:
    detections, events = [("day", 5.0, 0.9), ("day", 5.3, 0.8)], [("day", 4.9, 5.4)]
    merged, apart = (match_detections(detections, events, HOUR, merge=merge) for merge in (0.5, 0.2))
    assert found_by(merged) == {(0.9, True), (-np.inf, False)}
    assert found_by(apart) == {(0.9, True), (0.8, False), (-np.inf, False)}


def test_a_detection_finds_one_event_the_nearest() -> None:
    events = [("day", 10.0, 10.2), ("day", 10.6, 10.8)]
    one = match_detections([("day", 10.5, 0.9)], events, HOUR)
    assert found_by(one) == {(0.9, True), (-np.inf, True), (-np.inf, False)}
    # The higher score takes the nearest, the other what is left.
    both = match_detections([("day", 10.5, 0.9), ("day", 10.55, 0.8)], events, HOUR, merge=0)
    assert found_by(both) == {(0.9, True), (0.8, True), (-np.inf, False)}


def test_a_long_event_is_found_anywhere_within() -> None:
    events = [("day", 1.0, 30.0), ("day", 28.0, 28.5)]
    found = match_detections([("day", 15.0, 0.9), ("day", 28.2, 0.8)], events, HOUR)
    assert found_by(found) == {(0.9, True), (0.8, True), (-np.inf, False)}


def test_recordings_are_apart() -> None:
    found = match_detections([("a", 5.0, 0.9)], [("b", 5.0, 6.0)], {"a": 1800.0, "b": 1800.0})
    assert found_by(found) == {(0.9, False), (-np.inf, True), (-np.inf, False)}
    assert found.hours.sum() == 1
    assert set(found.recordings) == {"a", "b"}


@pytest.mark.parametrize("merge", [0, 0.5, 30])
def test_the_outcome_at_a_threshold_is_that_of_the_detections_above_it(merge: float) -> None:
    detections, events, durations = spoken()
    curve = false_rejection_curve(*match_detections(detections, events, durations, merge=merge)[:3])
    for threshold, false_alarms, false_rejection in zip(*curve, strict=True):
        above = [one for one in detections if one[2] >= threshold]
        alone = match_detections(above, events, durations, merge=merge)
        assert (alone.labels & (alone.scores > -np.inf)).sum() == round((1 - false_rejection) * len(events))
        assert (~alone.labels & (alone.scores > -np.inf)).sum() == round(false_alarms)  # in one hour


def test_every_event_is_there_once_and_every_unmerged_detection_too() -> None:
    detections, events, durations = spoken()
    found = match_detections(detections, events, durations, merge=0)
    assert found.labels.sum() == len(events)
    assert (found.scores > -np.inf).sum() == len(detections)
    assert found.hours.sum() == pytest.approx(1)


def test_the_order_of_what_is_given_does_not_matter() -> None:
    detections, events, durations = spoken()
    one = match_detections(detections, events, durations)
    other = match_detections(detections[::-1], events[::-1], durations)
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_the_curve_falls_and_the_rate_is_read_off_it() -> None:
    detections, events, durations = spoken()
    found = match_detections(detections, events, durations)[:3]
    curve = false_rejection_curve(*found)
    assert (np.diff(curve.false_alarms_per_hour) >= 0).all() and (np.diff(curve.false_rejection) <= 0).all()
    for allowed in (0, 1, 2.5, 20, 1e9):
        expected = curve.false_rejection[curve.false_alarms_per_hour <= allowed].min()
        assert false_rejection_at(*found, false_alarms_per_hour=allowed) == expected


def test_a_perfect_and_a_silent_detector() -> None:
    _, events, durations = spoken()
    perfect = match_detections([(name, start, 1.0) for name, start, _ in events], events, durations)
    assert false_rejection_at(*perfect[:3], false_alarms_per_hour=0) == 0
    assert false_rejection_at(*match_detections([], events, durations)[:3], false_alarms_per_hour=9) == 1


def test_the_interval_is_over_recordings_with_their_hours() -> None:
    detections, events, durations = spoken()
    durations["silent"] = 3600.0
    found = match_detections(detections, events, durations)
    statistic = partial(false_rejection_at, false_alarms_per_hour=5)
    rate = statistic(found.scores, found.labels, found.hours)
    low, high = bootstrap_interval(statistic, found.scores, found.labels, found.hours, groups=found.recordings, num=200)
    assert 0 <= low < rate < high <= 1


@pytest.mark.parametrize(
    ("detections", "events", "options", "sentence"),
    [
        ([("night", 1.0, 0.5)], [], {}, "detection at 1.0 s is in recording 'night', which has no duration"),
        ([], [("night", 1.0, 2.0)], {}, "event at 1.0 s is in recording 'night'"),
        ([("day", -1.0, 0.5)], [], {}, r"\('day', -1.0, 0.5\) must have finite numbers and no time below 0"),
        ([("day", 1.0, np.nan)], [], {}, "must have finite numbers"),
        ([], [("day", 2.0, 1.0)], {}, "event from 2.0 to 1.0 s of recording 'day' must end after it starts"),
        ([], [("day", 9000.0, 9001.0)], {}, "within the 3600.0 s of the recording"),
        ([], [], {"tolerance": -1}, "tolerance=-1 and merge=0.5 must be seconds"),
        ([], [], {"merge": np.nan}, "merge=nan must be seconds"),
    ],
)
def test_bad_detections_are_refused(detections: list, events: list, options: dict, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        match_detections(detections, events, HOUR, **options)


def test_bad_hours_are_refused() -> None:
    with pytest.raises(ParameterError, match="duration of recording 'a' is 0"):
        match_detections([], [], {"a": 0})
    with pytest.raises(ParameterError, match=r"0 events in 2\.0 hours"):
        false_rejection_at([0.1], [0], 2.0)
    with pytest.raises(ParameterError, match=r"1 events in 0\.0 hours"):
        false_rejection_at([0.1], [1], 0)
    with pytest.raises(ParameterError, match=r"hours \(3,\) must be \[n\], hours also one number"):
        false_rejection_at([0.1], [1], [1, 2, 3])
    with pytest.raises(ParameterError, match="false_alarms_per_hour=-1 must be 0 or more"):
        false_rejection_at([0.1], [1], 1.0, -1)
