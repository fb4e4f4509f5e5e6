"""Classifiers that scikit-learn lacks, by its rules: class means, a support vector machine with probabilities."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.svm import LinearSVC
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from speechfeat.errors import ParameterError

# Their names in scipy.
DISTANCES = {"cosine": "cosine", "euclidean": "sqeuclidean"}
# Of discriminant analysis, which solves equations in a matrix of as many rows and columns: half a gigabyte, minutes.
MOST_DIMS = 8192


class _Softmax:
    """Probabilities as the softmax of margins over a temperature (Guo et al., 2017): the likeliest class stays so.

    Attributes:
        temperature: that was asked for; None leaves it to the class.
        temperature_: that is used.
    """

    temperature: float | None
    temperature_: float

    def margins(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """How much each class is preferred, `[n, C]`."""
        raise NotImplementedError

    def predict_proba(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Softmax of the margins over the temperature, `[n, C]`."""
        margins = self.margins(X)
        return softmax(margins / self.temperature_, axis=1)

    def _set_temperature(self, own: float) -> None:
        if self.temperature is not None and not self.temperature > 0:
            raise ParameterError(f"temperature={self.temperature} must be above 0")
        self.temperature_ = float(own if self.temperature is None else self.temperature)


class Prototypes(_Softmax, ClassifierMixin, BaseEstimator):
    """Nearest class mean: each class is the mean of its examples, as in prototypical networks (Snell et al., 2017).

    Fit on a support set, it answers for a query set; one example of a class is enough. The distance is the squared
    Euclidean one, or one minus the cosine (examples are then brought to length 1 before their mean is taken).
    Probabilities are the softmax of the negative distances over the temperature.

    Args:
        metric: "cosine" or "euclidean".
        temperature: that distances are divided by; None takes a tenth of the mean distance between two prototypes,
            about the 0.1 that is usual for cosines. (Snell et al. have 1, for Euclidean distances of embeddings that
            were trained with it.)

    Attributes:
        classes_: `[C]`.
        prototypes_: `[C, D]` float64.
        temperature_: that is used.

    Example:
        answers = Prototypes("euclidean").fit(support, support_labels).predict(query)
    """

    def __init__(self, metric: str = "cosine", temperature: float | None = None) -> None:
        self.metric = metric
        self.temperature = temperature

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's name
        """Take the mean of each class among `[n, D]` examples.

        Raises:
            ParameterError: if the metric is not known or the temperature not above 0.
        """
        values, labels = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(labels)
        check_metric(self.metric)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        self.prototypes_ = class_means(values, codes, self.metric)
        self._set_temperature(0.1 * _mean_distance(self.prototypes_, self.metric) or 1.0)
        return self

    def margins(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Negative distances to the prototypes, `[n, C]`."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return -distances(values, self.prototypes_, self.metric)

    def predict(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """The class of the nearest prototype, `[n]`."""
        nearest = self.margins(X).argmax(axis=1)
        return self.classes_[nearest]


class SoftmaxSVC(_Softmax, LinearSVC):
    """Linear support vector machine, each class against the rest, with probabilities.

    Args:
        C: inverse strength of the regularisation.
        class_weight: "balanced" counts every class alike, None every example.
        temperature: that margins are divided by; None takes 1.
    """

    def __init__(
        self,
        C: float = 1.0,  # noqa: N803 - scikit-learn's name
        class_weight: str | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__(C=C, class_weight=class_weight, dual="auto", random_state=0)
        self.temperature = temperature

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's name
        """As `LinearSVC`."""
        self._set_temperature(1.0)
        return super().fit(X, y)

    def margins(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Values of the decision functions, `[n, C]`."""
        return _columns(self.decision_function(X))


class Discriminant(_Softmax, LinearDiscriminantAnalysis):
    """Linear discriminant analysis with a covariance shrunk towards a multiple of the identity.

    With more dimensions than examples its probabilities are far too sure; the temperature mends that.

    Args:
        shrinkage: from 0 (the covariance of the examples) to 1, or "auto" for that of Ledoit and Wolf.
        class_weight: "balanced" takes all classes for equally likely, None for as likely as they are frequent.
        temperature: that log likelihoods are divided by; None takes 1, which are scikit-learn's probabilities.
    """

    def __init__(
        self, shrinkage: float | str = "auto", class_weight: str | None = None, temperature: float | None = None
    ) -> None:
        super().__init__(solver="lsqr", shrinkage=shrinkage)
        self.class_weight = class_weight
        self.temperature = temperature

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's name
        """As `LinearDiscriminantAnalysis`.

        Raises:
            ParameterError: if there are more dimensions than are reasonable, or the temperature is not above 0.
        """
        self._set_temperature(1.0)
        if np.ndim(X) == 2 and np.shape(X)[1] > MOST_DIMS:
            raise ParameterError(
                f"discriminant analysis of {np.shape(X)[1]} dimensions is out of reach (at most {MOST_DIMS}); "
                "take one layer, or another kind"
            )
        count = len(np.unique(np.asarray(y)))
        self.priors = np.full(count, 1 / count) if self.class_weight == "balanced" else None
        return super().fit(X, y)

    def margins(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Log likelihoods of the classes up to a constant, `[n, C]`."""
        return _columns(self.decision_function(X))


def likeliest_temperature(held_out: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The temperature of a softmax that makes the right classes likeliest (Guo et al., 2017).

    Args:
        held_out: margins `[n, C]` and columns of the right classes `[n]`, one pair or more.
    """
    spread = np.concatenate([margins.max(axis=1) - margins.mean(axis=1) for margins, _ in held_out]).mean()
    if not spread > 0:
        return 1.0

    def loss(logarithm: float) -> float:
        total = 0.0
        for margins, columns in held_out:
            scaled = margins / np.exp(logarithm)
            total += float((logsumexp(scaled, axis=1) - scaled[np.arange(len(columns)), columns]).sum())
        return total

    # Between a softmax that is all but flat and one that is all but an argmax.
    middle = float(np.log(spread))
    return float(np.exp(minimize_scalar(loss, bounds=(middle - 5, middle + 5), method="bounded").x))


def check_metric(metric: str) -> None:
    """Refuse a distance that is not known.

    Raises:
        ParameterError: if it is not "cosine" or "euclidean".
    """
    if metric not in DISTANCES:
        raise ParameterError(f"metric={metric!r} is not known; use {' or '.join(map(repr, DISTANCES))}")


def class_means(values: np.ndarray, codes: np.ndarray, metric: str) -> np.ndarray:
    """Prototypes `[C, D]` float64 of examples `[n, D]` with classes 0 to C - 1, each with one example or more."""
    points = _unit(values) if metric == "cosine" else values.astype(np.float64)
    counts = np.bincount(codes)
    firsts = np.cumsum(counts) - counts
    return np.add.reduceat(points[np.argsort(codes, kind="stable")], firsts) / counts[:, None]


def distances(values: np.ndarray, prototypes: np.ndarray, metric: str) -> np.ndarray:
    """Squared Euclidean distance, or one minus the cosine, of `[n, D]` to `[C, D]`: `[n, C]` float64.

    What is all zeros has no direction: its cosine counts as 0.
    """
    return np.nan_to_num(cdist(values, prototypes, DISTANCES[metric]), nan=1.0)


def _unit(values: np.ndarray) -> np.ndarray:
    """`[n, D]` float64, brought to length 1."""
    points = values.astype(np.float64)
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)


def _mean_distance(prototypes: np.ndarray, metric: str) -> float:
    """Mean of `distances` over all pairs of prototypes, from their variance; 0 for a single one."""
    count = len(prototypes)
    points = _unit(prototypes) if metric == "cosine" else prototypes
    squared = 2 * count / max(count - 1, 1) * points.var(axis=0).sum()
    # Of vectors of length 1, one minus the cosine is half the squared distance.
    return float(squared / 2 if metric == "cosine" else squared)


def _columns(decision: np.ndarray) -> np.ndarray:
    """scikit-learn's decision function as `[n, C]`: of two classes it gives one column, their difference."""
    return np.stack([-decision / 2, decision / 2], axis=1) if decision.ndim == 1 else decision
