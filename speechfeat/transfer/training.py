"""The loop that trains a model by a regime for an objective, and goes on exactly where it was killed.

    trainer = Trainer(model, Gradual(), CrossEntropy(task), train, validation, config=config, directory="run")
    trainer.run()

Exactly means to the bit on a CPU; some kernels of CUDA do not give the same sums twice. What is drawn hangs on the seed
and the step alone, so that no generator's state has to be kept: weights, the optimiser's moments, the best weights so
far and the place in the data are.

It is a loop of its own, for what it needs is what trainers at hand do not do: a batch that is a function of epoch and
place (Lightning and transformers' Trainer resume by running through a loader's earlier batches, and keep the states of
four generators), learning rates that are asked for anew in every epoch, and parts in train or eval mode by what learns.
With either, the callbacks, data module and module around this loop's forty lines would be longer than those; Accelerate
would replace the two lines of autocast and clipping. Gradients, AdamW, autocast and clipping are torch's.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from operator import gt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechfeat.distillation.ahead import workers_for
from speechfeat.distillation.training import STATE, refuse_differences
from speechfeat.encoders.precision import Precision
from speechfeat.errors import ParameterError
from speechfeat.heads.objectives import Validation
from speechfeat.store_config import disk_errors, publish
from speechfeat.transfer.batches import TransferBatch, UtteranceBatches
from speechfeat.transfer.config import TrainConfig
from speechfeat.transfer.curves import Curves
from speechfeat.transfer.model import HEAD, Part, TransferModel
from speechfeat.transfer.objectives import Objective
from speechfeat.transfer.regimes import Rates, Regime


@dataclass
class TrainState:
    """How far a training has come; all but the weights of what it goes on from.

    Attributes:
        step: steps of the optimiser done.
        epoch: epochs done and validated.
        best: weights after the best epoch so far, by name.
        best_epoch: that one, 0 for the weights that training began with.
        rank: of it, larger for the better of two.
        score: of it; None without validation.
        highest: of each number of the rank, over all epochs.
        waited: epochs since one of them grew.
        ended: by "epochs" or "patience"; "" as long as it goes on.
        seconds: that it took.
        rows: of the curves, see `Curves`.
    """

    step: int = 0
    epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    rank: tuple[float, ...] = (-math.inf,)
    score: float | None = None
    highest: tuple[float, ...] = ()
    waited: int = 0
    ended: str = ""
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One training of a model.

    Args:
        model: what learns; changed in place, and left with the best weights.
        regime: which parts learn when, and how fast.
        objective: what for.
        train: utterances to learn from.
        validation: utterances that the best epoch is chosen by; None takes the last.
        config: how.
        directory: of the checkpoint and the curves; a training that is found there goes on.
        settings: further things that a training which goes on must have begun with, as JSON values.

    Attributes:
        steps: of the optimiser, at most.
        state: how far it is.

    Raises:
        ParameterError: if the directory holds a training with other settings.
    """

    def __init__(
        self,
        model: TransferModel,
        regime: Regime,
        objective: Objective,
        train: UtteranceBatches,
        validation: UtteranceBatches | None,
        *,
        config: TrainConfig,
        directory: str | Path,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.regime, self.objective, self.config = model, regime, objective, config
        self.train, self.validation, self.directory = train, validation, Path(directory)
        self.precision = Precision.choose(config.dtype, model.device)
        with disk_errors(f"make {directory}"):
            self.directory.mkdir(parents=True, exist_ok=True)
        with self._own_draws():
            self._seed(0)
            regime.prepare(model)
        model.to(model.device)
        per_epoch = [math.ceil(train.num_batches(epoch) / config.accumulate) for epoch in range(config.epochs)]
        self._first = [sum(per_epoch[:epoch]) for epoch in range(config.epochs + 1)]
        self.steps = self._first[-1]
        self._rates = [regime.rates(model.depth, epoch) for epoch in range(config.epochs)]
        self._begun = _begun(self._rates, self._first)
        self._trained = {
            name: (part, weight)
            for part, weights in model.parts().items()
            if part in self._begun
            for name, weight in weights
        }
        self.optimizer = self._make_optimizer()
        self.state = TrainState()
        self.settings = {**self._settings(), **(settings or {})}
        self._resume()
        self._clock = time.monotonic() - self.state.seconds
        self.curves = Curves(self.directory, self.state.rows, objective.metric)

    @property
    def num_trained(self) -> int:
        """Weights that learn at some time."""
        return sum(weight.numel() for _, weight in self._trained.values())

    def run(
        self, on_step: Callable[["Trainer", float], None] | None = None, stop: threading.Event | None = None
    ) -> bool:
        """Train to the end.

        Args:
            on_step: called after every step, with this and the loss of the step.
            stop: set it, from a signal handler or another thread, to end after the step in flight, saved.

        Returns:
            Whether the end was reached; the model then has the best weights.
        """
        with self.curves, self._own_draws():
            finished = self._run(on_step, stop)
        if finished:
            self._finish()
        return finished

    def _run(self, on_step: Callable[["Trainer", float], None] | None, stop: threading.Event | None) -> bool:
        state = self.state
        saved = time.monotonic()
        if not (state.step or state.ended):
            self._judge(0)
        while not state.ended:
            self.model.train_parts(self._learning(state.epoch), norm_statistics=self.config.norm_statistics)
            for batches in self._steps(state.epoch):
                loss = self._learn(batches)
                if on_step is not None:
                    on_step(self, loss)
                if stop is not None and stop.is_set():
                    self.save()
                    return False
                if time.monotonic() - saved > self.config.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
            state.epoch += 1
            self._judge(state.epoch)
            self.save()
        return True

    def _steps(self, epoch: int) -> Iterator[list[TransferBatch]]:
        """The batches of each step of an epoch that is not done yet."""
        count, taken = self.train.num_batches(epoch), self.config.accumulate
        done = (self.state.step - self._first[epoch]) * taken
        places = [(epoch, place) for place in range(done, count)]
        group: list[TransferBatch] = []
        for place, batch in enumerate(self.train.stream(places, workers_for(self.model.device, least=0)), done + 1):
            group.append(batch._replace(progress=self.state.step / self.steps))
            if len(group) == taken or place == count:
                yield group
                group = []

    def _learn(self, batches: list[TransferBatch]) -> float:
        state = self.state
        rates = self._rates[state.epoch]
        for group in self.optimizer.param_groups:
            part = group["part"]
            group["lr"] = rates.get(part, 0.0) * self.config.factor(state.step, self.steps, self._begun[part])
        self.optimizer.zero_grad()
        total = 0.0
        self._seed(state.step + 1)
        for batch in batches:
            with self._computing():
                loss = self.objective.loss(self.model, batch) / len(batches)
            loss.backward()
            total += loss.item()
        if not math.isfinite(total):
            raise ParameterError(
                f"the loss became {total} at step {state.step + 1} of {self.regime}; the last checkpoint is kept: "
                "begin anew in another directory with lower rates"
            )
        nn.utils.clip_grad_norm_([weight for _, weight in self._trained.values()], self.config.clip)
        self.optimizer.step()
        state.step += 1
        self.curves.add(step=state.step, epoch=state.epoch + 1, loss=total, rate=rates.get(HEAD, 0.0))
        return total

    def _judge(self, epoch: int) -> None:
        """Keep the weights if they are the best; decide whether to go on."""
        state = self.state
        found = self._validate(epoch)
        if not all(map(math.isfinite, found.rank)):
            raise ParameterError(
                f"the validation of epoch {epoch} of {self.regime} gave {found.rank}; begin anew with lower rates"
            )
        # A score of few utterances stands still for epochs in which the loss tells that more is being learnt.
        grew = not state.highest or any(map(gt, found.rank, state.highest))
        state.waited = 0 if grew else state.waited + 1
        state.highest = tuple(map(max, found.rank, state.highest)) if state.highest else found.rank
        if found.rank > state.rank:
            state.rank, state.score, state.best_epoch, state.best = found.rank, found.score, epoch, self._weights()
        self.curves.mark(found.score)
        if epoch == self.config.epochs:
            state.ended = "epochs"
        elif state.waited >= self.config.patience:
            state.ended = "patience"

    def _validate(self, epoch: int) -> Validation:
        if self.validation is None:
            return Validation(None, (epoch,))
        self.model.eval()
        with torch.no_grad(), self._computing():
            return self.objective.validate(self.model, self.validation)

    def _finish(self) -> None:
        """Give the model its best weights."""
        self._load(self.state.best)
        self.model.eval().requires_grad_(False)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self.state.seconds = time.monotonic() - self._clock
        target = self.directory / STATE
        state = {
            "settings": self.settings,
            "state": vars(self.state),
            "weights": self._weights(),
            "optimizer": self.optimizer.state_dict(),
        }
        with disk_errors(f"write {target}"):
            torch.save(state, target.with_suffix(".tmp"))
            publish(target.with_suffix(".tmp"), target)
        self.curves.write()

    def _resume(self) -> None:
        file = self.directory / STATE
        if not file.exists():
            return
        state = torch.load(file, map_location=self.model.device, weights_only=True)
        refuse_differences(self.directory, state["settings"], self.settings)
        self._load(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.state = TrainState(**state["state"])

    def _weights(self) -> dict[str, Tensor]:
        """What training changes, weights and statistics of norms; the rest is as it was opened."""
        frozen = {name for name, _ in self.model.named_parameters()}.difference(self._trained)
        state = self.model.state_dict()
        return {name: value.clone() for name, value in state.items() if name not in frozen}

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(weights, strict=False)

    def _learning(self, epoch: int) -> list[Part]:
        return [part for part, rate in self._rates[epoch].items() if rate > 0]

    def _make_optimizer(self) -> torch.optim.Optimizer:
        groups: dict[tuple[Part, bool], list[nn.Parameter]] = {}
        for part, weight in self._trained.values():
            groups.setdefault((part, weight.ndim > 1), []).append(weight)
        decay = self.config.weight_decay
        return torch.optim.AdamW(
            [
                {"params": weights, "part": part, "weight_decay": decay if is_matrix else 0.0}
                for (part, is_matrix), weights in groups.items()
            ],
            lr=0.0,
        )

    def _settings(self) -> dict[str, Any]:
        """What decides the weights."""
        config = {name: value for name, value in asdict(self.config).items() if name != "checkpoint_seconds"}
        return {
            **config,
            "dtype": self.precision.name,
            "regime": repr(self.regime),
            "encoder": self.model.encoder.describe(),
            "objective": self.objective.describe(),
            "train": self.train.describe(),
            "validation": None if self.validation is None else self.validation.describe(),
        }

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with ExitStack() as stack:
            for context in self.precision.contexts(self.model.device):
                stack.enter_context(context)
            yield

    def _own_draws(self) -> AbstractContextManager:
        """Within it, what torch draws changes nothing outside."""
        device = self.model.device
        return torch.random.fork_rng([device] if device.type == "cuda" else [])

    def _seed(self, step: int) -> None:
        """Let all that torch draws next hang on the seed and the step alone."""
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, step)).generate_state(1, np.uint64)[0]))


def _begun(rates: list[Rates], first: list[int]) -> dict[Part, int]:
    """The step at which each part begins to learn, of those that ever do."""
    begun: dict[Part, int] = {}
    for epoch, found in enumerate(rates):
        for part, rate in found.items():
            if rate > 0:
                begun.setdefault(part, first[epoch])
    return begun
