"""What the embeddings of each layer tell: linear probes and speaker verification, with their intervals."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from speechfeat.errors import ParameterError
from speechfeat.metrics import DetCurve, bootstrap_interval, det_curve

# Strong enough that hundreds of dimensions and a few speakers do not overfit; one value for all encoders, so that none
# is tuned on what it is tested on.
REGULARISATION = 0.01


class LayerScore(NamedTuple):
    """A score from 0 to 1 and the ends of its 95 % interval."""

    score: float
    low: float
    high: float


def accuracy(is_correct: np.ndarray, classes: np.ndarray) -> float:
    """Share of right answers."""
    del classes
    return float(is_correct.mean())


def average_recall(is_correct: np.ndarray, classes: np.ndarray) -> float:
    """Share of right answers of each class, averaged over the classes that occur (UAR)."""
    counts = np.bincount(classes)
    right = np.bincount(classes, weights=is_correct)
    return float((right[counts > 0] / counts[counts > 0]).mean())


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"accuracy": accuracy, "uar": average_recall}


def probe_layers(
    embeddings: np.ndarray,
    labels: ArrayLike,
    folds: Iterable[tuple[ArrayLike, ArrayLike]],
    *,
    groups: ArrayLike | None = None,
    metric: str = "accuracy",
    num: int = 1000,
) -> list[LayerScore]:
    """Score a linear classifier on every layer: logistic regression on standardised dimensions.

    Answers of all folds are scored together. The interval is a bootstrap over the tested items; that the classifier
    would differ with other training items is not in it.

    Args:
        embeddings: `[n, L, D]`.
        labels: `[n]`, what is to be told.
        folds: rows to train on and rows to test on, as scikit-learn's splitters give them.
        groups: `[n]`, such as speakers, to draw the bootstrap by; None draws items.
        metric: "accuracy", or "uar", the recall averaged over classes.
        num: draws of the bootstrap.

    Returns:
        A score a layer.

    Raises:
        ParameterError: if shapes do not agree, the metric is not known, or there is no fold.

    Example:
        folds = LeaveOneGroupOut().split(X, digits, speakers)
        scores = sf.probe_layers(X, digits, folds, groups=speakers)
    """
    names, classes = np.unique(np.asarray(labels), return_inverse=True)
    _check_embeddings(embeddings, classes, "labels")
    if metric not in METRICS:
        raise ParameterError(f"metric={metric!r} is not known; use {', '.join(METRICS)}")
    if len(names) < 2:
        raise ParameterError(f"all of {len(classes)} labels are alike; a probe needs two classes or more")
    splits = [(np.asarray(train), np.asarray(test)) for train, test in folds]
    if not splits:
        raise ParameterError("there is no fold; give at least one pair of rows to train on and rows to test on")
    tested = np.concatenate([test for _, test in splits])
    drawn_by = None if groups is None else np.asarray(groups)[tested]
    scores = []
    for layer in range(embeddings.shape[1]):
        is_correct = _answers(embeddings[:, layer], classes, splits) == classes[tested]
        score = METRICS[metric](is_correct, classes[tested])
        interval = bootstrap_interval(METRICS[metric], is_correct, classes[tested], groups=drawn_by, num=num)
        scores.append(LayerScore(score, *interval))
    return scores


def _answers(values: np.ndarray, classes: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    answers = []
    for train, test in splits:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=REGULARISATION, max_iter=2000))
        answers.append(probe.fit(values[train], classes[train]).predict(values[test]))
    return np.concatenate(answers)


def verify_layers(
    embeddings: np.ndarray, speakers: ArrayLike, *, most: int | None = None, num: int = 200
) -> list[LayerScore]:
    """Equal error rate of telling, from every layer, whether two utterances are of one speaker.

    All pairs of utterances are scored by the cosine of their embeddings, whose dimensions are standardised over the
    utterances given: nothing is learnt from speakers. The interval is a bootstrap over speakers; a pair counts as
    often as its speaker, or both of its speakers, were drawn.

    Args:
        embeddings: `[n, L, D]`.
        speakers: `[n]`.
        most: utterances of a speaker that are taken, the first ones; None for all.
        num: draws of the bootstrap.

    Returns:
        An equal error rate a layer.

    Raises:
        ParameterError: if shapes do not agree, there is one speaker only, or none has two utterances.
    """
    codes = np.unique(np.asarray(speakers), return_inverse=True)[1]
    _check_embeddings(embeddings, codes, "speakers")
    if most is not None:
        kept = pd.Series(codes).groupby(codes).cumcount().to_numpy() < most
        embeddings, codes = embeddings[kept], codes[kept]
    one, other = np.triu_indices(len(codes), k=1)
    return [
        score_trials(_cosines(embeddings[:, layer])[one, other], codes[one], codes[other], num=num)
        for layer in range(embeddings.shape[1])
    ]


def score_trials(
    scores: ArrayLike,
    enrolled: ArrayLike,
    tested: ArrayLike,
    measure: Callable[[DetCurve], float] = DetCurve.equal_error_rate,
    *,
    num: int = 200,
) -> LayerScore:
    """A measure of how well speakers are verified, with its interval by a bootstrap over speakers.

    A pair counts as often as its speaker, or both of its speakers, were drawn.

    Args:
        scores: `[n]`, of pairs of utterances, higher for what is rather one speaker.
        enrolled: `[n]`, the speaker of the one.
        tested: `[n]`, the speaker of the other; a target where it is the same.
        measure: of the curve, such as `partial(DetCurve.min_dcf, p_target=0.05)`.
        num: draws of the bootstrap.

    Raises:
        ParameterError: if lengths differ, or there is no target or no non-target.
    """
    values, first, second = (np.asarray(each) for each in (scores, enrolled, tested))
    if values.ndim != 1 or not values.shape == first.shape == second.shape:
        raise ParameterError(f"scores {values.shape} and speakers {first.shape} and {second.shape} must be [n]")
    order = np.argsort(-values)  # once: the draws below change weights alone
    names, codes = np.unique(np.concatenate([first[order], second[order]]), return_inverse=True)
    first, second = np.split(codes, 2)
    statistic = partial(_drawn, measure, values[order], first, second)
    score = measure(det_curve(values[order], first == second))
    return LayerScore(score, *bootstrap_interval(statistic, np.arange(len(names)), num=num))


def _drawn(
    measure: Callable[[DetCurve], float], scores: np.ndarray, first: np.ndarray, second: np.ndarray, drawn: np.ndarray
) -> float:
    """The measure over the speakers `drawn`, with repeats; NaN where they give no target or no non-target."""
    counts = np.bincount(drawn, minlength=1 + max(first.max(), second.max()))
    is_target = first == second
    weights = counts[first] * np.where(is_target, 1, counts[second])
    if not (weights[is_target].any() and weights[~is_target].any()):
        return float("nan")
    return measure(det_curve(scores, is_target, weights))


def _cosines(values: np.ndarray) -> np.ndarray:
    """Of all pairs of `[n, D]`, standardised over n."""
    centred = values - values.mean(axis=0)
    scale = centred.std(axis=0)
    scaled = centred / np.where(scale > 0, scale, 1)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
    return scaled @ scaled.T


def _check_embeddings(embeddings: np.ndarray, codes: np.ndarray, name: str) -> None:
    if embeddings.ndim != 3 or len(embeddings) != len(codes):
        raise ParameterError(
            f"embeddings of the shape {embeddings.shape} and {len(codes)} {name} do not agree; "
            "give [n, L, D] and n of them (one layer: embeddings[:, None])"
        )
