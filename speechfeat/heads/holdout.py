"""Which of the training utterances are kept apart, to choose the best epoch by."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from speechfeat.errors import ParameterError
from speechfeat.splits import Fold


def split_validation(
    classes: np.ndarray, names: Sequence[str], groups: np.ndarray | None, share: float, seed: int = 0
) -> Fold:
    """Keep apart about a share of the rows: whole groups, such as speakers, or of every class a part.

    Every class stays among the rows to train on; a rare one may be missing among those to validate on.

    Args:
        classes: `[n]`, number of the class of each row.
        names: of the classes.
        groups: `[n]`, that are on one side as a whole; None where utterances may be divided in any way.
        share: of the rows to keep apart, above 0.
        seed: of what is drawn.

    Returns:
        Rows to train on and rows to validate on, both rising.

    Raises:
        ParameterError: if a class or the groups do not allow it.
    """
    return _by_class(classes, share, seed) if groups is None else _by_group(classes, names, groups, share, seed)


def _by_class(classes: np.ndarray, share: float, seed: int) -> Fold:
    counts = np.bincount(classes)
    if counts.max() < 2:
        raise ParameterError(
            "no class has two utterances, of which one could be kept apart for validation; give more, or train without "
            "(validation_share=0)"
        )
    rng = np.random.default_rng(seed)
    apart = np.zeros(len(classes), bool)
    for number, count in enumerate(counts):
        chosen = rng.permutation(np.flatnonzero(classes == number))
        # A class of one utterance is trained only.
        apart[chosen[: min(count - 1, max(1, round(share * count)))]] = True
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def _by_group(classes: np.ndarray, names: Sequence[str], groups: np.ndarray, share: float, seed: int) -> Fold:
    count = len(np.unique(groups))
    if count < 2:
        raise ParameterError(
            f"all of {len(groups)} utterances are of one group; validation keeps groups apart: give groups=None, or "
            "train without validation (validation_share=0)"
        )
    wanted = min(max(2, round(1 / share)), count)
    # Smaller parts, and then half, where one of the size wanted would take the last of a class from training.
    for k in dict.fromkeys((wanted, count, 2)):
        whole = [fold for fold in _folds(classes, groups, k, seed) if len(np.unique(classes[fold[0]])) == len(names)]
        if whole:
            return max(whole, key=lambda fold: len(np.unique(classes[fold[1]])))
    alone = [name for number, name in enumerate(names) if len(np.unique(groups[classes == number])) < 2]
    raise ParameterError(
        "whichever group is kept apart for validation, a class is no longer trained on"
        + (f", such as {alone[0]!r}, which is in one group only" if alone else "")
        + ": give groups=None, or train without validation (validation_share=0)"
    )


def _folds(classes: np.ndarray, groups: np.ndarray, k: int, seed: int) -> list[Fold]:
    """Of whole groups, none of them empty."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        try:
            folds = list(StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(classes, classes, groups))
        except ValueError:  # no class has as many rows as there are to be folds
            return []
    return [fold for fold in folds if len(fold[1])]
