"""Scores of speaker verification, made comparable from one trial to another by a cohort of other speakers."""

import numpy as np
from numpy.typing import ArrayLike

from speechfeat.errors import ParameterError
from speechfeat.metrics import as_numbers


def as_norm(
    scores: ArrayLike,
    enrol_cohort: ArrayLike,
    test_cohort: ArrayLike,
    *,
    trials: ArrayLike | None = None,
    top: int = 300,
) -> np.ndarray:
    """Adaptive symmetric score normalisation (AS-norm1 of Matejka et al., Interspeech 2017).

    `((s - mean_e) / std_e + (s - mean_t) / std_t) / 2`, where mean and standard deviation of each side are of its
    `top` highest scores against the cohort: a voice that is close to many gives high scores to all.

    Args:
        scores: of enrolments against tests, `[E, T]` of all pairs or `[n]` of trials.
        enrol_cohort: scores of each enrolment against the cohort, speakers that are in no trial.
        test_cohort: of each test, against the same cohort or another.
        trials: row of `enrol_cohort` and row of `test_cohort` of each of the n trials; None: the i-th trial is of
            row i of both. Not for `[E, T]` scores.
        top: cohort scores that are taken, the highest ones.

    Shape:
        scores `[E, T]` or `[n]`, enrol_cohort `[E, C]`, test_cohort `[T, C']`, trials `[n, 2]` -> as scores

    Raises:
        ParameterError: if shapes do not agree, `top` is out of range, a score is not finite, or the top scores of a
            row are all alike.
    """
    values = as_numbers("scores", scores).astype(np.float64)
    enrol_mean, enrol_std = _statistics("enrol_cohort", enrol_cohort, top)
    test_mean, test_std = _statistics("test_cohort", test_cohort, top)
    enrol, test = _rows(values, trials, len(enrol_mean), len(test_mean))
    return ((values - enrol_mean[enrol]) / enrol_std[enrol] + (values - test_mean[test]) / test_std[test]) / 2


def _rows(values: np.ndarray, trials: ArrayLike | None, *sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the two cohorts that belong to each score, or that broadcast to them."""
    if trials is None and values.ndim == 2 and values.shape == sizes:
        return np.arange(sizes[0])[:, None], np.arange(sizes[1])[None]
    pairs = np.column_stack([np.arange(len(values))] * 2) if trials is None else np.asarray(trials)
    if values.ndim != 1 or pairs.shape != (len(values), 2) or pairs.dtype.kind not in "iu":
        raise ParameterError(
            f"scores {values.shape} with trials {None if trials is None else pairs.shape} do not fit {sizes[0]} "
            f"enrolments and {sizes[1]} tests; give [E, T] alone, or [n] with [n, 2] row numbers"
        )
    if len(pairs) and (pairs.min() < 0 or (pairs.max(axis=0) >= sizes).any()):
        raise ParameterError(
            f"the trials are of rows {pairs.min()} to {pairs.max(axis=0).tolist()}, but the cohort scores have "
            f"{sizes[0]} and {sizes[1]} rows, counted from 0"
        )
    return pairs[:, 0], pairs[:, 1]


def _statistics(name: str, cohort: ArrayLike, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the highest scores of each row."""
    values = as_numbers(name, cohort)
    if values.ndim != 2:
        raise ParameterError(f"{name} has the shape {values.shape}; it must be [rows, cohort]")
    if not 2 <= top <= values.shape[1]:
        raise ParameterError(f"top={top} must be from 2 to the size of the cohort, {values.shape[1]} in {name}")
    highest = np.partition(values, -top, axis=1)[:, -top:].astype(np.float64)
    if not np.isfinite(highest).all():
        raise ParameterError(f"the highest scores of {name} are not all finite; every one must be a number")
    mean, std = highest.mean(axis=1), highest.std(axis=1)
    if (flat := std <= 1e-9 * np.abs(highest).max(axis=1)).any():
        raise ParameterError(
            f"the {top} highest scores of {int(flat.sum())} rows of {name} are all alike; use a larger cohort or top"
        )
    return mean, std
