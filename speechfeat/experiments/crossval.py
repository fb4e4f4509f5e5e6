"""A head trained and tested on every fold of a protocol, and what its answers are worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from speechfeat.classification import accuracy, average_recall, macro_f1, top_k_accuracy
from speechfeat.errors import ParameterError
from speechfeat.experiments.features import CorpusFeatures
from speechfeat.experiments.protocol import Protocol
from speechfeat.heads.base import Head, average_copies
from speechfeat.heads.estimators import unknown_kind
from speechfeat.heads.opening import HEAD_KINDS, train_head
from speechfeat.metrics import bootstrap_interval
from speechfeat.probing import LayerScore
from speechfeat.store import Store

TOP_K = 3
MEASURES: Mapping[str, Callable[..., float]] = {"accuracy": accuracy, "uar": average_recall, "macro_f1": macro_f1}


@dataclass(frozen=True)
class Answers:
    """What heads said of utterances that they were not trained on, all folds together.

    Attributes:
        ids: `[m]`, of the utterances tested.
        labels: `[m]`, what they are.
        groups: `[m]`, by what intervals are drawn; None: by utterance.
        classes: C.
        probabilities: `[m, C]`.
        augmented: `[m, C]`, averages over the utterance and its augmented copies; None where there are none.
        folds: `[m]`, number of the fold.
        heads: of each fold.
    """

    ids: list[str]
    labels: np.ndarray
    groups: np.ndarray | None
    classes: list[str]
    probabilities: np.ndarray
    augmented: np.ndarray | None
    folds: np.ndarray
    heads: list[Head]

    @property
    def answers(self) -> np.ndarray:
        """`[m]`, the class of the highest probability."""
        return np.array(self.classes)[self.probabilities.argmax(axis=1)]

    def scores(self, *, augmented: bool = False, num: int = 1000) -> dict[str, LayerScore]:
        """Accuracy, uar, macro_f1 and, of more than three classes, top_3, with 95 % bootstrap intervals.

        The bootstrap draws groups (speakers) where there are some, else utterances. That a head would differ with
        other training utterances is not in it.

        Args:
            augmented: of the averages over copies.
            num: draws.

        Raises:
            ParameterError: if there are no copies.
        """
        shares = self.augmented if augmented else self.probabilities
        if shares is None:
            raise ParameterError("there are no augmented copies of the utterances; give copies to cross_validate")
        labels, answers = self._codes(), shares.argmax(axis=1)
        statistics: dict[str, tuple[Callable[..., float], np.ndarray]] = {
            name: (measure, answers) for name, measure in MEASURES.items()
        }
        if len(self.classes) > TOP_K:
            statistics[f"top_{TOP_K}"] = (partial(top_k_accuracy, k=TOP_K), shares)
        return {
            name: LayerScore(
                statistic(labels, given), *bootstrap_interval(statistic, labels, given, groups=self.groups, num=num)
            )
            for name, (statistic, given) in statistics.items()
        }

    def gain(self, other: "Answers", metric: str = "accuracy", *, num: int = 1000) -> LayerScore:
        """What these answers have over others to the same utterances, with its 95 % bootstrap interval.

        Both are scored on the same draws, so that what makes an utterance or a speaker hard for both is not in the
        interval.

        Args:
            other: answers to the same utterances.
            metric: "accuracy", "uar" or "macro_f1".
            num: draws.

        Raises:
            ParameterError: if the utterances are others, or the metric is not known.
        """
        if metric not in MEASURES:
            raise ParameterError(f"metric={metric!r} is not known; use {', '.join(MEASURES)}")
        if self.ids != other.ids or self.classes != other.classes:
            raise ParameterError("the answers are to other utterances; cross-validate both on the same ones")

        def difference(labels: np.ndarray, mine: np.ndarray, theirs: np.ndarray) -> float:
            return MEASURES[metric](labels, mine) - MEASURES[metric](labels, theirs)

        arrays = (self._codes(), self.probabilities.argmax(axis=1), other.probabilities.argmax(axis=1))
        return LayerScore(difference(*arrays), *bootstrap_interval(difference, *arrays, groups=self.groups, num=num))

    def _codes(self) -> np.ndarray:
        """The number of each label among the classes: numbers are compared faster than names."""
        columns = {name: column for column, name in enumerate(self.classes)}
        return np.array([columns[label] for label in self.labels])


@dataclass(frozen=True)
class HeadPlan:
    """Which head is trained, and how; see `train_head`.

    Attributes:
        kind: of the head.
        layers: that it takes.
        seed: of the training.
        options: further ones.

    Raises:
        ParameterError: if there is no such kind.
    """

    kind: str = "logistic"
    layers: Any = "auto"
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in HEAD_KINDS:
            raise ParameterError(unknown_kind(self.kind, HEAD_KINDS))

    def train(self, features: CorpusFeatures, rows: Sequence[int] | np.ndarray, inner: Sequence[str] | None) -> Head:
        """A head trained on some utterances.

        Args:
            features: of the corpus.
            rows: of the utterances.
            inner: of every utterance of the corpus, by what those are divided where something is chosen on them.
        """
        ids, labels = features.ids, features.values()
        return train_head(
            features.store,
            [labels[row] for row in rows],
            self.kind,
            ids=[ids[row] for row in rows],
            groups=None if inner is None else [inner[row] for row in rows],
            layers=self.layers,
            task=features.corpus.label,
            seed=self.seed,
            **self.options,
        )


def cross_validate(
    features: CorpusFeatures,
    protocol: Protocol,
    plan: HeadPlan,
    on_fold: Callable[[int, int], None] = lambda number, count: None,
    *,
    copies: Store | None = None,
) -> Answers:
    """Train a head on the training utterances of every fold and have it answer for those to test.

    Whatever is chosen (a layer, a regularisation, a learning rate) is chosen on the training utterances of the fold.

    Args:
        features: of the corpus.
        protocol: its folds.
        plan: of the head.
        on_fold: called after each fold with its number from 1 and how many there are.
        copies: features of `copies_of` the utterances, as many of each: test-time augmentation.

    Raises:
        ParameterError: as of `train_head`.
    """
    ids, labels = np.array(features.ids, dtype=object), np.array(features.values())
    classes = sorted(set(labels.tolist()))
    heads, shares, augmented, numbers = [], [], [], []
    for number, (train, test) in enumerate(protocol.folds):
        head = plan.train(features, train, protocol.inner)
        shares.append(_among(classes, head, head.probabilities(features.store, ids[test].tolist())))
        if copies is not None:
            augmented.append(_among(classes, head, average_copies(head, features.store, copies, ids[test].tolist())))
        heads.append(head)
        numbers.append(np.full(len(test), number))
        on_fold(number + 1, len(protocol.folds))
    tested = np.concatenate([test for _, test in protocol.folds])
    groups = None if protocol.groups is None else np.array(protocol.groups)[tested]
    return Answers(
        ids[tested].tolist(),
        labels[tested],
        groups,
        classes,
        np.concatenate(shares),
        None if copies is None else np.concatenate(augmented),
        np.concatenate(numbers),
        heads,
    )


def _among(classes: Sequence[str], head: Head, shares: np.ndarray) -> np.ndarray:
    """Probabilities of a head's classes, as columns of all classes."""
    result = np.zeros((len(shares), len(classes)), np.float32)
    result[:, [classes.index(name) for name in head.classes]] = shares
    return result
