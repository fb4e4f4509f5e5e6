"""Training a network on frames: the loop, when it ends, and which of its weights are kept."""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import gt
from typing import Any

import torch
from torch import Tensor, nn

from speechfeat.errors import ParameterError
from speechfeat.heads.batches import FrameBatches
from speechfeat.heads.networks import NORMALIZE, FrameNetwork
from speechfeat.heads.objectives import Objective, Validation

# The weights of layers are few and far from where they end: with Adam, whose steps are about as long as its rate, they
# would move by less than 1 in a thousand steps of 1e-3. With 50 times the rate they end on one layer, and not the best.
MIX_RATE, MOST_MIX_RATE = 10.0, 0.1
CLIP = 5.0


@dataclass(frozen=True)
class FrameConfig:
    """How a head on frames is made and trained.

    Attributes:
        learning_rate: of AdamW; the layer weights have ten times of it, at most 0.1.
        epochs: the most.
        patience: epochs without a better validation score or a lower validation loss after which training ends.
        validation_share: of the training utterances, on which the best epoch is chosen; 0 for none, then the last epoch
            is kept.
        batch_size: the most utterances in a batch.
        batch_frames: the most frames in a padded batch; see `FrameBatches`.
        crop_seconds: of a longer utterance, a stretch of this length is taken in each epoch; None takes all.
        width: of the body.
        hidden: sizes of hidden layers between the pooled vector and the embedding.
        embedding_dim: size of the embedding.
        dropout: probability.
        weight_decay: of AdamW.
        class_weight: "balanced" for every class to count the same, a weight for each class by its name, or None for
            every utterance to count the same.
        normalize: of the features: "standard", "layer" or "none"; see `modules.Standardize`.
        mix_starts: trainings beside the one whose mix of layers starts even, as in SUPERB: each starts with nine tenths
            of the weight on one of so many layers that a linear probe finds best on the validation part, and the best
            head is kept.
        seed: of the weights, the batches, dropout and the validation split. On a CPU, with as many threads, equal seeds
            give equal weights.
        device: torch device, or "auto".
        cache_bytes: of memory for frames that were read, so that they are not read in every epoch.

    Raises:
        ParameterError: for a value out of range.
    """

    learning_rate: float = 1e-3
    epochs: int = 40
    patience: int = 8
    validation_share: float = 0.15
    batch_size: int = 32
    batch_frames: int = 16000
    crop_seconds: float | None = None
    width: int = 128
    hidden: tuple[int, ...] = ()
    embedding_dim: int = 128
    dropout: float = 0.2
    weight_decay: float = 1e-2
    class_weight: str | Mapping[str, float] | None = None
    normalize: str = "standard"
    mix_starts: int = 3
    seed: int = 0
    device: str = "auto"
    cache_bytes: int = 2**30

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for name in ("epochs", "patience", "batch_size", "batch_frames", "width", "embedding_dim"):
            _check(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("seed", "cache_bytes", "weight_decay"):
            _check(self, name, getattr(self, name) >= 0, "at least 0")
        _check(self, "learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        _check(self, "dropout", 0 <= self.dropout < 1, "from 0 to below 1")
        _check(self, "validation_share", 0 <= self.validation_share <= 0.5, "from 0 to 0.5")
        _check(self, "crop_seconds", self.crop_seconds is None or self.crop_seconds > 0, "above 0, or None")
        _check(self, "hidden", all(size >= 1 for size in self.hidden), "sizes of at least 1")
        _check(self, "normalize", self.normalize in NORMALIZE, f"one of {', '.join(NORMALIZE)}")
        _check(self, "mix_starts", self.mix_starts >= 0, "at least 0")
        named = not isinstance(self.class_weight, str) or self.class_weight == "balanced"
        _check(self, "class_weight", named, "'balanced', a weight for each class, or None")

    def options(self) -> dict[str, Any]:
        """What decides the result, as JSON values: neither device nor memory."""
        names = [one.name for one in fields(self) if one.name not in ("device", "cache_bytes")]
        values = {name: getattr(self, name) for name in names}
        weights = self.class_weight
        return {
            **values,
            "hidden": list(self.hidden),
            "class_weight": dict(weights) if isinstance(weights, Mapping) else weights,
        }


def _check(config: FrameConfig, name: str, is_right: bool, allowed: str) -> None:
    if not is_right:
        raise ParameterError(f"{name}={getattr(config, name)!r} must be {allowed}")


@dataclass
class Fit:
    """How a training went.

    Attributes:
        state: the weights kept, on the CPU.
        epoch: that they are of, from 1; 0 if it was stopped before one was over.
        score: of the validation after that epoch; None without validation.
        rank: of that epoch, larger for the better of two; see `Validation`.
        history: loss and validation score of every epoch.
        ended: by "epochs", "patience", "stop", or "divergence".
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    epoch: int = 0
    score: float | None = None
    rank: tuple[float, ...] = (-math.inf,)
    history: list[dict[str, float | None]] = field(default_factory=list)
    ended: str = "epochs"


class Training:
    """One training of a network.

    Args:
        network: changed in place; on the device.
        objective: what it is trained for.
        train: batches to train on.
        validation: batches to choose the epoch by; None for the last epoch.
        config: how.
        device: of the batches.
    """

    def __init__(
        self,
        network: FrameNetwork,
        objective: Objective,
        train: FrameBatches,
        validation: FrameBatches | None,
        *,
        config: FrameConfig,
        device: torch.device,
    ) -> None:
        self.network, self.objective, self.config, self.device = network, objective, config, device
        self.train, self.validation = train, validation
        self.optimizer = _optimizer(network, config)
        self.result = Fit()

    def run(self, on_best: Callable[[Fit], None] | None = None, stop: threading.Event | None = None) -> Fit:
        """Train until `patience` epochs brought nothing better; the network has the best weights then.

        Ctrl-C ends the training with the best weights so far, unless the caller has a `stop` of its own.

        Args:
            on_best: called after each epoch that is the best so far.
            stop: set it, from a signal handler or another thread, to end after the batch in flight.

        Raises:
            KeyboardInterrupt: by Ctrl-C before the first epoch is over.
        """
        try:
            self._run(on_best, stop)
        except KeyboardInterrupt:
            if stop is not None or not self.result.epoch:
                raise
            self.result.ended = "stop"
        if self.result.epoch:
            self.network.load_state_dict(self.result.state)
        self.network.eval()
        return self.result

    def _run(self, on_best: Callable[[Fit], None] | None, stop: threading.Event | None) -> None:
        result, waited = self.result, 0
        highest: tuple[float, ...] = ()
        for epoch in range(self.config.epochs):
            loss = self._learn(epoch, stop)
            if loss is None:
                result.ended = "stop"
                return
            found = self._validate(epoch)
            if not all(map(math.isfinite, (loss, *found.rank))):
                result.ended = "divergence"
                return
            result.history.append({"loss": loss, "score": found.score})
            # A score of few utterances stands still for epochs in which the loss tells that more is being learnt.
            waited = 0 if not highest or any(map(gt, found.rank, highest)) else waited + 1
            highest = tuple(map(max, found.rank, highest)) if highest else found.rank
            if found.rank > result.rank:
                self._keep(epoch, found)
                if on_best is not None:
                    on_best(result)
            if waited >= self.config.patience:
                result.ended = "patience"
                return

    def _learn(self, epoch: int, stop: threading.Event | None) -> float | None:
        """The mean loss of the utterances; None where it was stopped."""
        self.network.train()
        total = torch.zeros((), device=self.device)
        for batch in self.train.epoch(epoch):
            if stop is not None and stop.is_set():
                return None
            self.optimizer.zero_grad()
            loss = self.objective.loss(self.network, batch.to(self.device))
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
            self.optimizer.step()
            total += loss.detach() * len(batch.rows)
        return total.item() / len(self.train.rows)

    def _validate(self, epoch: int) -> Validation:
        if self.validation is None:
            return Validation(None, (epoch,))
        self.network.eval()
        with torch.inference_mode():
            return self.objective.validate(self.network, self.validation, self.device)

    def _keep(self, epoch: int, found: Validation) -> None:
        state = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        result = self.result
        result.state, result.epoch, result.score, result.rank = state, epoch + 1, found.score, found.rank


def _optimizer(network: FrameNetwork, config: FrameConfig) -> torch.optim.Optimizer:
    mix = list(network.mix.parameters())
    others = [value for name, value in network.named_parameters() if not name.startswith("mix.")]
    groups = [
        {"params": [value for value in others if value.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [value for value in others if value.ndim < 2], "weight_decay": 0.0},
        {"params": mix, "weight_decay": 0.0, "lr": min(MIX_RATE * config.learning_rate, MOST_MIX_RATE)},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)
