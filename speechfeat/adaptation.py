"""Domain adaptation of embeddings by their moments: a labelled source is moved to where an unlabelled target is.

    moved = Coral().fit(source, target=target).transform(source)
    head = pooled_head("logistic").fit(moved, labels)
    head.predict(others_of_the_target)

What is moved is what is trained on; the target stays as it is, so that a head takes it without knowing of any of this.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from speechfeat.errors import ParameterError


class MeanVariance(TransformerMixin, BaseEstimator):
    """Gives every dimension of a source the mean and the variance that it has in a target.

    A linear head does not see whether the source is moved to the target or each domain is standardised by itself: that
    is the same up to one map of both.

    It moves the source alone. As a step of a pipeline it would move what is to be told, too: transform first, then fit.

    Attributes:
        source_mean_: `[D]`.
        source_scale_: `[D]`, standard deviations; 1 where a dimension does not vary.
        target_mean_: `[D]`.
        target_scale_: `[D]`, likewise.
    """

    def fit(self, X: ArrayLike, y: Any = None, *, target: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's name
        """Measure both domains.

        Args:
            X: `[n, D]`, of the source.
            y: not used.
            target: `[m, D]`, of the target.

        Raises:
            ParameterError: if there are not two rows of each, or the dimensions differ.
        """
        del y
        source = validate_data(self, X, dtype=(np.float64, np.float32))
        there = check_array(target, dtype=(np.float64, np.float32))
        if there.shape[1] != source.shape[1] or min(len(source), len(there)) < 2:
            raise ParameterError(
                f"a source {source.shape} and a target {there.shape} must have as many dimensions, and two rows or more"
            )
        self._measure(source.astype(np.float64), there.astype(np.float64))
        return self

    def _measure(self, source: np.ndarray, target: np.ndarray) -> None:
        self.source_mean_, self.source_scale_ = source.mean(axis=0), _scale(source)
        self.target_mean_, self.target_scale_ = target.mean(axis=0), _scale(target)

    def transform(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Rows of the source `[n, D]` as if they were of the target, in the precision given."""
        check_is_fitted(self)
        values = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        standard = self._turned((values - self.source_mean_) / self.source_scale_)
        return (standard * self.target_scale_ + self.target_mean_).astype(values.dtype)

    def _turned(self, standard: np.ndarray) -> np.ndarray:
        """What is done to standardised dimensions beyond mean and variance: nothing."""
        return standard


class Coral(MeanVariance):
    """Correlation alignment: gives a source the mean and the covariance of a target (Sun, Feng & Saenko, 2016).

    As there, dimensions are standardised in each domain, the source is whitened, then given the correlations of the
    target, each matrix with a multiple of the identity added. Then mean and variance are those of the target.

    Args:
        regularisation: what multiple; 1 in the paper. Near 0 the covariances become equal, if there are more rows than
            dimensions; with fewer, directions that were not seen are made up.

    Attributes:
        matrix_: `[D, D]`, from standardised source to standardised target.
    """

    def __init__(self, regularisation: float = 1.0) -> None:
        self.regularisation = regularisation

    def _measure(self, source: np.ndarray, target: np.ndarray) -> None:
        if not self.regularisation > 0:
            raise ParameterError(f"regularisation={self.regularisation} must be above 0")
        super()._measure(source, target)
        whiten = self._power((source - self.source_mean_) / self.source_scale_, -0.5)
        self.matrix_ = whiten @ self._power((target - self.target_mean_) / self.target_scale_, 0.5)

    def _power(self, standard: np.ndarray, exponent: float) -> np.ndarray:
        """A power of the regularised covariance of `[n, D]`: `[D, D]`."""
        variances, axes = np.linalg.eigh(np.cov(standard, rowvar=False, ddof=0).reshape(2 * standard.shape[1:]))
        # Rounding makes some that are 0 a little less.
        return (axes * (np.maximum(variances, 0) + self.regularisation) ** exponent) @ axes.T

    def _turned(self, standard: np.ndarray) -> np.ndarray:
        return standard @ self.matrix_


ALIGNMENTS: dict[str, type[MeanVariance]] = {"mean-variance": MeanVariance, "coral": Coral}


def _scale(values: np.ndarray) -> np.ndarray:
    deviations = values.std(axis=0)
    return np.where(deviations > 0, deviations, 1.0)
