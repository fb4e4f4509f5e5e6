"""Encoders trained on few labelled and many unlabelled recordings: a dirty copy must be told as the clean one is.

    plan = TuningPlan(batches=BatchPlan(views=(None, dirt)))
    Tuning(utterances, {"emotion": labels}, "run", plan, objective=lambda tasks: FixMatch(tasks[0]))

with labels of "" where they are not known. Rounds in which a better student becomes the teacher (Noisy Student) need no
objective of their own: `Distilled`, by what the last model says of all utterances.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from speechfeat.errors import ParameterError
from speechfeat.heads.examples import UNKNOWN
from speechfeat.transfer.batches import TransferBatch
from speechfeat.transfer.model import TransferModel
from speechfeat.transfer.objectives import CrossEntropy, Task


class FixMatch(CrossEntropy):
    """Labels where they are known; else what the model says of the first view, if it is sure, for the second.

    `cross-entropy + weight * mean over the unlabelled of [p >= threshold] * cross-entropy(second view, likeliest)`
    (Sohn et al., 2020).

    Args:
        task: the label, of which not all utterances need to have one.
        threshold: the least probability of the likeliest class for it to be a label; above 1 none is.
        weight: of the unlabelled.

    Raises:
        ParameterError: if a number is out of range.
    """

    def __init__(self, task: Task, *, threshold: float = 0.95, weight: float = 1.0) -> None:
        super().__init__(task)
        if threshold < 0 or weight < 0:
            raise ParameterError(f"threshold={threshold} and weight={weight} must be at least 0")
        self.threshold, self.weight = threshold, weight

    def loss(self, model: TransferModel, batch: TransferBatch) -> Tensor:
        """Of a batch."""
        if len(batch.views) < 2:
            raise ParameterError(
                "consistency needs two views of each utterance; give views=(None, dirt) to the plan of batches"
            )
        task = self.tasks[0]
        clean = model(batch.views[0])[task.name].float()
        loss = task.loss(clean, batch.rows)
        unlabelled = torch.from_numpy(task.codes[batch.rows] == UNKNOWN).to(clean.device)
        if not (self.weight and unlabelled.any()):
            return loss
        said = clean.detach().softmax(dim=1)
        is_taken = unlabelled & (said.amax(dim=1) >= self.threshold)
        if not is_taken.any():
            return loss
        dirty = model(batch.views[1])[task.name].float()
        wrong = F.cross_entropy(dirty[is_taken], said.argmax(dim=1)[is_taken], reduction="sum")
        return loss + self.weight * wrong / unlabelled.sum()

    def describe(self) -> dict[str, Any]:
        """What decides the loss, as JSON values."""
        return {**super().describe(), "threshold": self.threshold, "unlabelled": self.weight}
