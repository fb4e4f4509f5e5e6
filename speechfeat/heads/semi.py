"""Heads that learn from few labelled and many unlabelled embeddings: the better student becomes the teacher.

found = self_train(embeddings, codes, 4, SelfTraining(rounds=3), groups=speakers)  # codes: -1 where not known
found.probabilities(others)

In round 0 every layer, a view of its own, has a student that is trained on the labelled alone. In each further round
the students together are the teacher: what they say of the unlabelled, averaged, is what new students learn from beside
the labels. That is Noisy Student (Xie et al., 2020) with an ensemble as teacher, which one layer's mistakes do not
easily persuade (co-training; Blum & Mitchell, 1998). With augmented copies the teacher hears the recording as it is,
the students hear copies too, and must say the same of them (FixMatch; Sohn et al., 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from speechfeat.classification import average_recall
from speechfeat.errors import ParameterError
from speechfeat.heads.classifiers import Discriminant
from speechfeat.heads.estimators import CLASSIFIER, inner_folds
from speechfeat.heads.examples import UNKNOWN
from speechfeat.heads.soft import fit_soft_discriminant, fitted_discriminant

# Standard errors: a difference this far from 0 has a probability of 5 % by chance alone.
SURE = 1.645


@dataclass(frozen=True)
class SelfTraining:
    """How it is done.

    Attributes:
        rounds: in which students learn from what the teacher says, at most; 0 for the labels alone.
        threshold: the least probability of the likeliest class with which an unlabelled utterance is learnt from. 0
            takes all, above 1 none.
        soft: learn what the teacher says of every class rather than the likeliest class alone.
        shrinkage: of the students, which are linear discriminant analyses that count all classes the same.
        folds: of the labelled utterances, by which the round is chosen: the last that is not surely worse than the best
            (by more than chance in 95 of 100 cases); 0 takes the last.
        seed: of the folds.

    Raises:
        ParameterError: for a value out of range.
    """

    rounds: int = 3
    threshold: float = 0.0
    soft: bool = True
    shrinkage: float = 0.3
    folds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rounds < 0 or self.threshold < 0:
            raise ParameterError(f"rounds={self.rounds} and threshold={self.threshold} must be at least 0")
        if self.folds == 1 or self.folds < 0:
            raise ParameterError(f"folds={self.folds} must be at least 2, or 0 to take the last round")
        if not 0 < self.shrinkage <= 1:
            raise ParameterError(f"shrinkage={self.shrinkage} must be above 0 and at most 1")


class Round(NamedTuple):
    """What is known of a round.

    Attributes:
        taken: unlabelled utterances that were learnt from.
        score: recall averaged over classes on held-out labelled utterances; None without folds.
    """

    taken: int
    score: float | None


@dataclass(frozen=True)
class SelfTrained:
    """The students of every round.

    Attributes:
        students: of each round, a fitted pipeline for each view.
        rounds: what is known of each round, from round 0.
        best: the round that is taken.
    """

    students: list[list[Pipeline]]
    rounds: list[Round]
    best: int

    def probabilities(self, embeddings: np.ndarray, number: int | None = None) -> np.ndarray:
        """Of every class, averaged over the students, `[n, C]`.

        Args:
            embeddings: `[n, V, D]`, the views in their order.
            number: of the round; None for the one that is taken.
        """
        return _answer(self.students[self.best if number is None else number], embeddings)

    def joined(self, number: int | None = None) -> Pipeline:
        """The students of a round as one linear head on the views side by side: their log likelihoods are averaged.

        It differs from `probabilities` in that what is averaged are logarithms.

        Args:
            number: of the round; None for the one that is taken.

        Returns:
            A fitted pipeline for `[n, V * D]`.
        """
        students = self.students[self.best if number is None else number]
        scale = StandardScaler()
        for name in ("mean_", "scale_"):
            setattr(scale, name, np.concatenate([getattr(one[0], name) for one in students]))
        scale.n_features_in_ = len(scale.mean_)
        weight = np.concatenate([one[-1].coef_ for one in students], axis=1) / len(students)
        bias = np.mean([one[-1].intercept_ for one in students], axis=0)
        return Pipeline([("scale", scale), (CLASSIFIER, fitted_discriminant(weight, bias, students[0][-1].shrinkage))])


def self_train(
    embeddings: np.ndarray,
    codes: np.ndarray,
    num_classes: int,
    plan: SelfTraining = SelfTraining(),
    *,
    groups: Sequence[str] | np.ndarray | None = None,
    copies: np.ndarray | None = None,
) -> SelfTrained:
    """Train on labelled and unlabelled embeddings together.

    Args:
        embeddings: of labelled and unlabelled utterances, each view (such as a layer) by itself.
        codes: number of the class of each; -1 where it is not known.
        num_classes: C, all of which have a labelled utterance.
        plan: how.
        groups: of each, such as its speaker: folds keep the labelled ones of a group together. None divides utterances.
        copies: augmented copies of the utterances.

    Shape:
        embeddings `[n, V, D]`, codes `[n]`, groups `[n]`, copies `[K, n, V, D]`

    Raises:
        ParameterError: if shapes do not agree, or a class has no labelled utterance.
    """
    values, labels = np.asarray(embeddings, np.float32), np.asarray(codes, np.int64)
    _check(values, labels, num_classes, copies)
    heard = values[None] if copies is None else np.concatenate([values[None], np.asarray(copies, np.float32)])
    scales = [StandardScaler().fit(values[:, view]) for view in range(values.shape[1])]
    scaled = [[scale.transform(one[:, view]) for view, scale in enumerate(scales)] for one in heard]
    material = _Material(np.stack([np.stack(one, axis=1) for one in scaled]), num_classes, plan)
    trained, taken = material.run(labels, np.ones(len(labels), bool))
    students = [
        [Pipeline([("scale", scale), (CLASSIFIER, one)]) for scale, one in zip(scales, made, strict=True)]
        for made in trained
    ]
    held_out = _hold_out(material, labels, groups)
    if held_out is None:
        return SelfTrained(students, [Round(count, None) for count in taken], plan.rounds)
    truth, said = held_out
    scores = [average_recall(truth, shares.argmax(axis=1)) for shares in said]
    rounds = [Round(*found) for found in zip(taken, scores, strict=True)]
    return SelfTrained(students, rounds, _last_good(truth, said.argmax(axis=2), scores))


@dataclass(frozen=True)
class _Material:
    """What students hear, and how they are trained.

    Attributes:
        heard: `[1 + K, n, V, D]`, the utterances as they are and their copies; standardised by all utterances, for the
            unlabelled tell the scale too.
        num_classes: C.
        plan: how they are trained.
    """

    heard: np.ndarray
    num_classes: int
    plan: SelfTraining

    def run(self, labels: np.ndarray, there: np.ndarray) -> tuple[list[list[Discriminant]], list[int]]:
        """Students of each round, of the utterances that are there; how many unlabelled ones each round learnt from."""
        known = there & (labels != UNKNOWN)
        shares = np.zeros((len(labels), self.num_classes), np.float32)
        shares[known] = np.eye(self.num_classes, dtype=np.float32)[labels[known]]
        students, taken = [self._train(known, shares)], [0]
        for _ in range(self.plan.rounds):
            said = _answer(students[-1], self.heard[0])
            is_taken = there & ~known & (said.max(axis=1) >= self.plan.threshold)
            target = said if self.plan.soft else np.eye(self.num_classes)[said.argmax(axis=1)]
            learnt = np.where(known[:, None], shares, target).astype(np.float32)
            students.append(self._train(known | is_taken, learnt))
            taken.append(int(is_taken.sum()))
        return students, taken

    def _train(self, chosen: np.ndarray, shares: np.ndarray) -> list[Discriminant]:
        """A student for each view."""
        target = np.tile(shares[chosen], (len(self.heard), 1))
        return [
            fit_soft_discriminant(
                self.heard[:, chosen, view].reshape(len(target), -1), target, shrinkage=self.plan.shrinkage
            )
            for view in range(self.heard.shape[2])
        ]


def _hold_out(
    material: _Material, labels: np.ndarray, groups: Sequence[str] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Classes of labelled utterances `[m]` and what is said of them in folds, by round `[R, m, C]`.

    What is held out, and with groups whatever is of a group held out, is not learnt from as unlabelled either. None
    where no fold leaves labelled utterances of every class to learn from.
    """
    plan, known = material.plan, np.flatnonzero(labels != UNKNOWN)
    units = None if groups is None else np.asarray(groups)
    splits = inner_folds(labels[known], None if units is None else units[known], plan.folds, plan.seed)
    rows, said = [], []
    for train, test in splits:
        if len(np.unique(labels[known[train]])) < material.num_classes:
            continue
        held = known[test]
        there = ~np.isin(np.arange(len(labels)) if units is None else units, held if units is None else units[held])
        students, _ = material.run(labels, there)
        said.append(np.stack([_answer(one, material.heard[0, held]) for one in students]))
        rows.append(held)
    if not rows:
        return None
    return labels[np.concatenate(rows)], np.concatenate(said, axis=1)


