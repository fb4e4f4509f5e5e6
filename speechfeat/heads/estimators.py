"""Classifiers of embeddings: scikit-learn pipelines that choose their own regularisation.

Example:
    head = pooled_head("logistic").fit(X_train, y_train, groups=speakers)
    head.predict_proba(X_test)
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, ParameterGrid, StratifiedGroupKFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from speechfeat.errors import ParameterError
from speechfeat.heads.classifiers import Discriminant, Prototypes, SoftmaxSVC, likeliest_temperature
from speechfeat.splits import Fold

CLASSIFIER = "classify"


class TunedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A pipeline whose regularisation is chosen by cross-validation on what it is fitted on.

    The best balanced accuracy decides. Where `inverse_strength` names a parameter, the likelihood of what is held out
    decides instead: it goes on telling candidates apart where nearly all answers are right. Then the one-standard-error
    rule (Breiman et al., CART, 1984) takes the smallest value of that parameter among all candidates within one
    standard error, over the folds, of the best; glmnet calls this lambda.1se.

    The folds keep groups whole where groups are given. There are fewer of them than asked for if there are fewer
    groups, or fewer examples of the most frequent class. An example of a class that its fold does not train is not
    scored. Where not even two folds can be made, the first value of the grid is taken.

    Probabilities that have a temperature (of svm, lda and prototype) get the one that makes the examples held out in
    the same folds likeliest.

    Args:
        estimator: a pipeline whose last step is named "classify".
        grid: values to choose from, by name of the pipeline's parameter; the earlier of two that are equally good is
            taken.
        folds: the most there are.
        seed: of their shuffling.
        inverse_strength: a parameter in the grid that regularises less the larger it is, such as "classify__C".

    Attributes:
        classes_: `[C]`.
        best_params_: that were chosen.
        scores_: the mean over folds of every candidate, as pairs of parameters and score; empty without a search.
        best_estimator_: the pipeline, fitted with them on everything.
    """

    def __init__(
        self,
        estimator: Pipeline,
        grid: Mapping[str, Sequence[Any]],
        folds: int = 3,
        seed: int = 0,
        inverse_strength: str | None = None,
    ) -> None:
        self.estimator = estimator
        self.grid = grid
        self.folds = folds
        self.seed = seed
        self.inverse_strength = inverse_strength

    @property
    def metric(self) -> str:
        """Of the scores, larger for better: "uar", or "log_likelihood", the mean of what is held out."""
        return "uar" if self.inverse_strength is None else "log_likelihood"

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:  # noqa: N803
        """Choose, then fit on everything.

        Args:
            X: `[n, D]`.
            y: `[n]`, of two classes or more.
            groups: `[n]`, such as speakers; None for folds of examples.

        Raises:
            ParameterError: if there is one class only, or no value of the grid is possible with so few examples.
        """
        values, labels = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(labels)
        self.classes_ = np.unique(labels)
        if len(self.classes_) < 2:
            raise ParameterError(f"all of {len(labels)} examples are of one class; a head needs two classes")
        splits = inner_folds(labels, groups, self.folds, self.seed)
        candidates = self._candidates(len(labels), splits)
        self.best_params_ = candidates[0]
        self.scores_: list[tuple[dict[str, Any], float]] = []
        with warnings.catch_warnings():
            # What is stopped before it has converged is judged by its score, like the rest.
            warnings.simplefilter("ignore", ConvergenceWarning)
            # Of balanced accuracy: an answer of a class that the fold does not test is simply wrong.
            warnings.filterwarnings("ignore", "y_pred contains classes not in y_true", UserWarning)
            # Of balanced accuracy: a fold of few examples may test one class alone.
            warnings.filterwarnings("ignore", "A single label was found", UserWarning)
            # Of discriminant analysis: a class with one example has no spread of its own.
            warnings.filterwarnings("ignore", "Only one sample available", UserWarning)
            # Of an MLP: a batch is everything, where that is less than a batch.
            warnings.filterwarnings("ignore", "Got `batch_size` less than 1 or larger", UserWarning)
            if splits and len(candidates) > 1:
                self._search(values, labels, splits, candidates)
            self.best_estimator_ = clone(self.estimator).set_params(**self.best_params_).fit(values, labels)
            classifier = self.best_estimator_[-1]
            if splits and getattr(classifier, "temperature", 1.0) is None:
                classifier.temperature_ = self._temperature(values, labels, splits)
        return self

    def predict(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Classes, `[n]`."""
        check_is_fitted(self)
        return self.best_estimator_.predict(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def predict_proba(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Of every class, `[n, C]`."""
        check_is_fitted(self)
        return self.best_estimator_.predict_proba(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def _candidates(self, num_examples: int, splits: list[Fold]) -> list[dict[str, Any]]:
        """Values that so few examples allow: there cannot be more neighbours than a fold trains."""
        every = list(ParameterGrid(dict(self.grid)))
        fewest = min(len(train) for train, _ in splits) if splits and len(every) > 1 else num_examples
        neighbours = f"{CLASSIFIER}__n_neighbors"
        possible = [one for one in every if one.get(neighbours, 1) <= fewest]
        if not possible:
            raise ParameterError(
                f"n_neighbors={every[0][neighbours]} are more than the {fewest} examples trained on; give fewer"
            )
        return possible

    def _search(
        self, values: np.ndarray, labels: np.ndarray, splits: list[Fold], candidates: list[dict[str, Any]]
    ) -> None:
        single = [{name: [value] for name, value in one.items()} for one in candidates]
        scoring = "balanced_accuracy" if self.inverse_strength is None else _log_likelihood
        search = GridSearchCV(self.estimator, single, scoring=scoring, cv=splits, refit=False, error_score="raise")
        search.fit(values, labels)
        found = np.column_stack([search.cv_results_[f"split{fold}_test_score"] for fold in range(len(splits))])
        means = found.mean(axis=1)
        if self.inverse_strength is None:
            self.best_params_ = candidates[int(np.argmax(means))]
        else:
            self.best_params_ = _strongest(candidates, self.inverse_strength, found)
        self.scores_ = list(zip(candidates, means.tolist(), strict=True))

    def _temperature(self, values: np.ndarray, labels: np.ndarray, splits: list[Fold]) -> float:
        held_out = []
        for train, test in splits:
            fitted = clone(self.best_estimator_).fit(values[train], labels[train])
            margins = fitted[-1].margins(fitted[:-1].transform(values[test]))
            held_out.append((margins, np.searchsorted(fitted.classes_, labels[test])))
        return likeliest_temperature(held_out)


def _log_likelihood(estimator: Pipeline, values: np.ndarray, labels: np.ndarray) -> float:
    return -log_loss(labels, estimator.predict_proba(values), labels=estimator.classes_)


def _strongest(candidates: list[dict[str, Any]], inverse: str, scores: np.ndarray) -> dict[str, Any]:
    """The one-standard-error rule over scores `[candidates, folds]`; of equal strength, the better one."""
    means = scores.mean(axis=1)
    best = scores[np.argmax(means)]
    least = best.mean() - best.std(ddof=1) / np.sqrt(len(best))
    near = [place for place, mean in enumerate(means) if mean >= least]
    return candidates[min(near, key=lambda place: (candidates[place][inverse], -means[place]))]


class _Kind(NamedTuple):
    make: Callable[[int], Any]
    grid: dict[str, tuple[Any, ...]]
    inverse_strength: str | None = None


# The first value of a grid is the usual one.
_KINDS = {
    "logistic": _Kind(lambda seed: LogisticRegression(max_iter=1000), {"C": (1e-2, 1e-1, 1e-3, 1.0, 1e-4)}, "C"),
    "svm": _Kind(lambda seed: SoftmaxSVC(), {"C": (1e-3, 1e-2, 1e-4, 1e-1, 1e-5)}),
    "lda": _Kind(lambda seed: Discriminant(), {"shrinkage": (0.3, 0.1, 0.6, 0.9, 0.03)}),
    "knn": _Kind(
        lambda seed: KNeighborsClassifier(weights="distance", algorithm="brute"),
        {"n_neighbors": (5, 1, 3, 10, 20), "metric": ("cosine", "euclidean")},
    ),
    "prototype": _Kind(lambda seed: Prototypes(), {"metric": ("cosine", "euclidean")}),
    "mlp": _Kind(
        lambda seed: MLPClassifier((128,), batch_size=64, max_iter=40, random_state=seed),
        {"alpha": (1.0, 10.0, 0.1, 0.01)},
    ),
}
POOLED_KINDS = tuple(_KINDS)


def pooled_head(kind: str = "logistic", *, folds: int = 3, seed: int = 0, **options: Any) -> TunedClassifier:
    """A classifier of embeddings, as a scikit-learn estimator: dimensions standardised, then one of these.

    * "logistic": multinomial logistic regression; C is chosen.
    * "svm": linear support vector machine with calibrated probabilities (`SoftmaxSVC`); C is chosen.
    * "lda": linear discriminant analysis (`Discriminant`); the shrinkage is chosen.
    * "knn": nearest neighbours, weighted by distance; their number and the metric, cosine or Euclidean, are chosen.
    * "prototype": nearest class mean (`Prototypes`); the metric is chosen.
    * "mlp": one hidden layer of 128, 40 epochs; the weight decay alpha is chosen.

    What is chosen, is chosen in folds of what it is fitted on, by group where `fit` is given groups: by balanced
    accuracy, C of "logistic" by likelihood and the one-standard-error rule; see `TunedClassifier`.

    Args:
        kind: one of these.
        folds: to choose by, at most.
        seed: of the folds and of the MLP.
        options: parameters of the classifier by scikit-learn's names, such as `C` or `class_weight="balanced"`
            (logistic, svm, lda); a list is searched, anything else is fixed.

    Raises:
        ParameterError: if the kind or an option is not known, or a list is empty.

    Example:
        head = pooled_head("svm", class_weight="balanced").fit(X, emotions, groups=speakers)
    """
    if kind not in _KINDS:
        raise ParameterError(unknown_kind(kind, POOLED_KINDS))
    if not folds >= 2:
        raise ParameterError(f"folds={folds} must be at least 2")
    make, usual, inverse = _KINDS[kind]
    classifier, grid = make(seed), dict(usual)
    known = classifier.get_params()
    for name, value in options.items():
        if name == "class_weight" and value is None:
            continue
        if name not in known or name == "random_state":
            raise ParameterError(f"{name!r} is no option of {kind!r}; it takes {', '.join(sorted(known))}")
        if value == []:
            raise ParameterError(f"{name}=[] holds no value to choose from; give at least one")
        grid[name] = tuple(value) if isinstance(value, list) else (value,)
    pipeline = Pipeline([("scale", StandardScaler()), (CLASSIFIER, classifier)])
    named = {f"{CLASSIFIER}__{name}": values for name, values in grid.items()}
    return TunedClassifier(pipeline, named, folds, seed, inverse and f"{CLASSIFIER}__{inverse}")


def unknown_kind(kind: str, kinds: Sequence[str]) -> str:
    """What to say of a kind of head that there is not."""
    near = get_close_matches(str(kind), kinds, 2)
    meant = f"did you mean {' or '.join(map(repr, near))}? The kinds are" if near else "use one of"
    return f"unknown kind of head {kind!r}; {meant} {', '.join(kinds)}"


def inner_folds(labels: ArrayLike, groups: ArrayLike | None, folds: int, seed: int) -> list[Fold]:
    """Folds of training data to choose something by; as many as can be made, none if not even two can.

    Unlike `make_folds` it bears rare classes and few groups: rows of a class that a fold does not train are not
    tested in it.

    Args:
        labels: `[n]`.
        groups: `[n]`, kept whole; None for folds of rows.
        folds: the most.
        seed: of the shuffling.

    Raises:
        ParameterError: if there is not one group a row.
    """
    codes = pd.factorize(np.asarray(labels))[0]
    units = None if groups is None else pd.factorize(np.asarray(groups))[0]
    if units is not None and len(units) != len(codes):
        raise ParameterError(f"{len(codes)} labels and {len(units)} groups; give one of each for every row")
    num = min(folds, int(np.bincount(codes, minlength=1).max()), len(codes) if units is None else int(units.max()) + 1)
    if num < 2:
        return []
    kind = StratifiedKFold if units is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        pairs = list(kind(num, shuffle=True, random_state=seed).split(codes, codes, units))
    tested = [(train, test[np.isin(codes[test], codes[train])]) for train, test in pairs]
    kept = [(train, test) for train, test in tested if len(test) and len(np.unique(codes[train])) > 1]
    return kept if len(kept) > 1 else []
