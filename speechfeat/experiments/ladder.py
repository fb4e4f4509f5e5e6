"""How far fine-tuning pays: the rungs from frozen features to the whole encoder on the same folds, with their costs.

ladder = Ladder("Emotion", corpus, "runs/ladder", metric="uar")
results = ladder.run()
"""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from speechfeat.classification import accuracy, average_recall, macro_f1
from speechfeat.cli import stopping, tell
from speechfeat.corpora.base import Corpus
from speechfeat.distillation.data import AudioCache
from speechfeat.distillation.training import STATE
from speechfeat.encoders.base import choose_device
from speechfeat.errors import ParameterError
from speechfeat.experiments.classify import METRICS
from speechfeat.experiments.crossval import HeadPlan
from speechfeat.experiments.features import CorpusFeatures, corpus_features, features_folder, model_slug
from speechfeat.experiments.protocol import Protocol, check_leaks, make_protocol
from speechfeat.experiments.report import Section, markdown_table, read_results, write_report, write_results
from speechfeat.heads.base import describe_training
from speechfeat.heads.pooled import PooledHead
from speechfeat.memory import forget_peak, peak_memory
from speechfeat.metrics import bootstrap_interval
from speechfeat.probing import LayerScore
from speechfeat.transfer.curves import CURVES_PNG
from speechfeat.transfer.heads import LOGISTIC
from speechfeat.transfer.regimes import Full, Gradual, LoRA, Regime, TopBlocks
from speechfeat.transfer.tuning import Tuning, TuningPlan
from speechfeat.types import Utterance

FROZEN = "frozen"
# The head is fitted beforehand on the frozen features, so that none trains it alone.
RUNGS: Mapping[str, Regime] = {
    "top-2": TopBlocks(2, head_epochs=0),
    "gradual": Gradual(head_epochs=0),
    "lora": LoRA(),
    "full": Full(),
}
STATISTICS: Mapping[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "uar": average_recall,
    "macro_f1": macro_f1,
}


