"""Speaker verification before any feature: which speakers are learnt from, and which utterances are compared."""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from speechfeat.corpora.base import Corpus, Trial, refuse
from speechfeat.errors import ParameterError
from speechfeat.types import Utterance

ALL_PAIRS = "all pairs"
# All targets and so many pairs in total at the most: above it, more non-targets change the scores by less than the
# speakers that happen to be tested do, and 200 draws of a bootstrap would take minutes.
MOST_PAIRS = 200_000


@dataclass(frozen=True)
class Trials:
    """Pairs of utterances to compare.

    Attributes:
        name: of the list.
        ids: `[u]`, of the utterances, each once.
        speakers: `[u]`, of the same.
        pairs: `[n, 2]`, rows of `ids`.
    """

    name: str
    ids: list[str] = field(repr=False)
    speakers: np.ndarray = field(repr=False)
    pairs: np.ndarray = field(repr=False)

    @property
    def sides(self) -> tuple[np.ndarray, np.ndarray]:
        """The speakers of each pair, `[n]` and `[n]`."""
        return self.speakers[self.pairs[:, 0]], self.speakers[self.pairs[:, 1]]

    @property
    def num_targets(self) -> int:
        """Pairs of one speaker."""
        first, second = self.sides
        return int((first == second).sum())

    def within(self, known: Collection[str]) -> "Trials":
        """Those of utterances that are known.

        Raises:
            ParameterError: if no target or no non-target is left.
        """
        is_known = np.array([key in known for key in self.ids])
        kept = replace(self, pairs=self.pairs[is_known[self.pairs].all(axis=1)])
        if not 0 < kept.num_targets < len(kept.pairs):
            raise ParameterError(
                f"of the trials {self.name!r} {kept.num_targets} targets and {len(kept.pairs) - kept.num_targets} "
                "non-targets are left, without the recordings that could not be read; both are needed"
            )
        return kept


@dataclass(frozen=True)
class VerificationPlan:
    """Speakers to learn from, and trials of others.

    Attributes:
        about: in words.
        speaker: the label that holds the speaker.
        train: utterances of the speakers that are learnt from.
        test: utterances that are in a trial.
        trials: lists of them.
    """

    about: str
    speaker: str
    train: list[Utterance] = field(repr=False)
    test: list[Utterance] = field(repr=False)
    trials: list[Trials]


def plan_verification(
    corpus: Corpus,
    *,
    lists: Sequence[str] | None = None,
    test_speakers: Collection[str] | None = None,
    test_share: float = 0.5,
    train_speakers: int | None = None,
    train_most: int = 20,
    most: int = 5,
    seed: int = 0,
) -> VerificationPlan:
    """Divide the speakers of a corpus, whose label is the speaker, and pair the utterances of those to test.

    Where the corpus has official trials they are taken, and all speakers learnt from that its split trains on (without
    one, that are in no trial). Elsewhere the speakers to test are those given, or a share of all, drawn at random; all
    pairs of their utterances are trials, at most 200,000 with all the targets.

    Args:
        corpus: from `open_corpus`; utterances without a speaker are left out.
        lists: of the official trials, such as ["O"]; None for the first.
        test_speakers: to be tested, in place of official trials; all others are learnt from.
        test_share: of the speakers.
        train_speakers: the most speakers to learn from, drawn at random; None for all.
        train_most: utterances of each of them that are learnt from, the first ones.
        most: utterances of a speaker that are paired, the first ones; not in official trials.
        seed: of what is drawn.

    Raises:
        ParameterError: if a list or every speaker given is unknown, or there are too few speakers or clips to learn or
            to compare.
    """
    known = [utterance for utterance in corpus.utterances if utterance.labels.get(corpus.label)]
    rng = np.random.default_rng(seed)
    if corpus.trials is not None and test_speakers is None:
        trials, train, about = _official(corpus, corpus.trials, known, lists)
    elif lists is not None:
        raise ParameterError(f"the trials {', '.join(lists)} were asked for, and {corpus.name!r} has none of its own")
    else:
        tested, about = _choose_tested(corpus, known, test_speakers, test_share, rng)
        test = [utterance for utterance in known if utterance.labels[corpus.label] in tested]
        train = [utterance for utterance in known if utterance.labels[corpus.label] not in tested]
        trials = [
            make_trials([one.id for one in test], [one.labels[corpus.label] for one in test], most=most, seed=seed)
        ]
    train, drawn = _draw_speakers(train, corpus.label, train_speakers, rng)
    kept = first_of_each([utterance.labels[corpus.label] for utterance in train], train_most)
    train = [utterance for utterance, is_kept in zip(train, kept, strict=True) if is_kept]
    unknown = len(corpus.utterances) - len(known)
    notes = [about, drawn, f"{unknown} utterances without a speaker are left out" if unknown else ""]
    paired = {trials_.ids[row] for trials_ in trials for row in np.unique(trials_.pairs)}
    return VerificationPlan(
        "; ".join(note for note in notes if note),
        corpus.label,
        train,
        [utterance for utterance in known if utterance.id in paired],
        trials,
    )


