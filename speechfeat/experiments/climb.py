"""The rungs of a ladder, fold by fold: frozen features, then encoders that are trained further."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.pipeline import Pipeline
from tqdm import tqdm

from speechfeat.classification import accuracy, average_recall, macro_f1
from speechfeat.distillation.data import AudioCache
from speechfeat.distillation.training import STATE
from speechfeat.encoders.base import choose_device
from speechfeat.experiments.crossval import HeadPlan
from speechfeat.experiments.features import CorpusFeatures, corpus_features, features_folder, model_slug
from speechfeat.experiments.report import read_results, write_results
from speechfeat.heads.base import describe_training
from speechfeat.heads.pooled import PooledHead
from speechfeat.memory import forget_peak, peak_memory
from speechfeat.metrics import bootstrap_interval
from speechfeat.probing import LayerScore
from speechfeat.transfer.heads import LOGISTIC
from speechfeat.transfer.training import Trainer
from speechfeat.transfer.tuning import Tuning

if TYPE_CHECKING:
    from speechfeat.experiments.ladder import Ladder

FROZEN = "frozen"
STATISTICS: Mapping[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "uar": average_recall,
    "macro_f1": macro_f1,
}


class Climb:
    """A ladder that is being climbed: what its rungs share.

    Args:
        ladder: with the rungs.

    Attributes:
        features: frozen ones, of all layers.
        protocol: its folds, as many as are asked for.

    Raises:
        SpeechfeatError: as of extraction.
    """

    def __init__(self, ladder: "Ladder") -> None:
        self.ladder, self.out = ladder, Path(ladder.out)
        plan, corpus = ladder.plan, ladder.corpus
        kept = self.out / "features" if ladder.features is None else Path(ladder.features)
        pool = plan.head_options.get("pool", "mean+std")
        options = {**ladder.extraction, **plan.options}
        self.features: CorpusFeatures = corpus_features(
            corpus, features_folder(kept, plan.model, corpus, pool=pool), plan.model, "all", pool=pool, **options
        )
        protocol = ladder.protocol(self.features.utterances)
        self.protocol = replace(protocol, folds=protocol.folds[: ladder.folds])
        self.classes = sorted(set(self.features.values()))
        # Of the fold in hand: fitted on the same utterances for each of the rungs.
        self._heads: tuple[int, Mapping[str, Pipeline]] = (-1, {})
        self.device = choose_device(ladder.extraction.get("device", "auto"))

    @cached_property
    def audio(self) -> AudioCache:
        """All utterances, decoded once for all rungs."""
        return AudioCache(self.out, self.features.utterances, self.features.store.grid["sample_rate"], exact=True)

    def folder(self, rung: str, number: int) -> Path:
        """Of a fold."""
        return self.out / model_slug(self.ladder.plan.model) / rung / f"fold-{number}"

    def fold(self, rung: str, number: int, stop: threading.Event, bar: tqdm) -> dict[str, Any]:
        """The answers of a rung for a fold, and what they cost; from its folder if they are there."""
        folder = self.folder(rung, number)
        settings = self._settings(rung, number)
        known = read_results(folder)
        if known is not None and known["settings"] == settings:
            return known
        forget_peak(self.device)
        found = self._frozen(number) if rung == FROZEN else self._tune(rung, number, folder, stop, bar)
        result = {"settings": settings, "peak": peak_memory(self.device), **found}
        write_results(folder, result)
        (folder / STATE).unlink(missing_ok=True)
        return read_results(folder) or result

    def summarise(self, found: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        """Scores and costs of each rung, all folds together."""
        tested = np.concatenate([test for _, test in self.protocol.folds])
        labels = np.array([self.classes.index(self.features.values()[row]) for row in tested])
        groups = None if self.protocol.groups is None else np.array(self.protocol.groups)[tested]
        answers = {rung: np.concatenate([self._answers(fold) for fold in folds]) for rung, folds in found.items()}
        statistic = STATISTICS[self.ladder.metric]

        def gain(truth: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
            return statistic(truth, one) - statistic(truth, other)

        def with_interval(measure: Callable[..., float], *given: np.ndarray) -> LayerScore:
            return LayerScore(measure(labels, *given), *bootstrap_interval(measure, labels, *given, groups=groups))

        return {
            rung: {
                "score": with_interval(statistic, answers[rung])._asdict(),
                "gain": None if rung == FROZEN else with_interval(gain, answers[rung], answers[FROZEN])._asdict(),
                "layers": sorted({tuple(fold["layers"]) for fold in folds}),
                "trained": max(fold["trained"] for fold in folds),
                "seconds": float(np.mean([fold["seconds"] for fold in folds])),
                "peak": max((fold["peak"] for fold in folds if fold["peak"] is not None), default=None),
                "best epochs": [fold.get("best_epoch") for fold in folds],
            }
            for rung, folds in found.items()
        }

    def _answers(self, fold: Mapping[str, Any]) -> np.ndarray:
        columns = np.array([self.classes.index(name) for name in fold["classes"]])
        return columns[np.array(fold["probabilities"]).argmax(axis=1)]

    def _frozen(self, number: int) -> dict[str, Any]:
        """A head on stored features."""
        began = time.perf_counter()
        train, test = self.protocol.folds[number]
        options = {"class_weight": "balanced"} if self.ladder.plan.balanced else {}
        plan = HeadPlan(LOGISTIC, self.ladder.layers, self.ladder.seed, options)
        head = plan.train(self.features, train, self.protocol.inner)
        assert isinstance(head, PooledHead)
        classifier = head.pipeline[-1]
        ids = self.features.ids
        return {
            "classes": head.classes,
            "probabilities": head.probabilities(self.features.store, [ids[row] for row in test]),
            "layers": list(head.record.binding.layers),
            "trained": classifier.coef_.size + classifier.intercept_.size,
            "seconds": time.perf_counter() - began,
        }

    def _tune(self, rung: str, number: int, folder: Path, stop: threading.Event, bar: tqdm) -> dict[str, Any]:
        train, test = self.protocol.folds[number]
        frozen = read_results(self.folder(FROZEN, number))
        assert frozen is not None
        tuning = Tuning(
            self.features.utterances,
            {self.ladder.corpus.label: self.features.values()},
            folder,
            replace(self.ladder.plan, layers=tuple(frozen["layers"]), regime=self.ladder.rungs[rung]),
            rows=train,
            groups=self.protocol.inner,
            audio=self.audio,
            start=self._heads[1] if self._heads[0] == number else None,
            device=self.device,
        )
        if tuning.start:
            self._heads = (number, tuning.start)

        def show(trainer: Trainer, loss: float) -> None:
            score = "" if trainer.state.score is None else f", best {100 * trainer.state.score:.1f}"
            bar.set_postfix_str(f"step {trainer.state.step}/{trainer.steps}, loss {loss:.3f}{score}", refresh=False)
            bar.update(0)

        if not tuning.run(show, stop):
            raise KeyboardInterrupt
        state, task = tuning.trainer.state, tuning.tasks[0]
        return {
            "classes": list(task.classes),
            "probabilities": tuning.probabilities(task.name, test),
            "layers": frozen["layers"],
            "trained": tuning.trainer.num_trained,
            "seconds": state.seconds,
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "validation": state.score,
        }

    def _settings(self, rung: str, number: int) -> dict[str, Any]:
        """What decides the answers."""
        ladder, ids, labels = self.ladder, self.features.ids, self.features.values()
        train, test = self.protocol.folds[number]
        plan = {} if rung == FROZEN else {**asdict(replace(ladder.plan, regime=ladder.rungs[rung]))}
        return {
            "train": describe_training(
                self.features.store, [ids[row] for row in train], [labels[row] for row in train]
            ),
            "test": [ids[row] for row in test],
            "layers": str(ladder.layers),
            "balanced": ladder.plan.balanced,
            "seed": ladder.seed,
            "regime": None if rung == FROZEN else repr(ladder.rungs[rung]),
            "plan": {name: str(value) for name, value in plan.items() if name not in ("regime", "layers")},
        }
