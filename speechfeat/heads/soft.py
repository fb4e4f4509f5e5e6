"""Classifiers of embeddings that learn from probabilities, such as a teacher's, beside labels or in their place.

classifier = fit_soft_logistic(Z, codes, teacher, temperature=4, alpha=0.5, beta=0.5)
classifier = fit_soft_discriminant(Z, shares)

Both give fitted classifiers like any other; what is trained so is saved as any head is.
"""

from typing import TypeVar

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from speechfeat.errors import ParameterError
from speechfeat.heads.classifiers import Discriminant
from speechfeat.heads.examples import UNKNOWN

Linear = TypeVar("Linear", LogisticRegression, Discriminant)

MAX_ITERATIONS = 1000
SMALLEST = 1e-12


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far a student is from a teacher, both softened: `T^2 * KL(teacher || student)` (Hinton et al., 2015).

    The factor keeps gradients as large as those of labels, whatever the temperature.

    Args:
        student: logits.
        teacher: logits or logarithms of probabilities, all finite.
        temperature: T, that both are divided by.

    Shape:
        student `[n, C]`, teacher `[n, C]` -> `[n]`
    """
    found, wanted = (F.log_softmax(values / temperature, dim=1) for values in (student, teacher))
    return temperature**2 * F.kl_div(found, wanted, log_target=True, reduction="none").sum(dim=1)


def check_distillation(temperature: float, alpha: float, beta: float) -> None:
    """Refuse numbers that a distillation cannot have.

    Raises:
        ParameterError: if one is out of range.
    """
    if not 0 < temperature < np.inf or not 0 <= alpha < np.inf or not 0 <= beta < np.inf or alpha + beta == 0:
        raise ParameterError(
            f"temperature={temperature} must be above 0, alpha={alpha} and beta={beta} at least 0 and not both 0"
        )


def log_shares(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, finite for what is impossible too."""
    return np.log(np.maximum(probabilities, SMALLEST))


def fit_soft_logistic(
    values: np.ndarray,
    codes: np.ndarray,
    teacher: np.ndarray,
    *,
    temperature: float = 2.0,
    alpha: float = 0.5,
    beta: float = 0.5,
    C: float = 0.01,  # noqa: N803 - scikit-learn's name
) -> LogisticRegression:
    """Logistic regression by labels and a teacher: `alpha * T^2 * KL + beta * cross-entropy` (Hinton et al., 2015).

    With alpha=0 and beta=1 it is scikit-learn's, for three classes or more.

    Args:
        values: embeddings, standardised.
        codes: number of the class of each; -1 where it is not known.
        teacher: logits, or logarithms of probabilities; rows of NaN where the teacher has said nothing.
        temperature: T.
        alpha: weight of the teacher.
        beta: weight of the labels.
        C: inverse strength of the regularisation, as in scikit-learn.

    Shape:
        values `[n, D]`, codes `[n]`, teacher `[n, C]`

    Raises:
        ParameterError: if a number is out of range, or shapes do not agree.
    """
    check_distillation(temperature, alpha, beta)
    if np.ndim(teacher) != 2 or not len(values) == len(codes) == len(teacher):
        raise ParameterError(
            f"values {np.shape(values)}, codes {np.shape(codes)} and the teacher's answers {np.shape(teacher)} do not "
            "agree; give [n, D], [n] and [n, C]"
        )
    inputs, wanted = torch.from_numpy(np.asarray(values, np.float64)), torch.from_numpy(np.asarray(teacher, np.float64))
    labels = torch.from_numpy(np.asarray(codes, np.int64))
    told = ~wanted.isnan().any(dim=1)
    num_classes = wanted.shape[1]

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.from_numpy(flat).reshape(-1, num_classes).requires_grad_()
        logits = inputs @ parameters[:-1] + parameters[-1]
        total = beta * F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="sum")
        if alpha:
            total = total + alpha * distillation_loss(logits[told], wanted[told], temperature).sum()
        loss = total / len(inputs) + 0.5 / (C * len(inputs)) * parameters[:-1].square().sum()
        loss.backward()
        assert parameters.grad is not None
        return loss.item(), parameters.grad.numpy().ravel()

    start = np.zeros((inputs.shape[1] + 1) * num_classes)
    options = {"maxiter": MAX_ITERATIONS, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}  # scikit-learn's
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x
    parameters = found.reshape(-1, num_classes).T
    if num_classes == 2:
        parameters = parameters[1:] - parameters[:1]
    return _set_linear(LogisticRegression(C=C), parameters[:, :-1], parameters[:, -1])


def fit_soft_discriminant(values: np.ndarray, shares: np.ndarray, *, shrinkage: float = 0.3) -> Discriminant:
    """Linear discriminant analysis of examples that are each of several classes to some share; all classes alike.

    Where every share is 0 or 1 it is `Discriminant(shrinkage, "balanced")`.

    Args:
        values: embeddings, standardised.
        shares: of each class in each example, not below 0; every class has some.
        shrinkage: of the covariance, from above 0 to 1.

    Shape:
        values `[n, D]`, shares `[n, C]`

    Raises:
        ParameterError: if a class has no share, or the shrinkage is out of range.
    """
    if not 0 < shrinkage <= 1:
        raise ParameterError(f"shrinkage={shrinkage} must be above 0 and at most 1")
    inputs, masses = np.asarray(values), np.asarray(shares, values.dtype)
    totals = masses.sum(axis=0)
    if not (totals > 0).all():
        raise ParameterError(f"class {int(np.argmin(totals))} has no example; give at least one of each class")
    masses = masses / totals / len(totals)
    means = len(totals) * masses.T @ inputs
    # Of the spread about the class means, all classes alike.
    rows = inputs * np.sqrt(masses.sum(axis=1, keepdims=True))
    covariance = rows.T @ rows - means.T @ means / len(totals)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / len(covariance) * np.eye(
        len(covariance), dtype=inputs.dtype
    )
    weight = np.linalg.solve(covariance, means.T).T
    bias = -0.5 * (means * weight).sum(axis=1)
    if len(bias) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return fitted_discriminant(weight, bias, shrinkage)


def fitted_discriminant(weight: np.ndarray, bias: np.ndarray, shrinkage: float) -> Discriminant:
    """What would have been fitted to have these weights; of two classes, what they differ by.

    Shape:
        weight `[C, D]`, bias `[C]`; of two classes `[1, D]` and `[1]`
    """
    classifier = Discriminant(shrinkage, "balanced", temperature=1.0)
    classifier.temperature_ = 1.0
    return _set_linear(classifier, weight, bias)


def _set_linear(classifier: Linear, weight: np.ndarray, bias: np.ndarray) -> Linear:
    classifier.classes_ = np.arange(max(2, len(bias)))
    classifier.coef_, classifier.intercept_ = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    classifier.n_features_in_ = weight.shape[1]
    return classifier
