"""Training a student on what its teachers give: one loop that goes on exactly where it was killed.

    distiller = Distiller(student, batches, DistillConfig(), 10_000, "run")
    distiller.run()

Exactly means to the bit on a CPU; some kernels of CUDA do not give the same sums twice.
"""

import json
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from speechfeat.distillation.ahead import workers_for
from speechfeat.distillation.batches import Batches, DistillBatch
from speechfeat.distillation.model import Losses, Student
from speechfeat.encoders.precision import Precision
from speechfeat.errors import ParameterError
from speechfeat.store_config import disk_errors, publish, write_text

TRAINING_DTYPES = ("auto", "float32", "bfloat16")
STATE, HISTORY = "state.pt", "history.jsonl"


@dataclass(frozen=True)
class DistillConfig:
    """How a student is trained.

    Attributes:
        learning_rate: the highest, after the warm-up; falls to 0 along a cosine.
        warmup: share of the steps in which the rate rises.
        weight_decay: of matrices; norms and biases have none.
        clip: of the gradient's norm.
        dtype: of the matrix products: auto, float32, bfloat16.
        checkpoint_seconds: between two checkpoints; how often does not change the result.
        seed: of the weights and of dropout.

    Raises:
        ParameterError: for a value out of range.
    """

    learning_rate: float = 2.5e-3
    warmup: float = 0.04
    weight_decay: float = 0.02
    clip: float = 5.0
    dtype: str = "auto"
    checkpoint_seconds: float = 240.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ParameterError(f"learning_rate={self.learning_rate} must be above 0")
        if self.dtype not in TRAINING_DTYPES:
            raise ParameterError(f"dtype={self.dtype!r} must be {', '.join(TRAINING_DTYPES)}")
        if self.seed < 0:
            raise ParameterError(f"seed={self.seed} must be at least 0")

    def rate(self, step: int, steps: int) -> float:
        """The share of the highest learning rate at a step of `steps`."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


class Distiller:
    """Trains a student, with checkpoints.

    Args:
        student: what learns; changed in place.
        batches: what it learns from.
        config: how.
        steps: of the optimisers, one a batch.
        directory: of the checkpoint and the history of losses; a run that is found there goes on.
        device: torch device.

    Raises:
        ParameterError: if the directory holds a run with other settings, or `steps` is below 1.
    """

    def __init__(
        self,
        student: Student,
        batches: Batches,
        config: DistillConfig,
        steps: int,
        directory: str | os.PathLike[str],
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        if steps < 1:
            raise ParameterError(f"steps={steps} must be at least 1")
        self.student, self.batches, self.config, self.steps = student, batches, config, steps
        self.directory, self.device = Path(directory), torch.device(device)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.student.to(self.device)
        self.precision = Precision.choose(config.dtype, self.device)
        self.optimizers = _optimizers(student, config)
        self.step = 0
        self.history: list[dict] = []
        self._resume()

    def run(
        self, on_step: Callable[["Distiller", Losses], None] | None = None, stop: threading.Event | None = None
    ) -> bool:
        """Train to the last step.

        Args:
            on_step: called after every step, with this and the losses of the step.
            stop: set it, from a signal handler or another thread, to end after the step in flight, saved.

        Returns:
            Whether the last step was reached.
        """
        saved = time.monotonic()
        self.student.train()
        for batch in self.batches.stream(self.step, self.steps, workers_for(self.device, least=1)):
            losses = self._learn(batch)
            self.step += 1
            self._record(losses)
            if on_step is not None:
                on_step(self, losses)
            if stop is not None and stop.is_set():
                break
            if time.monotonic() - saved > self.config.checkpoint_seconds:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.step == self.steps

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        target = self.directory / STATE
        state = {
            "settings": self._settings(),
            "step": self.step,
            "student": self.student.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "history": self.history,
        }
        with disk_errors(f"write {target}"):
            torch.save(state, target.with_suffix(".tmp"))
            publish(target.with_suffix(".tmp"), target)
        write_text(self.directory / HISTORY, "".join(json.dumps(row) + "\n" for row in self.history))

    def _settings(self) -> dict:
        """What decides the weights, beside the batches."""
        free = {"checkpoint_seconds"}
        chosen = {name: value for name, value in asdict(self.config).items() if name not in free}
        return {**chosen, "dtype": self.precision.name, "steps": self.steps}

    def _learn(self, batch: DistillBatch) -> Losses:
        torch.manual_seed(self.config.seed + self.step)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = self.config.learning_rate * self.config.rate(self.step, self.steps)
        with ExitStack() as stack:
            for context in self.precision.contexts(self.device):
                stack.enter_context(context)
            losses = self.student.losses(batch.to(self.device))
        if not torch.isfinite(losses.total):
            raise ParameterError(
                f"the loss became {losses.total.item()} at step {self.step + 1}; the last checkpoint is kept: begin "
                f"anew in another directory with a learning rate below {self.config.learning_rate}"
            )
        losses.total.backward()
        nn.utils.clip_grad_norm_(self.student.parameters(), self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        return losses

    def _record(self, losses: Losses) -> None:
        row: dict[str, float | None] = {"step": self.step, "loss": losses.total.item()}
        for block in self.student.tasks.taps:
            row[f"block {block}"] = losses.frames.get(block)
            row[f"block {block} pooled"] = losses.pooled.get(block)
        self.history.append({**row, "speaker": losses.speaker, "ctc": losses.ctc})

    def _resume(self) -> None:
        file = self.directory / STATE
        if not file.exists():
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        refuse_differences(self.directory, state["settings"], self._settings())
        self.student.load_state_dict(state["student"])
        for optimizer, known in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(known)
        self.step, self.history = state["step"], state["history"]


def refuse_differences(place: Path, there: dict, now: dict) -> None:
    """Refuse to go on with other settings than a run began with.

    Raises:
        ParameterError: that names them, with both values.
    """
    differing = [f"{name}: {there.get(name)} there, {now[name]} now" for name in now if now[name] != there.get(name)]
    if differing:
        raise ParameterError(
            f"{place} holds a run with other settings ({'; '.join(differing)}); go on with those, or choose another "
            "directory"
        )


def _optimizers(student: Student, config: DistillConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024; rates as AdamW's by Liu et al., 2025) for the blocks' matrices, AdamW for the rest.

    With AdamW alone the same losses take nearly twice as many steps, and on two CPU cores 1.4 times as long.
    """
    # The biases of relative positions have two dimensions and are no matrices.
    matrices = {name: value for name, value in student.named_parameters() if value.ndim > 1 and ".bias_" not in name}
    in_blocks = [value for name, value in matrices.items() if value.ndim == 2 and ".layers." in name]
    taken, decayed = set(map(id, in_blocks)), set(map(id, matrices.values()))
    others = [value for value in student.parameters() if id(value) not in taken]
    rate, decay = config.learning_rate, config.weight_decay
    groups = [
        {"params": [value for value in others if id(value) in decayed], "weight_decay": decay},
        {"params": [value for value in others if id(value) not in decayed], "weight_decay": 0.0},
    ]
    return [
        torch.optim.Muon(in_blocks, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True),
    ]
