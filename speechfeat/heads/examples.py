"""What a head is trained on: utterances of a store with their labels and groups."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from speechfeat.errors import ParameterError
from speechfeat.heads.base import check_labels
from speechfeat.store import Store

# A column of `store.table()`, or one value an utterance.
Column = str | Sequence[Any]
# Where a place among the classes is not known; what scikit-learn calls such rows, too.
UNKNOWN = -1


class Examples(NamedTuple):
    """Utterances to train on.

    Attributes:
        ids: of the utterances.
        labels: of each, what is to be told; "" where it is not known.
        groups: of each, such as its speaker, or None.
        classes: the distinct labels, sorted.
        task: what the labels are called, such as "emotion".
    """

    ids: list[str]
    labels: list[str]
    groups: list[str] | None
    classes: tuple[str, ...]
    task: str

    @property
    def codes(self) -> np.ndarray:
        """`[n]`, the place of each label among the classes; `UNKNOWN` where it is not known."""
        places = {"": UNKNOWN, **{name: place for place, name in enumerate(self.classes)}}
        return np.array([places[label] for label in self.labels])


def read_examples(
    store: Store,
    labels: Column,
    ids: Sequence[str] | None = None,
    groups: Column | None = None,
    task: str | None = None,
    *,
    partly: bool = False,
) -> Examples:
    """The utterances of a store to train on, checked.

    Args:
        store: that has their features.
        labels: a column of `store.table()`, or one label an utterance; whole numbers are taken as their names.
        ids: of the utterances; None for all of the store, in the order of `store.ids`.
        groups: as `labels`, such as speakers; None where there are none.
        task: what the labels are called; None takes the name of the column, or "label".
        partly: whether labels may be missing.

    Raises:
        ParameterError: if an id repeats or is of a recording that failed, a column is not there, lengths differ, a
            label or group is missing, or all labels are alike.
        StoreError: if an id is not in the store.
    """
    keys = store.ids if ids is None else list(ids)
    _check_ids(store, keys)
    told = _read(store, keys, labels, "label")
    units = None if groups is None else _read(store, keys, groups, "group")
    labelled = [(key, label) for key, label in zip(keys, told, strict=True) if label or not partly]
    classes = check_labels([key for key, _ in labelled], [label for _, label in labelled])
    if units is not None and (missing := [key for key, unit in zip(keys, units, strict=True) if not unit]):
        raise ParameterError(
            f"{len(missing)} of {len(keys)} utterances have no group, first {missing[0]!r}; leave such utterances out, "
            "or train without groups"
        )
    return Examples(keys, told, units, classes, task or (labels if isinstance(labels, str) else "label"))


def _check_ids(store: Store, keys: Sequence[str]) -> None:
    if not keys:
        raise ParameterError(f"there is no utterance to train on; {store!r}")
    if (repeated := len(keys) - len(set(keys))) > 0:
        raise ParameterError(f"{repeated} of {len(keys)} ids repeat; give each once")
    absent = [key for key in keys if key not in store]
    failed = {failure["id"]: failure["reason"] for failure in store.errors()} if absent else {}
    if failures := [key for key in absent if key in failed]:
        raise ParameterError(
            f"{len(failures)} of {len(keys)} utterances have no features, for they failed when they were extracted, "
            f"first {failures[0]!r}: {failed[failures[0]]}; leave them out (store.errors() lists them)"
        )
    if absent:
        store.frames(absent[0])  # which says that there is none, and what may have been meant


def _read(store: Store, keys: Sequence[str], column: Column, what: str) -> list[str]:
    if isinstance(column, str):
        table = store.table().set_index("id")
        if column not in table:
            raise ParameterError(f"the store has no column {column!r} of {what}s; it has {', '.join(table.columns)}")
        values = table.loc[list(keys), column].tolist()
    else:
        values = list(column)
    if len(values) != len(keys):
        raise ParameterError(f"{len(keys)} utterances and {len(values)} {what}s; give one {what} for every utterance")
    return [_name(value) for value in values]


def _name(value: Any) -> str:
    """A value as a name; "" where it is missing."""
    if isinstance(value, str):
        return value
    return "" if value is None or pd.isna(value) else str(value)
