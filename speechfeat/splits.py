"""Rows to train on and rows to test on, by speaker."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupShuffleSplit, LeaveOneGroupOut, StratifiedGroupKFold, StratifiedKFold

from speechfeat.errors import ParameterError

Fold = tuple[np.ndarray, np.ndarray]

METHODS = ("logo", "group-k", "group-shuffle", "k")


def make_folds(
    labels: ArrayLike,
    groups: ArrayLike | None = None,
    method: str = "group-k",
    *,
    k: int = 5,
    test_share: float = 0.2,
    seed: int = 0,
) -> list[Fold]:
    """Split rows for cross-validation, by scikit-learn's splitters, so that no group is on both sides.

    * "logo": each group alone is tested once (leave one speaker out).
    * "group-k": k folds of whole groups, with the classes as even as that allows; each row is tested once.
    * "group-shuffle": k times a share of the groups, drawn anew.
    * "k": k folds of rows with the classes even, for labels that are the groups themselves, as in telling speakers
      apart; on anything else a speaker is on both sides, and scores come out too high.

    Args:
        labels: `[n]`, what is to be told.
        groups: `[n]`, such as speakers; None for "k" alone.
        method: one of the above.
        k: folds; not for "logo".
        test_share: of the groups, for "group-shuffle".
        seed: of the shuffling.

    Returns:
        Rows to train on and rows to test on, of each fold.

    Raises:
        ParameterError: if lengths differ, a label or group is missing, there are too few groups or items of a class
            for the folds, or a fold would test a class that it does not train.

    Example:
        folds = make_folds(emotions, speakers, "logo")
        scores = sf.probe_layers(X, emotions, folds, groups=speakers, metric="uar")
    """
    if method not in METHODS:
        raise ParameterError(f"method={method!r} is not known; use {', '.join(METHODS)}")
    classes = _codes("labels", labels)
    if classes.max() == 0:
        raise ParameterError(f"all of {len(classes)} labels are alike; there must be two classes or more")
    if method in ("group-k", "k"):
        _check_count("items of the rarest class", k, np.bincount(classes).min())
    speakers = None if method == "k" else _checked_groups(groups, len(classes), method, k)
    splitter = _splitter(method, k, test_share, seed)
    try:
        folds = list(splitter.split(classes, classes, speakers))
    except ValueError as error:  # such as a share of the groups that leaves none to train on
        raise ParameterError(f"method={method!r} cannot split these rows: {error}") from error
    check_classes(folds, np.asarray(labels))
    return folds


def listed_fold(
    ids: Sequence[str],
    test: Collection[str],
    train: Collection[str] | None = None,
    *,
    left_out: Collection[str] = (),
) -> Fold:
    """The fold of an official list, as rows.

    Args:
        ids: of the rows, such as `store.ids`.
        test: ids to test on.
        train: ids to train on; None for all that are in no other list.
        left_out: ids of other lists, such as the ones to validate on, where `train` is None.

    Returns:
        Rows to train on and rows to test on, in the order of the rows.

    Raises:
        ParameterError: if an id of a list is not among the rows, is in two lists, or a side is empty.

    Example:
        train, test = listed_fold(store.ids, test=testing_list, left_out=validation_list)
    """
    rows = pd.Index(ids)
    if not rows.is_unique:
        raise ParameterError(f"{int(rows.duplicated().sum())} of {len(rows)} ids repeat; each row needs its own")
    lists = {"test": set(test), "left_out": set(left_out), "train": set(train or ())}
    for name, listed in lists.items():
        if unknown := sorted(listed.difference(rows)):
            raise ParameterError(
                f"{len(unknown)} of {len(listed)} ids of {name} are not among the rows, such as {unknown[:3]}; "
                f"the rows have ids such as {list(rows[:3])}"
            )
    for one, other in (("test", "train"), ("test", "left_out"), ("train", "left_out")):
        if both := sorted(lists[one] & lists[other]):
            raise ParameterError(f"{len(both)} ids are in {one} and in {other}, such as {both[:3]}")
    is_test = rows.isin(list(lists["test"]))
    is_train = ~is_test & ~rows.isin(list(left_out)) if train is None else rows.isin(list(lists["train"]))
    if not is_test.any() or not is_train.any():
        raise ParameterError(f"{int(is_train.sum())} rows to train on and {int(is_test.sum())} to test on; give both")
    return np.flatnonzero(is_train), np.flatnonzero(is_test)


def _checked_groups(groups: ArrayLike | None, count: int, method: str, k: int) -> np.ndarray:
    if groups is None:
        raise ParameterError(f"method={method!r} needs groups, such as the speaker of each row")
    speakers = _codes("groups", groups)
    if len(speakers) != count:
        raise ParameterError(f"{count} labels and {len(speakers)} groups; give one of each for every row")
    if speakers.max() == 0:
        raise ParameterError(f"all of {count} rows are of one group; a split by group needs two or more")
    if method == "group-k":
        _check_count("groups", k, int(speakers.max()) + 1)
    return speakers


def _splitter(
    method: str, k: int, test_share: float, seed: int
) -> LeaveOneGroupOut | StratifiedGroupKFold | GroupShuffleSplit | StratifiedKFold:
    if method == "logo":
        return LeaveOneGroupOut()
    if method == "k":
        return StratifiedKFold(k, shuffle=True, random_state=seed)
    if method == "group-k":
        return StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    if k < 1 or not 0 < test_share < 1:
        raise ParameterError(f"k={k} and test_share={test_share} must be at least 1 and between 0 and 1")
    return GroupShuffleSplit(k, test_size=test_share, random_state=seed)


def _codes(name: str, values: ArrayLike) -> np.ndarray:
    """A number for each distinct value, by first appearance: folds do not hang on how speakers are named."""
    array = np.asarray(values, dtype=object)
    if array.ndim != 1 or not array.size:
        raise ParameterError(f"{name} have the shape {array.shape}; give one for every row")
    missing = pd.isna(array) | (array == "")
    if missing.any():
        raise ParameterError(
            f"{int(missing.sum())} of {len(array)} {name} are missing, the first in row {int(missing.argmax())}; "
            "leave such rows out"
        )
    return pd.factorize(array)[0]


def _check_count(what: str, k: int, fewest: int) -> None:
    if not 2 <= k <= fewest:
        raise ParameterError(f"k={k} folds and {fewest} {what}; give k from 2 to the number of these")


def check_classes(folds: Sequence[Fold], labels: np.ndarray) -> None:
    """Refuse folds that test a class they do not train.

    Raises:
        ParameterError: that names the fold and the class.
    """
    for number, (train, test) in enumerate(folds):
        if untrained := sorted(set(labels[test].tolist()) - set(labels[train].tolist()), key=str):
            raise ParameterError(
                f"fold {number} tests {untrained[0]!r} but has none of it to train on; take another split, fewer folds "
                "or another seed, or leave this class out"
            )
