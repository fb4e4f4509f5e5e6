"""What heads on frames are trained for, and how good one is."""

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from speechfeat.classification import average_recall
from speechfeat.errors import ParameterError
from speechfeat.heads.batches import FrameBatch, FrameBatches
from speechfeat.heads.networks import FrameNetwork
from speechfeat.probing import probe_layers


class Validation(NamedTuple):
    """How good a network is on utterances that it was not trained on.

    Attributes:
        score: in the metric of the objective; None without validation.
        rank: larger for the better of two networks; training goes on while one of its numbers grows.
    """

    score: float | None
    rank: tuple[float, ...]


class Objective(Protocol):
    """What is trained for.

    Attributes:
        metric: name of the validation score.
    """

    metric: str

    def loss(self, network: FrameNetwork, batch: FrameBatch) -> Tensor:
        """Of a batch, to be made smaller."""

    def validate(self, network: FrameNetwork, batches: FrameBatches, device: torch.device) -> Validation:
        """The score on all of the batches."""

    def probe(self, pooled: np.ndarray, rows: np.ndarray, num_train: int) -> list[float]:
        """How well each layer does alone, larger for better.

        Args:
            pooled: mean and deviation over the frames, `[m, L, 2 D]`.
            rows: `[m]`, which of the reader's utterances they are of.
            num_train: of them, from the first, to learn from; the rest is scored.
        """


class CrossEntropy:
    """Telling classes apart; validated by the recall averaged over classes, and between equals by the loss.

    Args:
        classes: `[n]`, number of the class of each of the reader's utterances.
        weights: `[C]` of the classes in the loss; None counts all utterances the same.
    """

    metric = "uar"

    def __init__(self, classes: np.ndarray, weights: np.ndarray | None = None) -> None:
        self.classes = classes
        self.weights = None if weights is None else torch.from_numpy(weights.astype(np.float32))

    def loss(self, network: FrameNetwork, batch: FrameBatch) -> Tensor:
        """Of a batch."""
        return self._loss(network(batch.frames, batch.lengths), batch.rows)

    def validate(self, network: FrameNetwork, batches: FrameBatches, device: torch.device) -> Validation:
        """The score on all of the batches."""
        parts = [(network(*batch.to(device)[:2]), batch.rows) for batch in batches.once()]
        logits, rows = torch.cat([part for part, _ in parts]), np.concatenate([part for _, part in parts])
        score = average_recall(self.classes[rows], logits.argmax(dim=1).cpu().numpy())
        return Validation(score, (score, -self._loss(logits, rows).item()))

    def probe(self, pooled: np.ndarray, rows: np.ndarray, num_train: int) -> list[float]:
        """By logistic regression."""
        fold = np.arange(num_train), np.arange(num_train, len(rows))
        return [one.score for one in probe_layers(pooled, self.classes[rows], [fold], metric="uar", num=1)]

    def _loss(self, logits: Tensor, rows: np.ndarray) -> Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        return F.cross_entropy(logits, torch.from_numpy(self.classes[rows]).to(logits.device), weights)


def class_weights(
    asked: str | Mapping[str, float] | None, names: tuple[str, ...], classes: np.ndarray
) -> np.ndarray | None:
    """The weight of each class in the loss, 1 on average over the utterances.

    Args:
        asked: "balanced", a weight for each class by its name, or None; see `FrameConfig`.
        names: of the classes.
        classes: `[n]`, number of the class of each training utterance.

    Raises:
        ParameterError: if the weights named are not of just these classes, or one is not above 0.
    """
    if asked is None:
        return None
    if isinstance(asked, str):
        weights = 1 / np.maximum(1, np.bincount(classes, minlength=len(names)))
    else:
        if set(asked) != set(names) or not all(0 < weight < math.inf for weight in asked.values()):
            listed = ", ".join(names)
            raise ParameterError(f"class_weight={dict(asked)} must have a number above 0 for each class: {listed}")
        weights = np.array([asked[name] for name in names], float)
    return weights / weights[classes].mean()
