"""How well speech is found by text and text by speech, of speakers and sentences that nothing was learnt from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold

from speechfeat.errors import ParameterError
from speechfeat.experiments.features import CorpusFeatures
from speechfeat.experiments.words import RECORDING
from speechfeat.leaks import plain_text
from speechfeat.matching import MatchConfig, Matcher, Pairs, recall, retrieval_ranks, train_matcher
from speechfeat.metrics import bootstrap_interval
from speechfeat.probing import LayerScore

# Of the training speakers, one in so many is kept to choose the epoch by.
VALIDATION = 6


@dataclass(frozen=True)
class MatchData:
    """Recordings, and words and phrases of them, with embeddings of what is heard and of what is written.

    Attributes:
        pairs: of every row.
        ids: of every row.
        speakers: of every row.
        sentences: of every row: the whole transcript that it is of.
        is_whole: whether a row is a whole recording.
    """

    pairs: Pairs
    ids: np.ndarray
    speakers: np.ndarray
    sentences: np.ndarray
    is_whole: np.ndarray

    @classmethod
    def of(cls, speech: CorpusFeatures, text: CorpusFeatures, group: str = "speaker") -> "MatchData":
        """Of the features that `word_features` gave and those of their texts, joined by id.

        Args:
            speech: of recordings, words and phrases; several layers are laid side by side.
            text: of the same utterances.
            group: the label of the speaker.

        Raises:
            ParameterError: if they have no utterance in common.
        """
        both = [one for one in speech.utterances if one.id in text.store]
        if not both:
            raise ParameterError("speech and text have no utterance in common; extract both from one corpus")
        ids = [one.id for one in both]
        said = {one.id: _name(one.labels["text"]) for one in both}
        values = [part.store.embeddings(ids)[1].reshape(len(ids), -1) for part in (speech, text)]
        wholes = [one.labels[RECORDING] for one in both]
        return cls(
            Pairs(values[0], values[1], [said[key] for key in ids]),
            np.array(ids),
            np.array([one.labels.get(group, "") for one in both]),
            np.array([said.get(whole, whole) for whole in wholes]),
            np.array([key == whole for key, whole in zip(ids, wholes, strict=True)]),
        )

    def take(self, rows: np.ndarray) -> Pairs:
        """Pairs of some rows."""
        return Pairs(self.pairs.speech[rows], self.pairs.text[rows], [self.pairs.names[row] for row in rows])

    def train(self, rows: np.ndarray, config: MatchConfig | None = None, seed: int = 0) -> Matcher:
        """A matcher of some rows, a part of whose speakers choose the epoch by their whole recordings.

        Raises:
            ParameterError: if there are too few speakers or sentences.
        """
        names = np.random.default_rng(seed).permutation(np.unique(self.speakers[rows]))
        kept = np.isin(self.speakers[rows], names[: max(1, len(names) // VALIDATION)])
        validation = rows[kept & self.is_whole[rows]]
        shared = np.isin(self.sentences[rows], self.sentences[validation])
        return train_matcher(self.take(rows[~kept & ~shared]), self.take(validation), config)


class Retrieval(NamedTuple):
    """Where each whole recording's own sentence was found, and where the recording was found by its sentence.

    Attributes:
        rows: `[n]` of the data, of the recordings tested.
        speech_to_text: `[n]` ranks, 1 for found first.
        text_to_speech: `[n]` ranks.
        speakers: `[n]`.
        galleries: sentences that each fold was looked through for.
    """

    rows: np.ndarray
    speech_to_text: np.ndarray
    text_to_speech: np.ndarray
    speakers: np.ndarray
    galleries: list[int]

    def recall(self, k: int, direction: str, chosen: np.ndarray | None = None) -> LayerScore:
        """R@k, with its 95 % interval by a bootstrap over speakers.

        Args:
            k: how many of the first.
            direction: "speech_to_text" or "text_to_speech".
            chosen: `[n]`, which of the recordings are counted; None for all.
        """
        rows = slice(None) if chosen is None else chosen
        ranks, measure = getattr(self, direction)[rows], partial(recall, k=k)
        return LayerScore(measure(ranks), *bootstrap_interval(measure, ranks, groups=self.speakers[rows]))


def retrieve(
    data: MatchData,
    config: MatchConfig | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
    on_fold: Callable[[Matcher], None] = lambda matcher: None,
) -> Retrieval:
    """Train a matcher on each fold's other speakers, without the sentences of the fold, and look for those.

    Args:
        data: recordings, words and phrases.
        config: of the matchers.
        folds: by speaker.
        seed: of the folds.
        on_fold: called with the matcher of each fold.

    Raises:
        ParameterError: if there are less speakers than folds.
    """
    if not 2 <= folds <= len(set(data.speakers)):
        raise ParameterError(f"folds={folds} and {len(set(data.speakers))} speakers; give folds from 2 to their number")
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    galleries = []
    for others, own in GroupKFold(folds, shuffle=True, random_state=seed).split(data.ids, groups=data.speakers):
        test = own[data.is_whole[own]]
        train = others[~np.isin(data.sentences[others], data.sentences[test])]
        matcher = data.train(train, config, seed)
        pairs = data.take(test)
        scores = matcher.speech(pairs.speech) @ matcher.text(pairs.text).T
        by_speech, by_text = (retrieval_ranks(one, pairs.names, pairs.names) for one in (scores, scores.T))
        found.append((test, by_speech, by_text))
        galleries.append(len(set(pairs.names)))
        on_fold(matcher)
    rows, by_speech, by_text = (np.concatenate(part) for part in zip(*found, strict=True))
    return Retrieval(rows, by_speech, by_text, data.speakers[rows], galleries)


def _name(text: str) -> str:
    """What is said, however it is written."""
    return plain_text(text) or text
