"""How far fine-tuning pays: the rungs from frozen features to the whole encoder on the same folds, with their costs.

ladder = Ladder("Emotion", corpus, "runs/ladder", metric="uar")
results = ladder.run()
"""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from speechfeat.cli import stopping
from speechfeat.corpora.base import Corpus
from speechfeat.errors import ParameterError
from speechfeat.experiments.climb import FROZEN, Climb
from speechfeat.experiments.crossval import MEASURES
from speechfeat.experiments.protocol import Protocol, check_leaks, make_protocol
from speechfeat.experiments.report import Section, markdown_table, read_results, write_report, write_results
from speechfeat.probing import LayerScore
from speechfeat.transfer.adapters import check_peft
from speechfeat.transfer.curves import CURVES_PNG
from speechfeat.transfer.regimes import Full, Gradual, LoRA, Regime, TopBlocks
from speechfeat.transfer.tuning import TuningPlan
from speechfeat.types import Utterance

# The head is fitted beforehand on the frozen features: none trains it alone, and from then on it is to move slowly.
RUNGS: Mapping[str, Regime] = {
    "top-2": TopBlocks(2, head_epochs=0),
    "gradual": Gradual(head_rate=1e-4, head_epochs=0),
    "lora": LoRA(head_rate=1e-4),
    "full": Full(head_rate=1e-4),
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
        if self.metric not in MEASURES:
            raise ParameterError(f"metric={self.metric!r} is not known; use {', '.join(MEASURES)}")
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
        if any(isinstance(regime, LoRA) for regime in self.rungs.values()):
            check_peft()
        protocol = self.protocol(self.corpus.utterances)
        check_leaks(self.corpus, self.corpus.utterances, protocol, allowed=self.allow_leaks)
        climb = Climb(self)
        stop = threading.Event()
        names, count = [FROZEN, *self.rungs], len(climb.protocol.folds)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        with stopping(stop), tqdm(total=len(names) * count, unit="fold", disable=self.extraction.get("quiet")) as bar:
            for number in range(count):
                for name in names:
                    bar.set_description(f"{name} {number}", refresh=False)
                    found[name].append(climb.fold(name, number, stop, bar))
                    if stop.is_set():
                        raise KeyboardInterrupt
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
        if results["folds"] < 2 and results["of folds"] > 1:
            return "One fold says nothing of how far it pays: run more."
        said = f"Worse beyond the interval: {', '.join(worse)}." if worse else ""
        if not better:
            return f"No rung is better than frozen features beyond the interval: stay with those. {said}".rstrip()
        best = max(better, key=lambda name: gains[name]["score"])
        return f"Better than frozen features beyond the interval: {', '.join(better)}, most {best}. {said}".rstrip()

    def protocol(self, utterances: Sequence[Utterance]) -> Protocol:
        """How utterances of the corpus are divided."""
        return make_protocol(self.corpus, utterances, self.split, k=self.k, seed=self.seed)

    def _report(self, results: Mapping[str, Any], climb: Climb) -> None:
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
