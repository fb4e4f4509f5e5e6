"""Keywords in long recordings: a head asked about windows that slide over stored frames, the best of them kept.

found = detect(head, store, threshold=0.5)   # id, label, probability, start, end
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import groupby
from typing import Any, Self

import numpy as np
import pandas as pd

from speechfeat.errors import ModelError, ParameterError
from speechfeat.heads.base import Head
from speechfeat.heads.pooled import PooledHead
from speechfeat.store import Store
from speechfeat.windows import Slider

# Of a detecting head: the class of all that is no keyword.
BACKGROUND = "_background_"

COLUMNS = {"id": object, "label": object, "probability": float, "start": float, "end": float}


@dataclass(frozen=True)
class Listening:
    """How a head listens to long recordings; kept in `head.record.options["detection"]`.

    Attributes:
        windows: their lengths in seconds; a word is found in the one that fits it best.
        hop: seconds from one window to the next, at least a frame.
        background: the class of all that is no keyword; None if the head has none.
        threshold: probability from which on a keyword is reported.
        overlap: of two windows, the share of the shorter that both may have in common and still be two words.
    """

    windows: tuple[float, ...]
    hop: float = 0.04
    background: str | None = BACKGROUND
    threshold: float = 0.5
    overlap: float = 0.3

    def __post_init__(self) -> None:
        if not self.windows or not all(0 < window < np.inf for window in self.windows):
            raise ParameterError(f"windows={self.windows} must be seconds above 0, one or more")
        if not 0 < self.hop < np.inf:
            raise ParameterError(f"hop={self.hop} must be above 0 seconds")
        for name in ("threshold", "overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"{name}={getattr(self, name)} must be from 0 to 1")

    @classmethod
    def of(cls, head: Head) -> Self | None:
        """How a head was made to listen; None if it was not.

        Raises:
            ModelError: if what the head says of it is damaged.
        """
        kept = head.record.options.get("detection")
        if kept is None:
            return None
        try:
            return cls(**{**kept, "windows": tuple(kept["windows"])})
        except (KeyError, TypeError, ParameterError) as error:
            raise ModelError(
                f"this head is damaged: how it listens is not to be read ({type(error).__name__}: {error}); "
                "train it again"
            ) from error

    def describe(self) -> dict[str, Any]:
        """As JSON values, for a record."""
        return {**asdict(self), "windows": list(self.windows)}

    def keep(self, head: Head) -> None:
        """Make this how a head listens, to be saved with it."""
        head.record = replace(head.record, options={**head.record.options, "detection": self.describe()})


def detect(
    head: Head, store: Store, ids: Sequence[str] | None = None, *, threshold: float | None = None, **listening: Any
) -> pd.DataFrame:
    """Where in long recordings a head hears its keywords.

    The head is asked about windows of several lengths at every hop. For each keyword and length, a peak of its
    probability over time that reaches the threshold is a candidate; of candidates that overlap, whatever their
    keyword, the likeliest stays, and its window is the span of the word (non-maximum suppression). As only likelier
    ones can drop a candidate, what is found at a threshold is what is found at a lower one and lies above it:
    `threshold=0` gives all that `match_detections` needs for a whole curve.

    Memory holds the frames of one recording in float32 (3 hours of `conformer-s`: 210 MB a layer) and the
    probabilities of its windows; windows are pooled some thousands at a time.

    Args:
        head: on embeddings pooled by mean, std, mean+std or max, that tells keywords.
        store: with the frames of its encoder.
        ids: of the recordings; None for all.
        threshold: instead of the head's own.
        listening: fields of `Listening`, instead of the head's own; a head without any needs `windows`, and
            `background` if it has such a class.

    Returns:
        A row a detection, by recording and time: id, label, probability, start and end in seconds of the recording.

    Raises:
        ParameterError: if the head cannot listen, an option is out of range, or the features are not those it takes.
        StoreError: if an id is not in the store.
    """
    if not isinstance(head, PooledHead):
        raise ParameterError(f"a {head.record.kind!r} head does not slide; detect with a head on pooled embeddings")
    given = listening if threshold is None else {**listening, "threshold": threshold}
    how = _listening(head, given)
    slider = Slider(store, head.record.binding, how.windows, how.hop)
    tables = [_detect(head, how, slider, key) for key in (store.ids if ids is None else ids)]
    return pd.concat(
        [pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()}), *tables], ignore_index=True
    )


def _listening(head: PooledHead, given: Mapping[str, Any]) -> Listening:
    if unknown := sorted(set(given) - {field.name for field in fields(Listening)}):
        raise ParameterError(f"{unknown[0]!r} is no option; use {', '.join(field.name for field in fields(Listening))}")
    own = Listening.of(head)
    if own is None and "windows" not in given:
        raise ParameterError(
            f"this {head.record.kind!r} head for {head.record.task!r} was not made to listen to long recordings; give "
            "windows=, the seconds that a word may take, such as (0.3, 0.45, 0.6), or use a head of train_detector"
        )
    how = Listening(**{"background": None, **given}) if own is None else replace(own, **given)
    if how.background is not None and how.background not in head.classes:
        raise ParameterError(f"background={how.background!r} is none of the classes {', '.join(head.classes)}")
    return how


def _detect(head: PooledHead, how: Listening, slider: Slider, key: str) -> pd.DataFrame:
    is_keyword = [name != how.background for name in head.classes]
    keywords = np.array(head.classes, dtype=object)[is_keyword]
    candidates = []
    for _, group in groupby(slider.slide(key), lambda piece: piece.length):
        # Embeddings of hours do not fit: each piece is asked about and let go.
        answers = [(head.answer(piece.embeddings)[:, is_keyword], piece.starts, piece.ends) for piece in group]
        shares, starts, ends = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        candidates.append(_peaks(shares, starts, ends, how.threshold))
    labels, scores, starts, ends = map(np.concatenate, zip(*candidates, strict=True))
    kept = np.array(_likeliest(scores, starts, ends, how.overlap), int)
    kept = kept[np.argsort(starts[kept])]
    return pd.DataFrame(
        {
            "id": key,
            "label": keywords[labels[kept]],
            "probability": scores[kept],
            "start": starts[kept],
            "end": ends[kept],
        }
    )


def _peaks(probabilities: np.ndarray, starts: np.ndarray, ends: np.ndarray, threshold: float) -> tuple[np.ndarray, ...]:
    """Label, probability, start and end of every peak over time of `[n, C]`, the first of equals."""
    edge = np.full((1, probabilities.shape[1]), -np.inf)
    rises = probabilities > np.concatenate([edge, probabilities[:-1]])
    falls = probabilities >= np.concatenate([probabilities[1:], edge])
    rows, labels = np.nonzero(rises & falls & (probabilities >= threshold))
    return labels, probabilities[rows, labels], starts[rows], ends[rows]


def _likeliest(scores: np.ndarray, starts: np.ndarray, ends: np.ndarray, overlap: float) -> list[int]:
    """Spans kept, from the highest score down: those that share at most `overlap` of the shorter with any before."""
    longest = float((ends - starts).max(initial=0.0))
    kept: list[int] = []
    by_start: list[tuple[float, float]] = []
    for index in np.lexsort((starts, -scores)).tolist():
        start, end = float(starts[index]), float(ends[index])
        near = by_start[bisect_left(by_start, (start - longest,)) : bisect_left(by_start, (end,))]
        if all(min(end, e) - max(start, s) <= overlap * min(end - start, e - s) for s, e in near):
            insort(by_start, (start, end))
            kept.append(index)
    return kept
