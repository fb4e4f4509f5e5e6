"""How a model is trained: length, rates over time, precision."""

import math
from dataclasses import dataclass

from speechfeat.distillation.training import TRAINING_DTYPES
from speechfeat.errors import ParameterError


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        epochs: the most.
        patience: epochs without a better validation score or a lower validation loss after which training ends.
        warmup: share of all steps in which the rate of a part rises, from when it begins to learn.
        decay: whether rates fall to 0 along a cosine; else they stay.
        weight_decay: of matrices; norms and biases have none.
        clip: of the gradient's norm.
        accumulate: batches whose gradients are added up for a step.
        norm_statistics: let the batch norms of blocks that learn take the statistics of batches, padding included.
        dtype: of the matrix products: auto, float32, bfloat16. Weights and their updates are in float32.
        checkpoint_seconds: between two checkpoints, of which there is one after every epoch too; how often does not
            change the result.
        seed: of dropout.

    Raises:
        ParameterError: for a value out of range.
    """

    epochs: int = 10
    patience: int = 3
    warmup: float = 0.1
    decay: bool = True
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulate: int = 1
    norm_statistics: bool = False
    dtype: str = "float32"
    checkpoint_seconds: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "accumulate"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("weight_decay", "seed", "checkpoint_seconds"):
            if getattr(self, name) < 0:
                raise ParameterError(f"{name}={getattr(self, name)} must be at least 0")
        if not 0 <= self.warmup < 1:
            raise ParameterError(f"warmup={self.warmup} must be a share of the steps, from 0 to below 1")
        if not self.clip > 0:
            raise ParameterError(f"clip={self.clip} must be above 0")
        if self.dtype not in TRAINING_DTYPES:
            raise ParameterError(f"dtype={self.dtype!r} must be {', '.join(TRAINING_DTYPES)}")

    def factor(self, step: int, steps: int, begun: int = 0) -> float:
        """The share of its highest rate that a part has at a step of `steps`, if it begins to learn at `begun`."""
        rising = min(1.0, (step - begun + 1) / max(1, round(self.warmup * steps)))
        return rising * (0.5 * (1 + math.cos(math.pi * step / steps)) if self.decay else 1.0)
