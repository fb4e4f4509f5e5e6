"""Which utterances are trained on and which are tested, said in words, and checked for leaks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from speechfeat.corpora.base import Corpus
from speechfeat.errors import ParameterError
from speechfeat.leaks import SPEAKER_COLUMNS, LeakReport, leak_report
from speechfeat.splits import Fold, check_classes, listed_fold, make_folds
from speechfeat.types import Utterance

# Up to so many groups, each is left out in turn.
MOST_LEFT_OUT = 12
WORDS = ("auto", "official", "logo", "group-k", "k")


@dataclass(frozen=True)
class Protocol:
    """How a corpus is divided.

    Attributes:
        about: in words.
        folds: rows to train on and rows to test on.
        groups: of every row, what is not on both sides and what intervals are drawn by; None where there is nothing.
        inner: of every row, by what the training rows are divided once more where a head or a layer is chosen on
            them: as new to each other as training and test are.
    """

    about: str
    folds: list[Fold]
    groups: list[str] | None
    inner: list[str] | None


def make_protocol(
    corpus: Corpus, utterances: Sequence[Utterance], split: str = "auto", *, k: int = 5, seed: int = 0
) -> Protocol:
    """Divide the utterances of a corpus.

    * "official": as those who made the corpus divide it. What they keep for validation is neither trained on nor
      tested.
    * "logo", "group-k", "k": by the group of the corpus, such as the speaker; see `make_folds`.
    * "LABEL=VALUE,VALUE": the utterances with one of these labels are tested, all others trained on.
    * "auto": official where there is such a split; else by group, each left out in turn if there are few (12); else,
      where the group is not known or is what is to be told, "k".

    Args:
        corpus: that says what is to be told, the group and the official splits.
        utterances: of it, that there are features of.
        split: one of the above.
        k: folds, of "group-k" and "k".
        seed: of their shuffling.

    Raises:
        ParameterError: if the corpus cannot be divided so.
    """
    labels = [utterance.labels.get(corpus.label, "") for utterance in utterances]
    groups = None if corpus.group is None else [utterance.labels.get(corpus.group, "") for utterance in utterances]
    word = _resolve(split, corpus, groups)
    if word == "official":
        about, folds = _official(corpus, utterances)
        check_classes(folds, np.array(labels))
        return Protocol(about, folds, groups, groups if _are_apart(folds, groups) else None)
    if "=" in word:
        label, values = _parse(word, utterances)
        column = np.array([utterance.labels.get(label, "") for utterance in utterances])
        is_test = np.isin(column, values)
        folds = [(np.flatnonzero(~is_test), np.flatnonzero(is_test))]
        check_classes(folds, np.array(labels))
        return Protocol(f"tested on {label} {', '.join(values)}, trained on the rest", folds, groups, column.tolist())
    by = None if word == "k" else groups
    folds = make_folds(labels, by, word, k=k, seed=seed)
    return Protocol(_about(word, corpus, len(folds)), folds, by, by)


def check_leaks(
    corpus: Corpus, utterances: Sequence[Utterance], protocol: Protocol, *, allowed: bool = False
) -> list[LeakReport]:
    """What is on both sides of each fold, before anything is trained.

    A recording on both sides is a leak; so is a speaker, unless speakers are what is to be told. Sentences are reported
    only: corpora of acted speech and of keywords share them by design.

    Raises:
        ParameterError: for a leak that is not `allowed`.
    """
    reports = []
    for number, (train, test) in enumerate(protocol.folds):
        report = leak_report(utterances, train, test)
        if corpus.label in SPEAKER_COLUMNS:
            report = replace(report, speakers=None)
        reports.append(report)
        found = [name for name in ("speakers", "recordings") if (leak := getattr(report, name)) and leak.count]
        if found and not allowed:
            raise ParameterError(
                f"fold {number} of {corpus.name!r} ({protocol.about}) has {' and '.join(found)} on both sides, so its "
                f"score would be too high:\n{report.text()}\nMend the split, choose another with --split (logo, "
                "group-k), or go on all the same with --allow-leaks"
            )
    return reports


def _resolve(split: str, corpus: Corpus, groups: Sequence[str] | None) -> str:
    if split in ("logo", "group-k") and groups is None:
        known = sorted({name for utterance in corpus.utterances for name in utterance.labels} - {corpus.label})
        raise ParameterError(
            f"--split {split} needs a group, and {corpus.name!r} has none apart from its label {corpus.label!r}; "
            f"name one with --group ({', '.join(known) or 'it has no other labels'}), or use --split k"
        )
    if split == "official" and corpus.splits is None:
        raise ParameterError(f"{corpus.name!r} has no official split; use {', '.join(WORDS[2:])} or LABEL=VALUE,VALUE")
    if split != "auto":
        if split not in WORDS and "=" not in split:
            raise ParameterError(f"--split {split!r} is not known; use {', '.join(WORDS)} or LABEL=VALUE,VALUE")
        return split
    if corpus.splits is not None:
        return "official"
    if groups is None:
        return "k"
    return "logo" if len(set(groups)) <= MOST_LEFT_OUT else "group-k"


def _about(word: str, corpus: Corpus, count: int) -> str:
    if word == "logo":
        return f"each of {count} left out in turn, by {corpus.group}"
    if word == "group-k":
        return f"{count} folds by {corpus.group}"
    known = "" if corpus.group is None else f", a {corpus.group} on both sides"
    return f"{count} folds of utterances{known}"


def _are_apart(folds: Sequence[Fold], groups: Sequence[str] | None) -> bool:
    if groups is None:
        return False
    names = np.array(groups)
    return not any(np.intersect1d(names[train], names[test]).size for train, test in folds)


def _official(corpus: Corpus, utterances: Sequence[Utterance]) -> tuple[str, list[Fold]]:
    ids = [utterance.id for utterance in utterances]
    there = set(ids)
    splits = {name: [key for key in listed if key in there] for name, listed in (corpus.splits or {}).items()}
    if corpus.folded:
        folds = [listed_fold(ids, test, _others(splits, name)) for name, test in splits.items()]
        return f"the {len(folds)} folds of the corpus, each tested in turn", folds
    if absent := {"train", "test"}.difference(splits):
        raise ParameterError(
            f"the splits of {corpus.name!r} are {', '.join(splits)}; there is no {' and no '.join(sorted(absent))}"
        )
    kept = f"; {len(splits['validation'])} kept for validation are not used" if "validation" in splits else ""
    return f"the split of the corpus{kept}", [listed_fold(ids, splits["test"], splits["train"])]


def _others(splits: dict[str, list[str]], name: str) -> list[str]:
    return [key for other, listed in splits.items() if other != name for key in listed]


def _parse(split: str, utterances: Sequence[Utterance]) -> tuple[str, list[str]]:
    label, _, listed = split.partition("=")
    values = [value.strip() for value in listed.split(",")]
    there = {utterance.labels.get(label, "") for utterance in utterances} - {""}
    if not there:
        known = sorted({name for utterance in utterances for name in utterance.labels})
        raise ParameterError(f"--split {split}: there is no label {label!r}; there are {', '.join(known)}")
    if unknown := [value for value in values if value not in there]:
        raise ParameterError(f"--split {split}: no utterance has {label} {unknown[0]!r}; there are {_few(there)}")
    if not there.difference(values):
        raise ParameterError(f"--split {split} leaves nothing to train on; leave out some of {_few(there)}")
    return label, values


def _few(values: set[str]) -> str:
    listed = sorted(values)
    return ", ".join(listed[:12]) + (" ..." if len(listed) > 12 else "")