def make_trials(
    ids: Sequence[str], speakers: Sequence[str], *, most: int = 5, limit: int = MOST_PAIRS, seed: int = 0
) -> Trials:
    """All pairs of utterances; of more than `limit` all targets, and non-targets drawn at random.

    Args:
        ids: of the utterances.
        speakers: of the same.
        most: utterances of a speaker that are paired, the first ones.
        limit: pairs in total.
        seed: of the drawing.

    Raises:
        ParameterError: if `most` is below 2, there is one speaker only, or none has two utterances.
    """
    if most < 2:
        raise ParameterError(f"most={most} utterances of a speaker give no pair of one speaker; give 2 or more")
    is_kept = first_of_each(speakers, most)
    names, codes = np.unique(np.asarray(speakers)[is_kept], return_inverse=True)
    if len(names) < 2 or np.bincount(codes).max() < 2:
        raise ParameterError(
            f"{len(codes)} utterances of {len(names)} speakers cannot be compared; verification needs two speakers or "
            "more to test, and one of them with two utterances"
        )
    kept = [ids[row] for row in np.flatnonzero(is_kept).tolist()]
    return Trials(ALL_PAIRS, kept, names[codes], _pairs(codes, limit, np.random.default_rng(seed)))


def first_of_each(speakers: Sequence[str], most: int) -> np.ndarray:
    """Whether an utterance is among the first `most` of its speaker, `[n]`."""
    return pd.Series(list(speakers)).groupby(list(speakers)).cumcount().to_numpy() < most


def _pairs(codes: np.ndarray, limit: int, rng: np.random.Generator) -> np.ndarray:
    count = len(codes)
    if count * (count - 1) // 2 <= limit:
        return np.column_stack(np.triu_indices(count, k=1))
    groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    targets = np.concatenate([rows[np.column_stack(np.triu_indices(len(rows), k=1))] for rows in groups])
    # Twice what is missing, for some are of one speaker and some come twice.
    drawn = np.sort(rng.integers(count, size=(2 * max(limit - len(targets), 1), 2)), axis=1)
    others = np.unique(drawn[codes[drawn[:, 0]] != codes[drawn[:, 1]]], axis=0)
    return np.concatenate([targets, rng.permutation(others)[: max(limit - len(targets), 1)]])


