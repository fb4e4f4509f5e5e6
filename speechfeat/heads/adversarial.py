"""A classifier of embeddings whose hidden layer does not tell two domains apart (Ganin et al., 2016: DANN)."""

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neural_network import MLPClassifier
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.errors import ParameterError

# What scikit-learn's semi-supervised classifiers call a row without a label.
UNLABELLED = -1
# Of the schedules in the paper: both are functions of the share of the training that is over.
STEEPNESS, DECAY, DECAY_POWER, MOMENTUM = 10.0, 10.0, 0.75, 0.9


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(values: Tensor, strength: float = 1.0) -> Tensor:
    """The values as they are, whose gradient comes back times `-strength`.

    Shape:
        values `[...]` -> `[...]`
    """
    return _Reversal.apply(values, strength)


class AdversarialClassifier(ClassifierMixin, BaseEstimator):
    """A network of one hidden layer that tells the classes of a source and cannot tell source from target.

    Behind the hidden layer one branch tells classes, learning from the labelled rows, and another, behind a reversed
    gradient, tells domains, learning from all: the hidden layer learns what helps the one and hinders the other. Half
    of each batch is of the target. The strength of the reversal grows from 0 along `2 / (1 + exp(-10 p)) - 1` with the
    share p of the training that is over, and the learning rate falls by `(1 + 10 p) ** -0.75`, as in the paper.

    Rows of unlike scales are to be standardised first.

    Args:
        width: of the hidden layer, and of that of the branch that tells domains.
        strength: of the reversal at the end; 0 trains on the source alone.
        steps: of the training.
        batch_size: rows of each domain in a batch.
        learning_rate: at the beginning, of gradient descent with momentum 0.9.
        weight_decay: of all weights.
        seed: of the weights and the batches.

    Attributes:
        classes_: `[C]`.
        network_: the branch that tells classes, as scikit-learn's multi-layer perceptron.
        domain_accuracy_: share of the rows whose domain the other branch told at the end, averaged over both domains;
            0.5 is what guessing gives.

    Example:
        labels = np.concatenate([source_labels, np.full(len(target), UNLABELLED)])
        AdversarialClassifier().fit(np.concatenate([source, target]), labels).predict(others_of_the_target)
    """

    def __init__(  # noqa: PLR0917 - an estimator's parameters are set by name
        self,
        width: int = 128,
        strength: float = 1.0,
        steps: int = 1000,
        batch_size: int = 64,
        learning_rate: float = 0.01,
        weight_decay: float = 1e-2,
        seed: int = 0,
    ) -> None:
        self.width = width
        self.strength = strength
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.seed = seed

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's name
        """Train it.

        Args:
            X: `[n, D]`, rows of both domains.
            y: `[n]`, whole numbers: classes of the source, `UNLABELLED` for rows of the target.

        Raises:
            ParameterError: if a parameter is out of range, there are not two classes, nothing is of the target, or the
                loss diverges.
        """
        self._check()
        values, labels = validate_data(self, X, y, dtype=np.float32)
        is_target = labels == UNLABELLED
        self.classes_ = np.unique(labels[~is_target])
        if len(self.classes_) < 2 or not is_target.any():
            raise ParameterError(
                f"{len(self.classes_)} classes and {int(is_target.sum())} rows of the target (labelled {UNLABELLED}): "
                "there must be two classes and one row of the target, or more"
            )
        codes = torch.from_numpy(np.searchsorted(self.classes_, labels[~is_target]))
        source, target = torch.from_numpy(values[~is_target]), torch.from_numpy(values[is_target])
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            model = _Branches(values.shape[1], self.width, len(self.classes_))
            self._train(model, source, target, codes)
        model.eval()
        with torch.inference_mode():
            hidden = [model.hidden(rows) for rows in (source, target)]
            told = [model.domain(rows)[:, 0].sigmoid().numpy() > 0.5 for rows in hidden]
        self.domain_accuracy_ = float((1 - told[0].mean() + told[1].mean()) / 2)
        self.network_ = _as_perceptron(model, len(self.classes_))
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Of every class, `[n, C]`."""
        check_is_fitted(self)
        return self.network_.predict_proba(validate_data(self, X, dtype=np.float32, reset=False))

    def predict(self, X: ArrayLike) -> np.ndarray:  # noqa: N803 - scikit-learn's name
        """Classes, `[n]`."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _check(self) -> None:
        for name in ("width", "steps", "batch_size"):
            if not getattr(self, name) >= 1:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("strength", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least 0")
        if not 0 < self.learning_rate < math.inf:
            raise ParameterError(f"learning_rate={self.learning_rate} must be above 0")

    def _train(self, model: "_Branches", source: Tensor, target: Tensor, codes: Tensor) -> None:
        optimizer = torch.optim.SGD(
            model.parameters(), self.learning_rate, momentum=MOMENTUM, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + DECAY * step / self.steps) ** -DECAY_POWER
        )
        domains = torch.cat([torch.zeros(self.batch_size), torch.ones(self.batch_size)])
        drawn = [_rows(len(rows), self.batch_size) for rows in (source, target)]
        for step in range(self.steps):
            some, others = (next(rows) for rows in drawn)
            hidden = model.hidden(torch.cat([source[some], target[others]]))
            strength = self.strength * (2 / (1 + math.exp(-STEEPNESS * step / self.steps)) - 1)
            told = model.domain(reverse_gradient(hidden, strength))[:, 0]
            loss = F.cross_entropy(model.classes(hidden[: len(some)]), codes[some])
            loss = loss + F.binary_cross_entropy_with_logits(told, domains)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if not torch.isfinite(loss):
            raise ParameterError(f"the loss became {loss.item()}; use a learning_rate below {self.learning_rate}")


class _Branches(nn.Module):
    """The hidden layer and the two that look at it."""

    def __init__(self, dim: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(dim, width), nn.ReLU())
        self.classes = nn.Linear(width, num_classes)
        self.domain = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def _rows(count: int, size: int) -> Iterator[Tensor]:
    """Rows of one batch after another, without end; each comes as often as the others, however few there are."""
    left = torch.randperm(count)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(count)])
        yield left[:size]
        left = left[size:]


def _as_perceptron(model: _Branches, num_classes: int) -> MLPClassifier:
    """The branch that tells classes, with the weights where scikit-learn has them after fitting."""
    state = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    weights = [state["hidden.0.weight"].T, state["classes.weight"].T]
    biases = [state["hidden.0.bias"], state["classes.bias"]]
    if num_classes == 2:  # one output there: how much likelier the second is
        weights[1], biases[1] = weights[1][:, 1:] - weights[1][:, :1], biases[1][1:] - biases[1][:1]
    found = MLPClassifier((len(biases[0]),))
    found.classes_ = np.arange(num_classes)
    found.coefs_, found.intercepts_, found.n_layers_ = weights, biases, 3
    found.n_outputs_, found.out_activation_ = (1, "logistic") if num_classes == 2 else (num_classes, "softmax")
    found.n_features_in_ = len(weights[0])
    return found
