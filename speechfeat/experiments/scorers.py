"""Scores of pairs of utterances by their embeddings, and the choice of a layer, learnt from other speakers."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from speechfeat.errors import ParameterError
from speechfeat.experiments.trials import make_trials
from speechfeat.metrics import equal_error_rate
from speechfeat.verification import as_norm

SCORERS = ("cosine", "lda")
# The cosine of embeddings as they are, for those that were trained to be compared so.
PLAIN = "plain"
# Principal components that lda projects: with a few clips of a speaker, how they vary is not known in many directions.
PRINCIPAL = 128
# Share of a cohort that is near enough to a voice to normalise its scores by.
TOP_SHARE = 0.2
FEWEST_IN_COHORT = 10
# Pairs that are scored at a time.
BLOCK = 1 << 14


class Scorer:
    """The cosine of two embeddings, standardised and, with "lda", projected to where speakers differ most.

    Args:
        kind: "cosine", "lda", or "plain" for embeddings that are compared as they are.
        cohort: speakers, drawn from those it learns from, to normalise scores by (`as_norm`); 0 for none. Each is the
            mean of its utterances; the nearest fifth counts.
        seed: of the drawing.

    Example:
        scorer = Scorer("lda").fit(train, speakers)
        scores = scorer.score(embeddings, trials.pairs)
    """

    def __init__(self, kind: str = "cosine", *, cohort: int = 0, seed: int = 0) -> None:
        if kind not in (*SCORERS, PLAIN):
            raise ParameterError(f"head {kind!r} is not known; use {', '.join((*SCORERS, PLAIN))}")
        if cohort and cohort < FEWEST_IN_COHORT:
            raise ParameterError(f"a cohort of {cohort} speakers is too small; take {FEWEST_IN_COHORT} or more")
        self.kind = kind
        self.cohort = cohort
        self.seed = seed

    def fit(self, embeddings: np.ndarray, speakers: ArrayLike) -> "Scorer":
        """Learn from the embeddings `[n, D]` of `[n]` speakers.

        Raises:
            ParameterError: if there are too few speakers for the cohort, or for "lda" none with two utterances.
        """
        codes = np.unique(np.asarray(speakers), return_inverse=True)[1]
        self._projection = _projection(self.kind, codes, embeddings.shape[1]).fit(embeddings, codes)
        self._cohort = self._draw_cohort(self.project(embeddings), codes) if self.cohort else None
        return self

    def project(self, embeddings: np.ndarray) -> np.ndarray:
        """Vectors of length 1 whose products are the cosines, `[n, D]` -> `[n, E]`."""
        return self._projection.transform(embeddings).astype(np.float32)

    def score(self, embeddings: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Scores of pairs, higher for what is rather one speaker.

        Shape:
            embeddings `[u, D]`, pairs `[n, 2]` rows of these -> `[n]`
        """
        vectors = self.project(embeddings)
        cosines = np.empty(len(pairs), np.float32)
        for first in range(0, len(pairs), BLOCK):
            one, other = pairs[first : first + BLOCK].T
            cosines[first : first + BLOCK] = np.einsum("nd,nd->n", vectors[one], vectors[other])
        if self._cohort is None:
            return cosines
        near = vectors @ self._cohort.T
        return as_norm(cosines, near, near, trials=pairs, top=max(2, round(TOP_SHARE * len(self._cohort))))

    def _draw_cohort(self, vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
        num = int(codes.max()) + 1
        check_cohort(num)
        chosen = np.random.default_rng(self.seed).permutation(num)[: self.cohort]
        means = np.stack([vectors[codes == code].mean(axis=0) for code in chosen])
        return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def check_cohort(num: int) -> None:
    """Refuse `num` speakers to learn from that are too few to normalise scores by.

    Raises:
        ParameterError: that says how many are needed.
    """
    if num < FEWEST_IN_COHORT:
        raise ParameterError(
            f"the {num} speakers to learn from are too few for a cohort; AS-norm needs {FEWEST_IN_COHORT} or more"
        )


def layer_errors(
    embeddings: np.ndarray, speakers: ArrayLike, kind: str = "cosine", *, most: int = 5, seed: int = 0
) -> list[float]:
    """The equal error rate of every layer among the speakers that are learnt from, to choose a layer by.

    What learns from speakers ("lda") learns from one half of them and is tried on the other, and the other way round;
    the two rates are averaged.

    Args:
        embeddings: `[n, L, D]`.
        speakers: `[n]`.
        kind: of the scorer.
        most: utterances of a speaker that are paired.
        seed: of pairs drawn where there are too many.

    Raises:
        ParameterError: if there are too few speakers, or too few with two utterances.
    """
    names, codes = np.unique(np.asarray(speakers), return_inverse=True)
    everyone = np.arange(len(codes))
    folds = [(everyone, everyone)]
    if kind == "lda":
        ranked = np.argsort(-np.bincount(codes), kind="stable")  # both halves get speakers with many utterances
        if np.bincount(codes)[ranked[min(1, len(ranked) - 1)]] < 2 or len(ranked) < 4:
            raise ParameterError(
                f"choosing a layer for {kind!r} needs four speakers to learn from, two of them with two utterances; "
                "name a layer (--layers), or learn from more"
            )
        is_first = np.isin(codes, ranked[::2])
        halves = np.flatnonzero(is_first), np.flatnonzero(~is_first)
        folds = [halves, halves[::-1]]
    errors = np.zeros(embeddings.shape[1])
    for train, test in folds:
        trials = make_trials([str(row) for row in test], names[codes[test]].tolist(), most=most, seed=seed)
        rows = np.array([int(key) for key in trials.ids])
        first, second = trials.sides
        for layer in range(embeddings.shape[1]):
            scorer = Scorer(kind).fit(embeddings[train, layer], codes[train])
            scores = scorer.score(embeddings[rows, layer], trials.pairs)
            errors[layer] += equal_error_rate(scores, first == second) / len(folds)
    return errors.tolist()


def _projection(kind: str, codes: np.ndarray, num_dims: int) -> Pipeline:
    steps: list[Any] = [] if kind == PLAIN else [StandardScaler()]
    if kind == "lda":
        repeats = len(codes) - 1 - int(codes.max())  # utterances beyond the first of each speaker
        if repeats < 2 or codes.max() < 1:
            raise ParameterError("lda needs two speakers or more to learn from, some of them with several utterances")
        steps += [PCA(min(PRINCIPAL, num_dims, repeats // 2), random_state=0), LinearDiscriminantAnalysis()]
    return make_pipeline(*steps, Normalizer())