def read_speakers(file: str | os.PathLike[str], column: str = "speaker") -> list[str]:
    """Speakers in a column of a CSV or TSV file, or one a line of another; each once.

    Raises:
        ParameterError: if the file cannot be read, has no such column, or names no speaker.
    """
    path = Path(file)
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    try:
        if separator is None:
            found = path.read_text(encoding="utf-8-sig").splitlines()
        else:
            quoting = 0 if separator == "," else 3  # tabs are never quoted, as in manifests
            table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, quoting=quoting)
            if column not in table:
                raise ParameterError(
                    f"{str(path)!r} has no column {column!r}; it has: {', '.join(map(str, table.columns))}"
                )
            found = table[column].tolist()
    except (OSError, UnicodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ParameterError(f"the speakers in {str(path)!r} cannot be read: {error}") from error
    speakers = list(dict.fromkeys(name.strip() for name in found if name.strip()))
    if not speakers:
        raise ParameterError(f"{str(path)!r} names no speaker")
    return speakers


def _official(
    corpus: Corpus, there: Mapping[str, Sequence[Trial]], known: list[Utterance], lists: Sequence[str] | None
) -> tuple[list[Trials], list[Utterance], str]:
    wanted = list(there)[:1] if lists is None else list(lists)
    if unknown := [name for name in wanted if name not in there]:
        raise ParameterError(f"{corpus.name!r} has no trials {unknown[0]!r}; it has {', '.join(there)}")
    speakers = {utterance.id: utterance.labels[corpus.label] for utterance in known}
    trials = [_listed(name, there[name], speakers) for name in wanted]
    tested = {speaker for one in trials for speaker in one.speakers}
    listed = set((corpus.splits or {}).get("train", ()))
    train = [one for one in known if (one.id in listed if listed else one.labels[corpus.label] not in tested)]
    return trials, train, f"the official trials {', '.join(wanted)}"


def _listed(name: str, trials: Sequence[Trial], speakers: Mapping[str, str]) -> Trials:
    ids = list(dict.fromkeys(key for trial in trials for key in (trial.enrol, trial.test)))
    rows = {key: row for row, key in enumerate(ids)}
    pairs = np.array([(rows[trial.enrol], rows[trial.test]) for trial in trials])
    found = Trials(name, ids, np.array([speakers[key] for key in ids]), pairs)
    first, second = found.sides
    wrong = [trial for trial, is_one in zip(trials, first == second, strict=True) if trial.target != is_one]
    refuse(
        (f"{trial.enrol} {trial.test}" for trial in wrong),
        f"of {len(trials)} trials {name!r} do not agree with the speakers of their utterances",
        "mend the list or the labels",
    )
    return found


def _choose_tested(
    corpus: Corpus,
    known: Sequence[Utterance],
    given: Collection[str] | None,
    share: float,
    rng: np.random.Generator,
) -> tuple[set[str], str]:
    counts = Counter(utterance.labels[corpus.label] for utterance in known)
    if len(counts) < 2:
        raise ParameterError(
            f"all of {len(known)} utterances of {corpus.name!r} are of one speaker, {next(iter(counts), '')!r}; "
            "verification needs several"
        )
    if max(counts.values()) < 2:
        raise ParameterError(
            f"none of the {len(counts)} speakers of {corpus.name!r} has two utterances, so none can be compared with "
            "itself; is the label of the speaker the right one (--label)?"
        )
    if given is None:
        tested = _draw_tested(counts, share, rng)
        about = f"{len(tested)} of {len(counts)} speakers, drawn at random, are tested"
    else:
        tested = set(given) & set(counts)
        if not tested:
            raise ParameterError(
                f"none of the {len(given)} speakers to test, first {next(iter(given))!r}, is in {corpus.name!r}, which "
                f"has speakers such as {next(iter(counts))!r}"
            )
        absent = f" ({len(set(given)) - len(tested)} more that are listed have no utterance here)"
        about = f"the {len(tested)} speakers listed are tested{absent if len(tested) < len(set(given)) else ''}"
    return tested, about


def _draw_tested(counts: Mapping[str, int], share: float, rng: np.random.Generator) -> set[str]:
    """A share of the speakers with one utterance, and of those with more, who alone give targets."""
    if not 0 < share < 1:
        raise ParameterError(f"test_share={share} of the speakers must be between 0 and 1")
    drawn: set[str] = set()
    for has_more in (True, False):
        names = sorted(name for name, count in counts.items() if (count > 1) == has_more)
        drawn.update(rng.permutation(names)[: max(int(has_more), round(share * len(names)))].tolist())
    return drawn


def _draw_speakers(
    train: list[Utterance], label: str, num: int | None, rng: np.random.Generator
) -> tuple[list[Utterance], str]:
    names = sorted({utterance.labels[label] for utterance in train})
    if min(len(names), len(names) if num is None else num) < 2:
        raise ParameterError(
            f"{len(names)} speakers are left to learn from"
            + ("" if num is None else f", of which {num} are wanted")
            + "; two or more are needed: test fewer, or other trials"
        )
    if num is None or num >= len(names):
        return train, ""
    drawn = set(rng.permutation(names)[:num].tolist())
    note = f"{num} of {len(names)} others, drawn at random, are learnt from"
    return [utterance for utterance in train if utterance.labels[label] in drawn], note
