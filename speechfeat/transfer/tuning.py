"""An encoder trained further for labels of a corpus, from utterances to a saved checkpoint.

tuning = Tuning(utterances, {"emotion": emotions}, "run", TuningPlan(regime=TopBlocks(2)), groups=speakers)
tuning.run()
tuning.save()  # run/encoder for `-m`, run/head for `python -m speechfeat.predict`
"""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from speechfeat.distillation.data import AudioCache, utterance_key
from speechfeat.distillation.training import STATE
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.errors import ParameterError
from speechfeat.heads.estimators import pooled_head
from speechfeat.heads.examples import UNKNOWN
from speechfeat.heads.holdout import split_validation
from speechfeat.layers import Layers
from speechfeat.store_config import disk_errors
from speechfeat.transfer.batches import BatchPlan, UtteranceBatches
from speechfeat.transfer.config import TrainConfig
from speechfeat.transfer.heads import LOGISTIC, PooledClassifier, new_head
from speechfeat.transfer.model import TransferModel
from speechfeat.transfer.objectives import CrossEntropy, Objective, Task, predict
from speechfeat.transfer.regimes import Regime, TopBlocks
from speechfeat.transfer.saving import save_encoder, save_head
from speechfeat.transfer.training import Trainer
from speechfeat.types import Utterance

ENCODER, HEAD_FOLDER = "encoder", "head"

# What makes the objective of the tasks, if it is not cross-entropy.
MakeObjective = Callable[[Sequence[Task]], Objective]


@dataclass(frozen=True)
class TuningPlan:
    """What is trained and how.

    Attributes:
        model: catalogue name, hub id or checkpoint directory.
        layers: that the heads take; blocks above the deepest do not run.
        regime: which parts learn when, and how fast.
        head: kind of the heads, see `new_head`.
        head_options: further arguments of `new_head`.
        fit_head: begin with logistic heads fitted on what the encoder gives before it is trained: the head alone comes
            first, in seconds and to its best (Kumar et al., 2022).
        balanced: let all classes count the same, not all utterances.
        validation_share: of the utterances to train on, by which the best epoch is chosen; 0 for none, then the last
            is taken.
        batches: how batches are made.
        training: how it is trained.
        options: further arguments of `load_encoder`.
    """

    model: str = DEFAULT_MODEL
    layers: Layers = "penultimate"
    regime: Regime = field(default_factory=TopBlocks)
    head: str = LOGISTIC
    head_options: Mapping[str, Any] = field(default_factory=dict)
    fit_head: bool = True
    balanced: bool = True
    validation_share: float = 0.15
    batches: BatchPlan = field(default_factory=BatchPlan)
    training: TrainConfig = field(default_factory=TrainConfig)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share <= 0.5:
            raise ParameterError(f"validation_share={self.validation_share} must be from 0 to 0.5")
        if self.fit_head and self.head != LOGISTIC:
            raise ParameterError(f"a {self.head!r} head cannot be fitted beforehand; give fit_head=False")