def _last_good(truth: np.ndarray, answers: np.ndarray, scores: Sequence[float]) -> int:
    """The last round that is not surely worse than the best.

    Of a few dozen labelled utterances the best score is mostly luck; a teacher that has gone astray is not.

    Shape:
        truth `[m]`, answers `[R, m]`, scores `[R]`
    """
    best = int(np.argmax(scores))
    weights = 1 / (np.bincount(truth)[truth] * len(np.unique(truth)))
    lost = (answers[best] == truth).astype(float) - (answers == truth)
    difference = lost @ weights
    error = np.sqrt((lost - difference[:, None]) ** 2 @ weights**2)
    return int(np.flatnonzero(difference <= SURE * error).max())


def _answer(students: Sequence[Pipeline | Discriminant], embeddings: np.ndarray) -> np.ndarray:
    """Probabilities averaged over students, `[n, C]`."""
    return np.mean([one.predict_proba(embeddings[:, view]) for view, one in enumerate(students)], axis=0)


def _check(values: np.ndarray, labels: np.ndarray, num_classes: int, copies: np.ndarray | None) -> None:
    if values.ndim != 3 or labels.shape != values.shape[:1]:
        raise ParameterError(
            f"embeddings of the shape {values.shape} and codes {labels.shape} do not agree; give [n, V, D] and [n]"
        )
    if copies is not None and np.shape(copies)[1:] != values.shape:
        raise ParameterError(f"copies of the shape {np.shape(copies)} are not of {values.shape}; give [K, n, V, D]")
    found = sorted(set(labels.tolist()) - {UNKNOWN})
    if found != list(range(num_classes)):
        raise ParameterError(
            f"the labelled utterances are of the classes {found}; give at least one of each from 0 to {num_classes - 1}"
        )
