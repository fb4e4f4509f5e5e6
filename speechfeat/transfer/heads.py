"""Heads that are trained with an encoder: logistic regression on pooled layers, or a network on frames.

Each has the form of a head on stored features, so that it can be fitted as one, and saved as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from speechfeat.errors import ParameterError
from speechfeat.heads.modules import valid_frames
from speechfeat.heads.networks import KINDS, FrameNetwork
from speechfeat.pooling import check_pool, pooled_dim

POOLS = ("mean", "std", "mean+std", "max")
LOGISTIC = "logistic"


@dataclass(frozen=True)
class HeadShape:
    """What a new head is like; see `new_head`.

    Attributes:
        kind: of the head.
        num_classes: C.
        pool: of the features it takes, "none" for frames.
        dropout: probability.
        options: of a `FrameNetwork`.
    """

    kind: str
    num_classes: int
    pool: str
    dropout: float
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self, num_layers: int, dim: int) -> nn.Module:
        """The head, for L layers of D dimensions."""
        if self.kind == LOGISTIC:
            return PooledClassifier(num_layers, dim, self.num_classes, self.pool, self.dropout)
        return FrameNetwork(self.kind, **self.network(num_layers, dim))

    def network(self, num_layers: int, dim: int) -> dict[str, Any]:
        """The arguments of a `FrameNetwork` after its kind."""
        # With statistics of its own for every frame: those of features that are about to change would soon be wrong.
        shape = {"num_layers": num_layers, "dim": dim, "num_classes": self.num_classes, "normalize": "layer"}
        return {**shape, "dropout": self.dropout, "embedding_dim": 128, "scale": None, **self.options}


def new_head(
    num_classes: int, kind: str = LOGISTIC, *, pool: str = "mean+std", dropout: float = 0.0, **options: Any
) -> HeadShape:
    """A head to be trained with an encoder.

    Args:
        num_classes: C.
        kind: "logistic" on pooled layers, or one of `FRAME_KINDS` on frames.
        pool: of a logistic head, one of `POOLS`.
        dropout: probability.
        options: of a `FrameNetwork`, such as `width`.

    Raises:
        ParameterError: if the kind or the pooling is not known.
    """
    if kind == LOGISTIC:
        return HeadShape(kind, num_classes, check_pool(pool, POOLS), dropout)
    if kind not in KINDS:
        raise ParameterError(f"kind={kind!r} is no head to train an encoder with; use {', '.join((LOGISTIC, *KINDS))}")
    return HeadShape(kind, num_classes, "none", dropout, options)


class PooledClassifier(nn.Module):
    """Logistic regression on pooled layers, side by side and standardised.

    Args:
        num_layers: L.
        dim: D.
        num_classes: C.
        pool: one of `POOLS`.
        dropout: of the standardised vector, in training.

    Shape:
        frames `[B, L, T, D]`, lengths `[B]`, each at least 1 -> `[B, C]`
    """

    def __init__(self, num_layers: int, dim: int, num_classes: int, pool: str, dropout: float) -> None:
        super().__init__()
        self.pool = pool
        width = num_layers * pooled_dim(pool, dim)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.mean: Tensor
        self.scale: Tensor
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """What is classified: the pooled layers as a store has them, `[B, L * D']`."""
        return pool_padded(frames, lengths, self.pool).flatten(1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """A number for each class."""
        return self.linear(self.dropout((self.embed(frames, lengths) - self.mean) / self.scale))

    @torch.no_grad()
    def take(self, pipeline: Pipeline) -> None:
        """Become a fitted pipeline of `StandardScaler` and `LogisticRegression`.

        Raises:
            ParameterError: if it takes other features, or tells other classes.
        """
        scaler, classifier = pipeline[0], pipeline[-1]
        found, wanted = (len(scaler.mean_), len(classifier.classes_)), (len(self.mean), len(self.linear.bias))
        if found != wanted:
            raise ParameterError(
                f"a head of {found[0]} dimensions and {found[1]} classes cannot begin the training of one of "
                f"{wanted[0]} dimensions and {wanted[1]} classes; fit it on the same layers, pooling and labels"
            )
        self.mean.copy_(torch.from_numpy(scaler.mean_))
        self.scale.copy_(torch.from_numpy(scaler.scale_))
        weight, bias = classifier.coef_, classifier.intercept_
        if len(bias) == 1:  # of two classes, whose numbers differ by it
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        self.linear.weight.copy_(torch.from_numpy(weight))
        self.linear.bias.copy_(torch.from_numpy(bias))

    def pipeline(self) -> Pipeline:
        """The pipeline that answers as this does."""
        mean, scale, weight, bias = (
            value.detach().cpu().double().numpy()
            for value in (self.mean, self.scale, self.linear.weight, self.linear.bias)
        )
        scaler, classifier = StandardScaler(), LogisticRegression()
        scaler.mean_, scaler.scale_ = mean, scale
        scaler.n_features_in_ = classifier.n_features_in_ = len(mean)
        classifier.classes_ = np.arange(len(bias))
        is_binary = len(bias) == 2
        classifier.coef_ = weight[1:] - weight[:1] if is_binary else weight
        classifier.intercept_ = bias[1:] - bias[:1] if is_binary else bias
        return Pipeline([("scale", scaler), ("classify", classifier)])


def pool_padded(frames: Tensor, lengths: Tensor, pool: str) -> Tensor:
    """What `pooling.Pooler` gives for each utterance, with gradients.

    Shape:
        frames `[B, L, T, D]`, lengths `[B]`, each at least 1 -> `[B, L, D']`
    """
    frames = frames.float()
    valid = valid_frames(lengths, frames.shape[2])[:, None, :, None]
    if pool == "max":
        return frames.masked_fill(~valid, -torch.inf).amax(dim=2)
    counts = lengths[:, None, None]
    mean = frames.masked_fill(~valid, 0.0).sum(dim=2) / counts
    if pool == "mean":
        return mean
    variance = (frames - mean[:, :, None]).masked_fill(~valid, 0.0).square().sum(dim=2) / counts
    # The root of what does not vary has no finite gradient.
    varies = variance > 0
    deviation = torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)
    return deviation if pool == "std" else torch.cat([mean, deviation], dim=-1)