class Tuning:
    """A plan being carried out in a directory; the same plan in the same directory goes on.

    Args:
        utterances: of the corpus.
        labels: by task, the label of every utterance, "" or None where it has none.
        out: directory of the training and what is saved.
        plan: what to do.
        rows: utterances to train on; None for all.
        groups: of every utterance, such as its speaker, which validation keeps apart; None where there are none.
        objective: what makes it of the tasks; None for cross-entropy, or for tasks with weights a
            `lambda tasks: CrossEntropy(replace(tasks[0], weight=2), *tasks[1:])`.
        audio: of the utterances, if it is decoded already.
        start: fitted pipelines to begin the heads with, by task, instead of fitting them here.
        device: torch device, or "auto".

    Attributes:
        model: that is trained.
        trainer: the training.
        tasks: with the classes of the rows to train on.
        start: the pipelines that the heads began with; none in a training that goes on.

    Raises:
        SpeechfeatError: if the plan cannot be carried out, or the directory is that of another.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        labels: Mapping[str, Sequence[str | None]],
        out: str | os.PathLike[str],
        plan: TuningPlan = TuningPlan(),
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        groups: Sequence[str] | None = None,
        objective: MakeObjective | None = None,
        audio: AudioCache | None = None,
        start: Mapping[str, Pipeline] | None = None,
        device: str | torch.device = "auto",
    ) -> None:
        self.plan, self.out = plan, Path(out)
        chosen = np.arange(len(utterances)) if rows is None else np.asarray(rows, np.int64)
        if not labels:
            raise ParameterError("there is no label to train for; give labels of at least one task")
        first = _task(*next(iter(labels.items())), chosen, len(utterances))
        train, validation = self._divide(first, chosen, groups)
        # What is not trained cannot be told: a class that validation alone has is unknown.
        tasks = [_task(name, values, train, len(utterances)) for name, values in labels.items()]
        self.tasks = [task.balanced(train) for task in tasks] if plan.balanced else tasks
        heads = {task.name: new_head(len(task.classes), plan.head, **plan.head_options) for task in tasks}
        seed = plan.training.seed
        self.model = TransferModel.load(plan.model, heads, plan.layers, device=device, seed=seed, **plan.options)
        with disk_errors(f"make {out}"):
            self.out.mkdir(parents=True, exist_ok=True)
        self.audio = audio or AudioCache(self.out, utterances, self.model.encoder.sample_rate, exact=True)
        self._groups = None if groups is None else np.asarray(groups, dtype=object)
        learnt = self._batches(train)
        self.start: dict[str, Pipeline] = {}
        if plan.fit_head and not (self.out / STATE).exists():
            self.start = {**self._fit_heads(learnt, set(start or {})), **(start or {})}
            for name, pipeline in self.start.items():
                self.model.heads[name].take(pipeline)  # type: ignore[operator]
        self.trainer = Trainer(
            self.model,
            plan.regime,
            CrossEntropy(*self.tasks) if objective is None else objective(self.tasks),
            learnt,
            self._batches(validation) if len(validation) else None,
            config=plan.training,
            directory=self.out,
            settings=self._settings([utterances[row] for row in chosen]),
        )
        self.trained_on = len(chosen)

    def run(self, on_step: Callable[[Trainer, float], None] | None = None, stop: threading.Event | None = None) -> bool:
        """Train to the end; see `Trainer.run`."""
        return self.trainer.run(on_step, stop)

    def probabilities(self, task: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Of every class of a task, for utterances of the corpus, `[m, C]`, by the model as it is."""
        self.model.eval()
        logits, found = predict(self.model, self._batches(np.asarray(rows)))
        shares = logits[task].softmax(dim=1).cpu().numpy()
        places = {row: place for place, row in enumerate(found.tolist())}
        return shares[[places[int(row)] for row in rows]]

    def save(self, **scores: Any) -> Path:
        """Write the encoder, and the head of every task.

        Args:
            scores: what is known of how good the heads are, for their records.

        Returns:
            The directory of the encoder. Beside it are `head`, or `head-TASK` for each of several tasks.
        """
        save_encoder(self.model, self.out / ENCODER)
        state = self.trainer.state
        told = {
            "utterances": self.trained_on,
            "regime": repr(self.plan.regime),
            "epoch": state.best_epoch,
            "steps": state.step,
            "validation": {"metric": self.trainer.objective.metric, "score": state.score},
        }
        for task in self.tasks:
            folder = HEAD_FOLDER if len(self.tasks) == 1 else f"{HEAD_FOLDER}-{task.name}"
            save_head(self.model, task, self.out / ENCODER, self.out / folder, training=told, scores=scores)
        return self.out / ENCODER

    def _batches(self, rows: np.ndarray) -> UtteranceBatches:
        return UtteranceBatches(self.model.encoder, self.audio, rows, self.plan.batches)

    def _divide(self, task: Task, rows: np.ndarray, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and rows to validate on, by the first task; what lacks its label is trained on."""
        if not self.plan.validation_share:
            return rows, rows[:0]
        known = rows[task.codes[rows] != UNKNOWN]
        units = None if groups is None else np.asarray(groups, dtype=object)[known]
        seed = self.plan.training.seed
        _, apart = split_validation(task.codes[known], task.classes, units, self.plan.validation_share, seed)
        return np.setdiff1d(rows, known[apart]), known[apart]

    def _fit_heads(self, batches: UtteranceBatches, known: set[str]) -> dict[str, Pipeline]:
        """Logistic regression on the rows that are trained on, for tasks that are not `known`."""
        wanted = [task for task in self.tasks if task.name not in known]
        if not wanted:
            return {}
        values, rows = self._embed(batches)
        options: dict[str, Any] = {"class_weight": "balanced"} if self.plan.balanced else {}
        fitted = {}
        for task in wanted:
            has = task.codes[rows] != UNKNOWN
            groups = None if self._groups is None else self._groups[rows[has]]
            estimator = pooled_head(LOGISTIC, seed=self.plan.training.seed, **options)
            fitted[task.name] = estimator.fit(values[has], task.codes[rows[has]], groups).best_estimator_
        return fitted

    def _embed(self, batches: UtteranceBatches) -> tuple[np.ndarray, np.ndarray]:
        """What the heads, which all pool alike, classify, `[m, L * D']`, and the rows it is of."""
        head = next(iter(self.model.heads.values()))
        assert isinstance(head, PooledClassifier)
        self.model.eval()
        with torch.no_grad():
            parts = [(head.embed(*self.model.states(batch.inputs)), batch.rows) for batch in batches.once()]
        order = np.argsort(np.concatenate([rows for _, rows in parts]))
        values = torch.cat([part for part, _ in parts]).cpu().numpy()[order]
        return values, np.concatenate([rows for _, rows in parts])[order]

    def _settings(self, utterances: Sequence[Utterance]) -> dict[str, Any]:
        """What decides the result beside what the trainer knows of."""
        keys = "\n".join(map(utterance_key, utterances))
        plan = {name: getattr(self.plan, name) for name in ("fit_head", "balanced", "head", "validation_share")}
        digest = hashlib.blake2b(keys.encode(), digest_size=16).hexdigest()
        return {**plan, "head_options": dict(self.plan.head_options), "utterances": digest}


def _task(name: str, labels: Sequence[str | None], rows: np.ndarray, count: int) -> Task:
    """With the classes of the rows to train on; other classes are unknown to it."""
    if len(labels) != count:
        raise ParameterError(f"{count} utterances and {len(labels)} labels of {name!r}; give one for every utterance")
    classes = sorted({label for row in rows if (label := labels[row])})
    return Task.of(name, [label if label in classes else None for label in labels], classes=classes)
