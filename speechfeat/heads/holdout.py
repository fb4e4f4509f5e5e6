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
    # The fold wanted first, then smaller ones: one that takes the last of a class from training serves no one.
    for k in sorted({min(max(2, round(1 / share)), count), count}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes with fewer rows than folds
            splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
            try:
                folds = list(splitter.split(classes, classes, groups))
            except ValueError:  # no class has as many rows as there are folds
                continue
        whole = [fold for fold in folds if len(np.unique(classes[fold[0]])) == len(names) and len(fold[1])]
        if whole:
            # Of these, one that tells most of the classes.
            return max(whole, key=lambda fold: len(np.unique(classes[fold[1]])))
    alone = next((name for number, name in enumerate(names) if len(np.unique(groups[classes == number])) < 2), names[0])
    raise ParameterError(
        f"no group can be kept apart for validation without taking class {alone!r} from training, which is in too few "
        "groups: leave the class out, give groups=None, or train without validation (validation_share=0)"
    )