@dataclass(frozen=True)
class Ladder:
    """An experiment.

    Attributes:
        title: of the report.
        corpus: from `open_corpus`.
        out: directory of the results, of features too unless `features` is given.
        rungs: above the frozen features, by name.
        plan: model and all that the rungs share.
        layers: that the heads take; "auto" is, in each fold, what tells most on its training data while it is frozen.
        split: see `make_protocol`.
        k: folds where the split says k.
        folds: the first so many are run, to see the cost; None for all.
        metric: "accuracy", "uar" or "macro_f1".
        features: directory of features, to share them between experiments.
        allow_leaks: go on although a speaker or a recording is on both sides.
        seed: of the folds and of the trainings.
        extraction: of `corpus_features`: device, dtype, quiet ...
        command: that was given, for the report.
    """

    title: str
    corpus: Corpus = field(repr=False)
    out: str | os.PathLike[str]
    rungs: Mapping[str, Regime] = field(default_factory=lambda: dict(RUNGS))
    plan: TuningPlan = field(default_factory=TuningPlan)
    layers: Any = "auto"
    split: str = "auto"
    k: int = 5
    folds: int | None = None
    metric: str = "accuracy"
    features: str | os.PathLike[str] | None = None
    allow_leaks: bool = False
    seed: int = 0
    extraction: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ParameterError(f"metric={self.metric!r} is not known; use {', '.join(METRICS)}")
        if FROZEN in self.rungs:
            raise ParameterError(f"{FROZEN!r} is always the first rung; name the others otherwise")
        if self.folds is not None and self.folds < 1:
            raise ParameterError(f"folds={self.folds} must be at least 1")

    def run(self) -> dict[str, Any]:
        """Train what is not trained yet; the content of `results.json`.

        Raises:
            ParameterError: for a leak, or a corpus that cannot be divided.
            SpeechfeatError: as of extraction and training.
            KeyboardInterrupt: after Ctrl-C, with what is done kept.
        """
        protocol = self._protocol(self.corpus.utterances)
        check_leaks(self.corpus, self.corpus.utterances, protocol, allowed=self.allow_leaks)
        climb = _Climb(self)
        stop = threading.Event()
        names, count = [FROZEN, *self.rungs], len(climb.protocol.folds)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        with stopping(stop), tqdm(total=len(names) * count, unit="fold", disable=self.extraction.get("quiet")) as bar:
            for name in names:
                for number in range(count):
                    bar.set_description(f"{name} {number}", refresh=False)
                    found[name].append(climb.fold(name, number, stop, bar))
                    bar.update()
        results = {
            "title": self.title,
            "command": self.command,
            "corpus": self.corpus.name,
            "label": self.corpus.label,
            "model": self.plan.model,
            "metric": self.metric,
            "protocol": protocol.about,
            "folds": count,
            "of folds": len(protocol.folds),
            "utterances": len(climb.features.utterances),
            "rungs": climb.summarise(found),
        }
        write_results(self.out, results)
        self._report(results, climb)
        # As it is read back: a second run returns the same.
        return read_results(self.out) or results

    def table(self, results: Mapping[str, Any]) -> str:
        """A row a rung, as Markdown."""
        rows = [
            {
                "rung": name,
                "layer": " or ".join("+".join(map(str, layers)) for layers in row["layers"]),
                results["metric"]: LayerScore(**row["score"]),
                "against frozen": None if row["gain"] is None else LayerScore(**row["gain"]),
                "trained weights": f"{row['trained']:,}",
                "seconds a fold": f"{row['seconds']:.1f}",
                "peak memory (MB)": None if row["peak"] is None else f"{row['peak'] / 1e6:.0f}",
            }
            for name, row in results["rungs"].items()
        ]
        return markdown_table(rows)

    def advice(self, results: Mapping[str, Any]) -> str:
        """How far it pays, by the intervals of the gains."""
        gains = {name: row["gain"] for name, row in results["rungs"].items() if row["gain"] is not None}
        better = [name for name, gain in gains.items() if gain["low"] > 0]
        worse = [name for name, gain in gains.items() if gain["high"] < 0]
        said = []
        if better:
            best = max(better, key=lambda name: gains[name]["score"])
            said.append(f"Better than frozen features beyond the interval: {', '.join(better)}; most of all {best}.")
        else:
            said.append("No rung is better than frozen features beyond the interval: stay with those.")
        if worse:
            said.append(f"Worse: {', '.join(worse)}.")
        return " ".join(said)

    def _protocol(self, utterances: Sequence[Utterance]) -> Protocol:
        return make_protocol(self.corpus, utterances, self.split, k=self.k, seed=self.seed)

    def _report(self, results: Mapping[str, Any], climb: "_Climb") -> None:
        part = f" (the first {results['folds']} folds alone)" if self.folds else ""
        about = (
            f"{self.corpus.name}: {results['utterances']} utterances, {self.corpus.label}; "
            f"{results['protocol']}{part}. Encoder {self.plan.model}."
        )
        rungs = "\n".join(f"* {name}: `{regime!r}`" for name, regime in self.rungs.items())
        sections = [
            Section("Scores", f"{self.table(results)}\n\n{TABLE_NOTE}"),
            Section("How far it pays", self.advice(results)),
            Section("Data", about),
            Section("Rungs", f"{rungs}\n\nAll: `{self.plan.training!r}`, `{self.plan.batches!r}`"),
        ]
        pictures = {
            f"{name}, first fold": file for name in self.rungs if (file := climb.folder(name, 0) / CURVES_PNG).exists()
        }
        write_report(self.out, self.title, self.command, sections, pictures)


TABLE_NOTE = (
    "In per cent with 95 % bootstrap intervals; the gains are of the same utterances, drawn in pairs. Seconds: to "
    "train, without what all rungs share (decoding, frozen features). Peak memory: of the process, or of tensors on a "
    "GPU."
)


class _Climb:
    """A ladder in progress: what its rungs share."""

    def __init__(self, ladder: Ladder) -> None:
        self.ladder, self.out = ladder, Path(ladder.out)
        plan, corpus = ladder.plan, ladder.corpus
        kept = self.out / "features" if ladder.features is None else Path(ladder.features)
        pool = plan.head_options.get("pool", "mean+std")
        options = {**ladder.extraction, **plan.options}
        self.features: CorpusFeatures = corpus_features(
            corpus, features_folder(kept, plan.model, corpus, pool=pool), plan.model, "all", pool=pool, **options
        )
        protocol = ladder._protocol(self.features.utterances)
        self.protocol = replace(protocol, folds=protocol.folds[: ladder.folds])
        self.classes = sorted(set(self.features.values()))
        self.device = choose_device(ladder.extraction.get("device", "auto"))

    @cached_property
    def audio(self) -> AudioCache:
        """All utterances, decoded once for all rungs."""
        rate = self.features.store.grid["sample_rate"]
        tell(f"decoding into {self.out}, once")
        return AudioCache(self.out, self.features.utterances, rate, exact=True)

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
            device=self.device,
        )
        steps = tuning.trainer.steps
        if not tuning.run(lambda trainer, loss: bar.set_postfix_str(f"{trainer.state.step}/{steps}, {loss:.3f}"), stop):
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
