"""How well answers agree with labels: scikit-learn's scores, checked, under the names of this field.

Each takes arrays of one length, so that `bootstrap_interval(average_recall, labels, answers, groups=speakers)` is the
interval of the UAR.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn import metrics

from speechfeat.errors import ParameterError
from speechfeat.metrics import as_numbers


def accuracy(labels: ArrayLike, answers: ArrayLike) -> float:
    """Share of right answers; in emotion recognition the weighted accuracy (WA).

    Args:
        labels: `[n]`, what each item is.
        answers: `[n]`, what it was taken for.

    Raises:
        ParameterError: if lengths differ, there is nothing, a label is missing, or names meet numbers.
    """
    return float(metrics.accuracy_score(*_checked(labels, answers)))


def average_recall(labels: ArrayLike, answers: ArrayLike) -> float:
    """Share of right answers of each class, averaged over the classes among the labels: UAR, or balanced accuracy.

    Takes and raises what `accuracy` does.
    """
    with warnings.catch_warnings():
        # An answer of a class that has no item here is wrong for its item and has no recall of its own: nothing is
        # amiss. (`recall_score` would count a recall of 0 for such a class.)
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
        return float(metrics.balanced_accuracy_score(*_checked(labels, answers)))


def macro_f1(labels: ArrayLike, answers: ArrayLike) -> float:
    """F1 of each class, averaged over the classes among labels or answers; 0 for one that is never right.

    Takes and raises what `accuracy` does.
    """
    return float(metrics.f1_score(*_checked(labels, answers), average="macro", zero_division=0))


def top_k_accuracy(labels: ArrayLike, scores: ArrayLike, k: int = 5, *, classes: Sequence | None = None) -> float:
    """Share of items whose class is among the k of highest score.

    A class that ties with the right one is placed before it, so that a head which scores all classes alike is right
    about none. (scikit-learn's places them by their number, and takes neither two classes nor classes in any order.)

    Args:
        labels: `[n]`, what each item is.
        scores: `[n, C]`, higher for what it rather is.
        k: from 1 to C.
        classes: the C classes in the order of the columns; None where labels are the numbers of columns.

    Raises:
        ParameterError: if shapes do not agree, `k` is out of range, or a label is no class.
    """
    values, names = as_numbers("scores", scores), np.asarray(labels)
    if values.ndim != 2 or names.shape != values.shape[:1] or not values.size:
        raise ParameterError(f"labels {names.shape} and scores {values.shape} must be [n] and [n, C], n and C above 0")
    columns = pd.Index(range(values.shape[1]) if classes is None else classes)
    if len(columns) != values.shape[1] or not columns.is_unique:
        raise ParameterError(f"{len(columns)} classes for {values.shape[1]} columns of scores; name each column once")
    if not 1 <= k <= len(columns):
        raise ParameterError(f"k={k} must be from 1 to the number of classes, {len(columns)}")
    own = columns.get_indexer(names)
    if (own < 0).any():
        raise ParameterError(f"the label {names[own < 0].tolist()[0]!r} is none of the classes {list(columns)[:8]}")
    as_high = (values >= np.take_along_axis(values, own[:, None], axis=1)).sum(axis=1)  # itself included
    return float((as_high <= k).mean())


def confusion_matrix(labels: ArrayLike, answers: ArrayLike, *, normalize: bool = False) -> pd.DataFrame:
    """How often each class was taken for each: a row a label, a column an answer, named and sorted.

    Args:
        labels: `[n]`, what each item is.
        answers: `[n]`, what it was taken for.
        normalize: shares of each row rather than counts; the diagonal then holds the recalls.

    Raises:
        ParameterError: as of `accuracy`.
    """
    names, taken_for = _checked(labels, answers)
    classes = np.union1d(names, taken_for)
    counts = metrics.confusion_matrix(names, taken_for, labels=classes, normalize="true" if normalize else None)
    return pd.DataFrame(counts, pd.Index(classes, name="label"), pd.Index(classes, name="answer"))


def _checked(labels: ArrayLike, answers: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    names, taken_for = np.asarray(labels), np.asarray(answers)
    if names.ndim != 1 or names.shape != taken_for.shape or not names.size:
        raise ParameterError(
            f"labels {names.shape} and answers {taken_for.shape} must be [n], one of each for every item, n above 0"
        )
    for kind, values in (("labels", names), ("answers", taken_for)):
        if (missing := pd.isna(values)).any():
            raise ParameterError(f"{int(missing.sum())} of {len(values)} {kind} are missing; leave such items out")
    label, answer = names[:1].tolist()[0], taken_for[:1].tolist()[0]
    if isinstance(label, str) != isinstance(answer, str):
        raise ParameterError(f"labels such as {label!r} and answers such as {answer!r} must both be names or numbers")
    return names, taken_for
