"""A corpus with its labels and splits, and what its readers share: finding files, reading names, refusing surprises."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from speechfeat.corpus import discover
from speechfeat.errors import ParameterError
from speechfeat.types import Utterance


class Trial(NamedTuple):
    """A pair of utterances to compare, by their ids; a target if both are of one speaker."""

    target: bool
    enrol: str
    test: str


@dataclass(frozen=True)
class Corpus:
    """Utterances with labels, and how those who made them divide them.

    Attributes:
        name: as in `CORPORA`, or of the directory or file where it is a corpus of any make.
        utterances: with labels such as keyword, emotion, speaker, gender, sentence (which of a fixed list is said)
            or text (a transcript).
        label: what is to be told, the name of a label that every utterance has.
        group: the label that no training and test set should share, such as "speaker"; None where there is none, or
            where it is the label itself.
        splits: ids by the name of their split: "train", "validation" and "test" as far as there are such, or folds if
            `folded`; None where there is no split to follow.
        folded: each split is tested on in turn, after training on the others.
        trials: named lists of verification trials, or None.
        note: what a user should know.
    """

    name: str
    utterances: Sequence[Utterance] = field(repr=False)
    label: str
    group: str | None = None
    splits: Mapping[str, Sequence[str]] | None = field(default=None, repr=False)
    folded: bool = False
    trials: Mapping[str, Sequence[Trial]] | None = field(default=None, repr=False)
    note: str = ""

    def values(self, label: str | None = None) -> list[str]:
        """A label of every utterance, in their order; "" where it is not known.

        Args:
            label: its name; None is the one to be told.

        Raises:
            ParameterError: if no utterance has it.
        """
        wanted = self.label if label is None else label
        found = [utterance.labels.get(wanted, "") for utterance in self.utterances]
        if not any(found):
            known = sorted({name for utterance in self.utterances for name, value in utterance.labels.items() if value})
            raise ParameterError(
                f"no utterance of {self.name!r} has a label {wanted!r}; it has: {', '.join(known) or 'none'}"
            )
        return found


def find_folder(root: Path, corpus: str, file: str, places: Iterable[str] = ()) -> Path:
    """The first of a directory and `places` in it that holds `file` (a file or a directory).

    Raises:
        ParameterError: if none does.
    """
    wanted = [PurePosixPath(place) / file for place in ("", *places)]
    for name in wanted:
        if (root / name).exists():
            return (root / name).parents[len(PurePosixPath(file).parts) - 1]
    looked = ", ".join(map(str, wanted))
    raise ParameterError(f"{str(root)!r} is not {corpus}: looked for {looked}; give the directory it was unpacked into")


def recordings(root: Path, folder: Path) -> list[Utterance]:
    """Every recording in a directory and below, with its path relative to `root` as its id."""
    prefix = "".join(f"{part}/" for part in folder.relative_to(root).parts)
    return [replace(utterance, id=prefix + utterance.id) for utterance in discover(folder)]


def stem(utterance: Utterance) -> str:
    """The name of a recording, without folder and suffix."""
    return PurePosixPath(utterance.id).stem


def match_names(
    utterances: Sequence[Utterance], scheme: re.Pattern[str], corpus: str, example: str
) -> list[tuple[Utterance, re.Match[str]]]:
    """Utterances whose names, without folder and suffix, all follow a scheme, each name once.

    Raises:
        ParameterError: if a name does not follow it, or two recordings have the same.
    """
    pairs = [(utterance, scheme.fullmatch(stem(utterance))) for utterance in utterances]
    strange = [utterance.id for utterance, match in pairs if match is None]
    refuse(
        strange,
        f"of {len(pairs)} recordings are not named as those of {corpus} are ({example})",
        "give the directory of the corpus alone",
    )
    first: dict[str, str] = {}
    twice = [one.id for one in utterances if first.setdefault(stem(one), one.id) != one.id]
    refuse(twice, f"of {len(pairs)} recordings of {corpus} have the name of another", "keep one copy of the corpus")
    return [(utterance, match) for utterance, match in pairs if match]


def refuse(found: Iterable[str], what: str, cure: str) -> None:
    """Refuse a corpus in which something was found that should not be: how many, the first, and the cure.

    Args:
        found: names; nothing is done if there are none.
        what: said after their number.
        cure: what to do.
    """
    names = list(found)
    if names:
        raise ParameterError(f"{len(names)} {what}, first {names[0]!r}; {cure}")


def read_cells(file: Path, delimiter: str) -> list[dict[str, str]]:
    """Rows of a table about speakers, by column; none if there is no such file."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        return [
            {name: value or "" for name, value in row.items()} for row in csv.DictReader(lines, delimiter=delimiter)
        ]


def split_by(utterances: Sequence[Utterance], label: str) -> dict[str, list[str]]:
    """Ids by the value of a label, in the order of the values."""
    found: dict[str, list[str]] = {}
    for utterance in utterances:
        found.setdefault(utterance.labels[label], []).append(utterance.id)
    return dict(sorted(found.items()))
