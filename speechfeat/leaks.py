"""What is on both sides of a split and should not be: speakers, recordings, sentences."""

import hashlib
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from speechfeat.errors import ParameterError
from speechfeat.types import Utterance

# Columns that are looked for where none is named: ours and Kaldi's, then those of Hugging Face, Common Voice, EmoBox.
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "spk")
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription")

MOST_EXAMPLES = 3


@dataclass(frozen=True)
class Leak:
    """What of one kind is on both sides.

    Attributes:
        count: distinct speakers, recordings or sentences on both sides.
        train: utterances to train on that have one of them.
        test: utterances to test on that have one of them.
        unknown: utterances, of either side, of which it is not known: no label, or a file that cannot be read.
        examples: of up to three: what is shared, the id of an utterance to train on and of one to test on.
    """

    count: int
    train: int
    test: int
    unknown: int
    examples: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class LeakReport:
    """What a split has on both sides; `dataclasses.asdict` of it can be written as JSON.

    Attributes:
        num_train: utterances to train on.
        num_test: utterances to test on.
        speakers: on both sides; None where there is no such column.
        recordings: on both sides: one file, or files of the same bytes, whatever segments of them are used.
        sentences: on both sides, whatever their case and punctuation; None where there is no such column. Corpora of
            acted speech share them by design.
    """

    num_train: int
    num_test: int
    speakers: Leak | None
    recordings: Leak
    sentences: Leak | None

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found on both sides, of what could be checked."""
        return all(leak is None or not leak.count for leak in (self.speakers, self.recordings, self.sentences))

    def text(self) -> str:
        """A line a kind, and the examples."""
        lines = [f"{self.num_train} utterances to train on, {self.num_test} to test on"]
        for name in ("speakers", "recordings", "sentences"):
            lines += _lines(name, getattr(self, name), self.num_test)
        return "\n".join(lines)


def leak_report(
    rows: Sequence[Utterance] | pd.DataFrame,
    train: ArrayLike,
    test: ArrayLike,
    *,
    speaker: str | None = None,
    text: str | None = None,
    num_workers: int = 8,
) -> LeakReport:
    """Find speakers, recordings and sentences that are on both sides of a split.

    Recordings are compared by the bytes of their files. Only a file with the size of one on the other side is read,
    in threads, and once as long as it does not change.

    Args:
        rows: utterances, or a table with id, path and labels as `Store.table` gives it.
        train: rows to train on, counted from 0.
        test: rows to test on.
        speaker: label, or column, that holds it; None for the first there is of `SPEAKER_COLUMNS`.
        text: likewise, of `TEXT_COLUMNS`.
        num_workers: threads that read files.

    Raises:
        ParameterError: if a side is empty, a row does not exist, or a column that was named does not.

    Example:
        report = leak_report(utterances, *folds[0])
        assert report.is_clean, report.text()
    """
    table = _as_table(rows)
    sides = _side("train", train, len(table)), _side("test", test, len(table))
    speakers = _column(table, "speaker", speaker, SPEAKER_COLUMNS)
    sentences = _column(table, "text", text, TEXT_COLUMNS)
    return LeakReport(
        num_train=len(sides[0]),
        num_test=len(sides[1]),
        speakers=None if speakers is None else _compare(table, sides, speakers.map(_name), speakers),
        recordings=_compare(table, sides, _contents(table, sides, num_workers), table["path"]),
        sentences=None if sentences is None else _compare(table, sides, sentences.map(plain_text), sentences),
    )


def plain_text(text: object) -> str | None:
    """A sentence in lower case, without punctuation and apostrophes, one space between words; None if none is left.

    Example:
        >>> plain_text("It's  ELEVEN o'clock.")
        'its eleven oclock'
    """
    if not isinstance(text, str):
        return None
    folded = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("\u2019", "")
    # By category, for vowel signs of Indic scripts are no letters to `str.isalnum`.
    kept = (char if unicodedata.category(char)[0] in "LMN" else " " for char in folded)
    return " ".join("".join(kept).split()) or None


def _as_table(rows: Sequence[Utterance] | pd.DataFrame) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        if absent := {"id", "path"}.difference(rows.columns):
            raise ParameterError(f"the table has no column {' and '.join(sorted(absent))}; it needs id and path")
        return rows.reset_index(drop=True)
    return pd.DataFrame([{**row.labels, "id": row.id, "path": row.path} for row in rows], dtype=object)


def _side(name: str, rows: ArrayLike, count: int) -> np.ndarray:
    chosen = np.asarray(rows)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise ParameterError(f"{name} has the shape {chosen.shape} and type {chosen.dtype}; give row numbers")
    if chosen.min() < 0 or chosen.max() >= count:
        raise ParameterError(f"{name} has rows from {chosen.min()} to {chosen.max()}; there are {count}, from 0")
    return np.unique(chosen)


def _column(table: pd.DataFrame, what: str, named: str | None, usual: Sequence[str]) -> pd.Series | None:
    if named is not None and named not in table.columns:
        raise ParameterError(
            f"{what}={named!r} is no label of the rows; they have {', '.join(map(str, table.columns))}"
        )
    found = named or next((name for name in usual if name in table.columns), None)
    return None if found is None else table[found]


def _name(value: object) -> str | None:
    return None if pd.isna(value) or value == "" else str(value)


def _compare(table: pd.DataFrame, sides: tuple[np.ndarray, np.ndarray], keys: pd.Series, shown: pd.Series) -> Leak:
    """What of `keys`, one a row and None where unknown, is on both sides."""
    train, test = (keys.iloc[side].dropna() for side in sides)
    common = sorted(set(train) & set(test))
    firsts = {key: (train.index[train == key][0], test.index[test == key][0]) for key in common[:MOST_EXAMPLES]}
    return Leak(
        count=len(common),
        train=int(train.isin(common).sum()),
        test=int(test.isin(common).sum()),
        unknown=sum(map(len, sides)) - len(train) - len(test),
        examples=tuple((str(shown[two]), str(table["id"][one]), str(table["id"][two])) for one, two in firsts.values()),
    )


def _contents(table: pd.DataFrame, sides: tuple[np.ndarray, np.ndarray], num_workers: int) -> pd.Series:
    """What tells a recording from others, a row: the digest of its file, its path where no other has its size.

    Unknown where the file cannot be read, unless its path is on both sides.
    """
    train, test = (set(table["path"].iloc[side]) for side in sides)
    states = {path: _state(path) for path in train | test}
    sizes = [{state[0] for path in side if (state := states[path])} for side in (train, test)]
    doubtful = {path: state for path, state in states.items() if state and state[0] in sizes[0] & sizes[1]}
    keys: dict[str, str | None] = {path: path if states[path] or path in train & test else None for path in states}
    with ThreadPoolExecutor(num_workers) as pool:
        for path, digest in zip(doubtful, pool.map(_try_digest, doubtful, doubtful.values()), strict=True):
            keys[path] = digest or (path if path in train & test else None)
    return table["path"].map(keys)


def _state(path: str) -> tuple[int, int] | None:
    """Size and time of change; None if there is no such file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return status.st_size, status.st_mtime_ns


def _try_digest(path: str, state: tuple[int, int]) -> str | None:
    try:
        return _digest(path, *state)
    except OSError:
        return None


@lru_cache(maxsize=1 << 20)
def _digest(path: str, size: int, modified: int) -> str:
    """Of the bytes of a file; size and time of change tell one that was replaced from the one that is known."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _lines(name: str, leak: Leak | None, num_test: int) -> list[str]:
    if leak is None:
        return [f"{name}: not checked, there is no such column"]
    unknown = f"; unknown for {leak.unknown} utterances" if leak.unknown else ""
    if not leak.count:
        return [f"{name}: none on both sides{unknown}"]
    share = f"{leak.test} of {num_test} utterances to test on have one that {leak.train} to train on have"
    examples = [f"  {what!r}: train {one!r}, test {other!r}" for what, one, other in leak.examples]
    return [f"{name}: {leak.count} on both sides: {share}{unknown}", *examples]
