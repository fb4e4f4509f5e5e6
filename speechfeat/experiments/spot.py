"""Keywords found in long recordings: how many, at how many false alarms an hour, and how well they are placed.

report = evaluate_detections(detect(head, store, threshold=0.0), events, durations)
print(report.text())
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from speechfeat.errors import ParameterError
from speechfeat.metrics import bootstrap_interval
from speechfeat.spotting import Outcomes, SpottingCurve, false_rejection_at, false_rejection_curve, match_detections

# Intervals are drawn by stretches of about so many seconds: there are too few recordings, and words are not alone.
STRETCH_SECONDS = 60.0
TOGETHER = "all keywords"
TIMES = ("start", "end")
# Errors of times up to this are called right.
CLOSE_SECONDS = 0.2


@dataclass(frozen=True)
class SpottingReport:
    """What a detector finds.

    Attributes:
        false_alarms_per_hour: that are allowed.
        hours: that were listened to.
        keywords: a row a keyword, each with a threshold of its own: label, events, false_rejection (share of events
            that are missed), low and high (95 % interval), threshold.
        overall: of all keywords with one threshold, the false alarms of all together: the same numbers.
        times: of the events found at the overall threshold, a row for start and one for end: found, median,
            quantile_90 (of the error, in seconds), close (share with an error up to 0.2 s).
        curves: both errors at every threshold, for every keyword and for all, as `plot_spotting` takes them.
    """

    false_alarms_per_hour: float
    hours: float
    keywords: pd.DataFrame
    overall: Mapping[str, float]
    times: pd.DataFrame
    curves: Mapping[str, SpottingCurve] = field(repr=False)

    def describe(self) -> dict[str, Any]:
        """As JSON values, without the curves; None for what is not finite, such as a threshold that nothing reaches."""
        return {
            "false_alarms_per_hour": self.false_alarms_per_hour,
            "hours": self.hours,
            "keywords": [_plain(row) for row in self.keywords.to_dict("records")],
            "overall": _plain(self.overall),
            "times": [_plain(row) for row in self.times.to_dict("records")],
        }

    def text(self) -> str:
        """For people."""
        rows = [*self.keywords.to_dict("records"), {"label": TOGETHER, **self.overall}]
        lines = [f"missed at {self.false_alarms_per_hour:g} false alarms an hour, in {self.hours:.2f} h"]
        for row in rows:
            missed, low, high = (100 * row[name] for name in ("false_rejection", "low", "high"))
            lines.append(f"{row['label']:>14}  {missed:5.1f} % ({low:.1f}-{high:.1f}) of {row['events']}")
        lines += [
            f"{row['time']} of {row['found']} found: median error {row['median']:.3f} s, 90 % within "
            f"{row['quantile_90']:.3f} s, {100 * row['close']:.1f} % within {CLOSE_SECONDS} s"
            for row in self.times.to_dict("records")
        ]
        return "\n".join(lines)


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and not np.isfinite(value) else value for name, value in row.items()}


def evaluate_detections(
    detections: pd.DataFrame,
    events: pd.DataFrame,
    durations: Mapping[str, float],
    *,
    false_alarms_per_hour: float = 1.0,
    tolerance: float = 0.5,
    merge: float = 0.5,
    num: int = 1000,
) -> SpottingReport:
    """Compare what was detected with what was spoken; see `match_detections`.

    In less than an hour, one false alarm an hour allows none at all. Intervals are a bootstrap over stretches of about
    a minute, cut where no word is.

    Args:
        detections: of `detect`, with a threshold so low that the false alarms allowed are reached.
        events: what was spoken, a row each: id, label, start, end.
        durations: seconds of every recording that was listened to, by id.
        false_alarms_per_hour: that are allowed.
        tolerance: seconds that the middle of a detection may lie outside of its event.
        merge: seconds within which a detection of the same keyword is dropped for a likelier one.
        num: draws of the bootstrap.

    Raises:
        ParameterError: if there is no event, or a detection or an event is not in a recording.
    """
    if events.empty:
        raise ParameterError("there is no event to be found; give at least one")
    keywords = sorted({*events["label"], *detections["label"]})
    stretches = _Stretches(events, durations, tolerance)
    outcomes = [stretches.outcomes(detections, events, name, tolerance, merge) for name in keywords]
    rate = partial(_rate, allowed=false_alarms_per_hour, num=num)
    # One that is never spoken has false alarms, which count overall, and no rate of its own.
    spoken = [(name, found) for name, found in zip(keywords, outcomes, strict=True) if found.labels.any()]
    rows = [{"label": name, **rate(*found)} for name, found in spoken]
    curves = {name: false_rejection_curve(*found[:3]) for name, found in spoken}
    scores, labels, hours, groups = (np.concatenate(parts) for parts in zip(*outcomes, strict=True))
    hours /= len(keywords)  # every one of them listened to every hour, and together they still listened to it once
    overall = rate(scores, labels, hours, groups)
    return SpottingReport(
        false_alarms_per_hour,
        sum(durations.values()) / 3600,
        pd.DataFrame(rows),
        overall,
        _compare_times(detections[detections["probability"] >= overall["threshold"]], events, tolerance),
        {**curves, TOGETHER: false_rejection_curve(scores, labels, hours)},
    )


def _rate(
    scores: np.ndarray, labels: np.ndarray, hours: np.ndarray, groups: np.ndarray, *, allowed: float, num: int
) -> dict[str, float]:
    statistic = partial(false_rejection_at, false_alarms_per_hour=allowed)
    curve = false_rejection_curve(scores, labels, hours)
    last = int(np.searchsorted(curve.false_alarms_per_hour, allowed, side="right")) - 1
    low, high = bootstrap_interval(statistic, scores, labels, hours, groups=groups, num=num)
    return {
        "events": int(labels.sum()),
        "false_rejection": float(curve.false_rejection[last]),
        "low": low,
        "high": high,
        "threshold": float(curve.thresholds[last]),
    }


class _Stretches:
    """Recordings cut into stretches of about a minute, none of them within reach of an event."""

    def __init__(self, events: pd.DataFrame, durations: Mapping[str, float], reach: float) -> None:
        self._bounds = {name: _cut(seconds, events[events["id"] == name], reach) for name, seconds in durations.items()}
        self._durations = {
            f"{name}#{number}": float(size)
            for name, bounds in self._bounds.items()
            for number, size in enumerate(np.diff(bounds))
        }

    def outcomes(
        self, detections: pd.DataFrame, events: pd.DataFrame, label: str, tolerance: float, merge: float
    ) -> Outcomes:
        """Of one keyword, with stretches for recordings."""
        found, spoken = detections[detections["label"] == label], events[events["label"] == label]
        middles = (found["start"] + found["end"]) / 2
        heard = zip(found["id"], middles, found["probability"], strict=True)
        said = zip(spoken["id"], spoken["start"], spoken["end"], strict=True)
        return match_detections(
            [(*self._place(name, time)[:2], score) for name, time, score in heard],
            [(*self._place(name, start)[:2], end - self._place(name, start)[2]) for name, start, end in said],
            self._durations,
            tolerance=tolerance,
            merge=merge,
        )

    def _place(self, name: str, time: float) -> tuple[str, float, float]:
        """The stretch of a time, the time within it, and where it begins."""
        if name not in self._bounds:
            raise ParameterError(f"recording {name!r} has no duration; give that of every recording listened to")
        bounds = self._bounds[name]
        number = min(int(np.searchsorted(bounds, time, side="right")) - 1, len(bounds) - 2)
        return f"{name}#{number}", float(time - bounds[number]), float(bounds[number])


def _cut(seconds: float, events: pd.DataFrame, reach: float) -> np.ndarray:
    """0, where to cut, and the end."""
    bounds = [0.0]
    spans = sorted(zip(events["start"] - reach, events["end"] + reach, strict=True))
    for bound in np.arange(STRETCH_SECONDS, seconds, STRETCH_SECONDS):
        for start, end in spans:
            bound = end if start < bound < end else bound  # noqa: PLW2901 - moved past each in turn
        if bounds[-1] < bound < seconds:
            bounds.append(float(bound))
    return np.array([*bounds, seconds])


def _compare_times(detections: pd.DataFrame, events: pd.DataFrame, tolerance: float) -> pd.DataFrame:
    """Errors of start and end, of the likeliest detection of every event that has one."""
    errors: dict[str, list[float]] = {time: [] for time in TIMES}
    by_keyword = dict(iter(detections.groupby(["id", "label"])))
    for event in events.itertuples():
        near = by_keyword.get((event.id, event.label), detections.iloc[:0])
        middles = (near["start"] + near["end"]) / 2
        near = near[(middles >= event.start - tolerance) & (middles <= event.end + tolerance)]
        if len(near):
            best = near.loc[near["probability"].idxmax()]
            for time in TIMES:
                errors[time].append(abs(best[time] - getattr(event, time)))
    return pd.DataFrame([{"time": time, **_spread(np.array(errors[time]))} for time in TIMES])


def _spread(errors: np.ndarray) -> dict[str, float]:
    if not len(errors):
        return {"found": 0, "median": np.nan, "quantile_90": np.nan, "close": np.nan}
    return {
        "found": len(errors),
        "median": float(np.median(errors)),
        "quantile_90": float(np.quantile(errors, 0.9)),
        "close": float((errors <= CLOSE_SECONDS).mean()),
    }
