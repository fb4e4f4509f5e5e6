"""What a model is trained for: labels of one or more tasks, or what a teacher says of them.

An objective has a loss and a validation; labels are its own, by the rows of the batch, so that batches know nothing of
them. Further ones (pseudo-labels, consistency, domains) are written beside these.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from speechfeat.classification import average_recall
from speechfeat.errors import ParameterError
from speechfeat.heads.examples import UNKNOWN
from speechfeat.heads.objectives import Validation
from speechfeat.heads.soft import check_distillation, distillation_loss
from speechfeat.transfer.batches import TransferBatch, UtteranceBatches
from speechfeat.transfer.model import TransferModel


class Objective(Protocol):
    """What is trained for.

    Attributes:
        metric: name of the validation score.
    """

    metric: str

    def loss(self, model: TransferModel, batch: TransferBatch) -> Tensor:
        """Of a batch, to be made smaller."""

    def validate(self, model: TransferModel, batches: UtteranceBatches) -> Validation:
        """The score on all of the batches; the model is in eval mode."""

    def describe(self) -> dict[str, Any]:
        """What decides the loss, as JSON values: a resumed training must have the same."""


@dataclass(frozen=True)
class Task:
    """A label of utterances, which not all of them need to have.

    Attributes:
        name: of the label, and of the model's head for it.
        classes: what it may be.
        codes: `[n]`, number of the class of every utterance of the corpus; `UNKNOWN` where it has none.
        weight: of its loss beside those of other tasks.
        class_weights: `[C]` of the classes in the loss; None counts all utterances the same.
    """

    name: str
    classes: tuple[str, ...]
    codes: np.ndarray = field(repr=False)
    weight: float = 1.0
    class_weights: np.ndarray | None = None

    @classmethod
    def of(
        cls, name: str, labels: Sequence[str | None], *, weight: float = 1.0, classes: Sequence[str] | None = None
    ) -> "Task":
        """From a label, "" or None of every utterance.

        Raises:
            ParameterError: if there are not two classes, or a label is none of the classes given.
        """
        known = tuple(sorted({label for label in labels if label}) if classes is None else classes)
        if len(known) < 2:
            raise ParameterError(f"{name!r} has {len(known)} classes ({', '.join(known)}); a task needs two")
        numbers = {label: number for number, label in enumerate(known)}
        if strange := sorted({label for label in labels if label}.difference(numbers)):
            raise ParameterError(f"{name!r} has the label {strange[0]!r}, which is none of {', '.join(known)}")
        codes = np.array([numbers[label] if label else UNKNOWN for label in labels], np.int64)
        return cls(name, known, codes, weight)

    def balanced(self, rows: np.ndarray) -> "Task":
        """The same with all classes counting alike, by their frequency in the rows that are trained on."""
        found = self.codes[rows]
        known = found[found != UNKNOWN]
        weights = 1 / np.maximum(1, np.bincount(known, minlength=len(self.classes)))
        weights /= weights[known].mean()
        return Task(self.name, self.classes, self.codes, self.weight, weights)

    def loss(self, logits: Tensor, rows: np.ndarray) -> Tensor:
        """Mean cross-entropy of the utterances that have the label, `[]`; 0 where none has."""
        codes = torch.from_numpy(self.codes[rows]).to(logits.device)
        if not (codes != UNKNOWN).any():
            return logits.sum() * 0
        weights = None
        if self.class_weights is not None:
            weights = torch.from_numpy(self.class_weights.astype(np.float32)).to(logits.device)
        return F.cross_entropy(logits.float(), codes, weights, ignore_index=UNKNOWN)

    def describe(self) -> dict[str, Any]:
        """What decides its loss, as JSON values."""
        weights = None if self.class_weights is None else self.class_weights.tolist()
        return {"classes": list(self.classes), "codes": _digest(self.codes), "weight": self.weight, "of class": weights}


class CrossEntropy:
    """Telling the classes of one task, or of several whose losses are added up.

    Validated by the recall averaged over classes, averaged over tasks, and between equals by the loss.

    Args:
        tasks: each with a head of its name.
    """

    metric = "uar"

    def __init__(self, *tasks: Task) -> None:
        if not tasks:
            raise ParameterError("there is no task to train for; give at least one")
        self.tasks = tasks

    def loss(self, model: TransferModel, batch: TransferBatch) -> Tensor:
        """Of a batch."""
        return self.of(model(batch.inputs), batch.rows)

    def of(self, logits: Mapping[str, Tensor], rows: np.ndarray) -> Tensor:
        """Of what the heads gave, by task."""
        return torch.stack([task.weight * task.loss(logits[task.name], rows) for task in self.tasks]).sum()

    def validate(self, model: TransferModel, batches: UtteranceBatches) -> Validation:
        """The score on all of the batches."""
        logits, rows = predict(model, batches)
        scores = []
        for task in self.tasks:
            known = task.codes[rows] != UNKNOWN
            if known.any():
                answers = logits[task.name][known].argmax(dim=1).cpu().numpy()
                scores.append(average_recall(task.codes[rows][known], answers))
        if not scores:
            raise ParameterError(f"none of {len(rows)} utterances to validate on has a label; keep others apart")
        score = float(np.mean(scores))
        return Validation(score, (score, -self.of(logits, rows).item()))

    def describe(self) -> dict[str, Any]:
        """What decides the loss, as JSON values."""
        return {task.name: task.describe() for task in self.tasks}


class Distilled(CrossEntropy):
    """What a teacher says, beside the labels: `alpha * T^2 * KL + beta * cross-entropy` (Hinton et al., 2015).

    Args:
        task: the label.
        teacher: `[n, C]`, logarithms of the teacher's probabilities, or its logits, for every utterance of the corpus;
            rows of NaN where it has said nothing.
        temperature: T, that both are softened by.
        alpha: weight of the teacher.
        beta: weight of the labels.

    Raises:
        ParameterError: if the teacher's answers are of another shape, or a number is out of range.
    """

    def __init__(
        self, task: Task, teacher: np.ndarray, *, temperature: float = 2.0, alpha: float = 0.5, beta: float = 0.5
    ) -> None:
        super().__init__(task)
        wanted = (len(task.codes), len(task.classes))
        if np.shape(teacher) != wanted:
            raise ParameterError(f"the teacher's answers have the shape {np.shape(teacher)}; give {wanted}")
        check_distillation(temperature, alpha, beta)
        self.teacher = np.asarray(teacher, np.float32)
        self.temperature, self.alpha, self.beta = temperature, alpha, beta

    def of(self, logits: Mapping[str, Tensor], rows: np.ndarray) -> Tensor:
        """Of what the head gave."""
        task = self.tasks[0]
        found = logits[task.name].float()
        wanted = torch.from_numpy(self.teacher[rows]).to(found.device)
        known = ~wanted.isnan().any(dim=1)
        soft = found.sum() * 0
        if known.any():
            soft = distillation_loss(found[known], wanted[known], self.temperature).mean()
        return self.alpha * soft + self.beta * task.loss(found, rows)

    def describe(self) -> dict[str, Any]:
        """What decides the loss, as JSON values."""
        own = {"temperature": self.temperature, "alpha": self.alpha, "beta": self.beta}
        return {**super().describe(), **own, "teacher": _digest(self.teacher)}


def predict(model: TransferModel, batches: UtteranceBatches) -> tuple[dict[str, Tensor], np.ndarray]:
    """Logits of every task `[m, C]`, and the rows they are of; without gradients, in the model's mode."""
    with torch.no_grad():
        parts = [(model(batch.inputs), batch.rows) for batch in batches.once()]
    logits = {task: torch.cat([found[task].float() for found, _ in parts]) for task in model.heads}
    return logits, np.concatenate([rows for _, rows in parts])


def _digest(values: np.ndarray) -> str:
    return hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()
