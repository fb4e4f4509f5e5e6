"""Corpora of any make: a folder a label, or a manifest with columns of labels."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from speechfeat.corpora.base import Corpus, recordings, refuse, split_by
from speechfeat.corpus import discover
from speechfeat.errors import ParameterError
from speechfeat.types import Utterance

# What manifests call the splits.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def read_folders(root: Path, label: str = "label") -> Corpus:
    """A folder a label: the first folder below the root is the label of all recordings in it and below.

    Args:
        root: of the folders.
        label: what to call the label.
    """
    found = recordings(root, root)
    loose = [utterance.id for utterance in found if "/" not in utterance.id]
    refuse(
        loose, f"of {len(found)} recordings are in no folder of {str(root)!r}, so have no label", "move or remove them"
    )
    utterances = [replace(utterance, labels={label: utterance.id.split("/")[0]}) for utterance in found]
    note = "Who speaks is not known: a split may not keep speakers apart."
    return Corpus(root.resolve().name, utterances, label, note=note)


def read_columns(
    source: str | os.PathLike[str],
    label: str | None,
    group: str | None = None,
    split: str | None = None,
    where: Mapping[str, Collection[str]] | None = None,
) -> Corpus:
    """A manifest, see `corpus.discover`, with the names of its columns.

    Args:
        source: of the utterances.
        label: column of what is to be told.
        group: column of what no training and test set should share.
        split: column of the split of an utterance: train, validation (valid, val, dev) and test, or other names for
            folds; an utterance with an empty cell is in none.
        where: column -> its values in the lines that are taken; none for any that is not empty.
    """
    utterances, name = discover(source), repr(os.fsdecode(source))
    columns = dict.fromkeys(column for utterance in utterances for column in utterance.labels)
    listed = ", ".join(columns) or "none"
    for wanted, values in (where or {}).items():
        if wanted not in columns:
            raise ParameterError(f"{name} has no column {wanted!r}; it has: {listed}")
        utterances = [one for one in utterances if _is_wanted(one.labels.get(wanted, ""), values)]
        if not utterances:
            said = f" of {', '.join(values)}" if values else ""
            raise ParameterError(f"no line of {name} has a {wanted}{said} and what else is asked for")
    if label is None:
        raise ParameterError(f"{name} needs label=, one of its columns: {listed}")
    for role, column in (("label", label), ("group", group), ("split", split)):
        if column is not None and column not in columns:
            raise ParameterError(f"{name} has no column {role}={column!r}; it has: {listed}")
    for column in (label, group):
        empty = [one.id for one in utterances if column is not None and not one.labels.get(column)]
        refuse(empty, f"of {len(utterances)} utterances of {name} have no {column!r}", "fill or drop those lines")
    missing = [utterance.path for utterance in utterances if not Path(utterance.path).exists()]
    refuse(missing, f"of {len(utterances)} recordings in {name} are missing", "restore them or drop those lines")
    splits = None if split is None else _splits(utterances, split)
    folded = splits is not None and not {"train", "test"} & set(splits)
    return Corpus(Path(os.fsdecode(source)).name, utterances, label, group, splits, folded)


def _is_wanted(cell: str, values: Collection[str]) -> bool:
    return cell in values if values else bool(cell)


def _splits(utterances: Sequence[Utterance], column: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, ids in split_by([one for one in utterances if one.labels.get(column)], column).items():
        found.setdefault(_SPLITS.get(name.lower(), name), []).extend(ids)
    return found
