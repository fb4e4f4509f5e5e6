"""The whole of a speaker verification: features, speakers to learn from, trials of others, scores, pictures, report.

plan = plan_verification(corpus, test_share=0.5)
results = Verification("Speaker verification", corpus, plan, models=["conformer-s"], out="runs/asv").run()
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from speechfeat import plots
from speechfeat.cli import tell
from speechfeat.corpora.base import Corpus
from speechfeat.errors import ParameterError
from speechfeat.experiments.features import POOL, CorpusFeatures, corpus_features, features_folder, model_slug
from speechfeat.experiments.report import Section, markdown_table, score_cell, write_report, write_results
from speechfeat.experiments.scorers import PLAIN, SCORERS, Scorer, check_cohort, layer_errors
from speechfeat.experiments.trials import Trials, VerificationPlan
from speechfeat.experiments.voices import voice_network
from speechfeat.heads.estimators import unknown_kind
from speechfeat.heads.framed import FRAME_KINDS, configure
from speechfeat.heads.networked import FrameHead
from speechfeat.layers import select_layers
from speechfeat.leaks import LeakReport, leak_report
from speechfeat.metrics import DetCurve, det_curve
from speechfeat.probing import LayerScore, score_trials

# What is measured of a list of trials; priors as in VoxCeleb and in the NIST evaluations.
EER = "eer"
MEASURES: dict[str, Callable[[DetCurve], float]] = {
    EER: DetCurve.equal_error_rate,
    "min_dcf_0.01": partial(DetCurve.min_dcf, p_target=0.01),
    "min_dcf_0.05": partial(DetCurve.min_dcf, p_target=0.05),
}
# Speakers in a picture of embeddings: as many as there are colours.
DRAWN_SPEAKERS = len(plots.COLOURS)
# Where a layer would be named, of a network that mixes them.
MIX = "mix"


@dataclass(frozen=True)
class Verification:
    """An experiment.

    Attributes:
        title: of the report.
        corpus: from `open_corpus`, with the speaker as its label.
        plan: from `plan_verification`.
        models: encoders, as for `load_encoder`, to be compared.
        out: directory of results, of features too unless `features` is given.
        head: kind of the `Scorer`, or a network on frames, one of `FRAME_KINDS`, whose vectors are compared.
        head_options: of such a network, fields of `FrameConfig`.
        layers: "auto", the one that tells the speakers learnt from best, or as for `load_encoder`: each is scored. A
            network mixes them, with "auto" all.
        cohort: the most speakers to normalise scores by; 0 for none.
        most: utterances of a speaker that are paired to choose a layer.
        num: draws of the bootstrap.
        pool: of the embeddings.
        features: directory of features, to share them between experiments.
        allow_leaks: go on although a speaker or a recording is on both sides.
        seed: of what is drawn.
        extraction: of `corpus_features`: device, dtype, quiet, short_window ...
        command: that was given, for the report.
    """

    title: str
    corpus: Corpus = field(repr=False)
    plan: VerificationPlan
    models: Sequence[str]
    out: str | os.PathLike[str]
    head: str = "cosine"
    head_options: Mapping[str, Any] = field(default_factory=dict)
    layers: Any = "auto"
    cohort: int = 0
    most: int = 5
    num: int = 200
    pool: str = POOL
    features: str | os.PathLike[str] | None = None
    allow_leaks: bool = False
    seed: int = 0
    extraction: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        # What cannot be done is told before anything is extracted.
        if self.head not in (*SCORERS, *FRAME_KINDS):
            raise ParameterError(unknown_kind(self.head, (*SCORERS, *FRAME_KINDS)))
        if self.head_options and not self.is_network:
            raise ParameterError(f"--set is for networks ({', '.join(FRAME_KINDS)}), not for {self.head!r}")
        configure(None, self.head_options)
        Scorer(cohort=self.cohort)
        if not self.models:
            raise ParameterError("there is no model; name at least one encoder")
        if self.num < 1:
            raise ParameterError(f"num={self.num} draws of the bootstrap must be 1 or more")
        if self.cohort:
            check_cohort(len({utterance.labels[self.plan.speaker] for utterance in self.plan.train}))

    @property
    def is_network(self) -> bool:
        """Whether what is compared are the vectors of a network on frames."""
        return self.head in FRAME_KINDS

    def run(self) -> dict[str, Any]:
        """Extract what is missing, score, draw and write; the content of `results.json`.

        Raises:
            ParameterError: for a leak, or a layer that is not there.
            SpeechfeatError: as of extraction.
        """
        out = Path(self.out)
        leaks = check_speakers(self.plan, allowed=self.allow_leaks)
        found: dict[str, Any] = {}
        curves: dict[str, DetCurve] = {}
        for model in self.models:
            found[model], drawn = self._run_model(model, out / model_slug(model))
            curves.update(drawn)
        results = {
            "title": self.title,
            "command": self.command,
            "corpus": self.corpus.name,
            "plan": self.plan.about,
            "head": self.head,
            "cohort": self.cohort,
            "leaks": asdict(leaks),
            "models": found,
        }
        write_results(out, results)
        plots.plot_det(curves, out / "det.png")
        first = self.plan.trials[0].name
        if self.is_network:
            by_layers = []
        else:
            by_layer = {model_slug(model): _curve(one, first) for model, one in found.items()}
            plots.plot_layers(by_layer, out / "layers.png", "EER")
            note = "A layer is chosen by the training speakers alone."
            by_layers = [Section("Layers", f"{_layers_table(found, first)}\n\n{note}")]
        table = _scores_table(found)
        sections = [
            Section("Scores", f"{table}\n\n{self._how()}"),
            Section("Data", self._data(found)),
            *by_layers,
            Section("Leaks", f"```\n{leaks.text()}\n```"),
        ]
        write_report(out, self.title, self.command, sections, self._pictures(out))
        tell(table)
        return results

    def _run_model(self, model: str, folder: Path) -> tuple[dict[str, Any], dict[str, DetCurve]]:
        kept = Path(self.features) if self.features is not None else Path(self.out) / "features"
        wanted = {utterance.id: utterance for utterance in (*self.plan.train, *self.plan.test)}
        features = corpus_features(
            replace(self.corpus, utterances=list(wanted.values())),
            features_folder(kept, model, self.corpus, pool=self.pool, frames=self.is_network),
            model,
            "all",
            pool=self.pool,
            frames=self.is_network,
            **self.extraction,
        )
        learnt = _Learnt(self, features, folder)
        rows, curves = [], {}
        for trials in self.plan.trials:
            named = "" if len(self.plan.trials) == 1 else f", {trials.name}"
            # The curve over all layers is of the first list.
            layers = learnt.layers if trials is self.plan.trials[0] else learnt.chosen
            for layer, (row, curve) in zip(layers, learnt.score(trials, layers), strict=True):
                rows.append(row)
                if layer in learnt.chosen:
                    told = layer if self.is_network else f"layer {layer}"
                    curves[f"{model_slug(model)}, {told}{named}"] = curve
        self._draw(folder, learnt)
        if learnt.network is not None:
            plots.plot_mix(list(learnt.network.mix), list(learnt.network.mix.values()), folder / "mix.png")
        result = {
            "num_train": len(learnt.speakers),
            "num_train_speakers": len(set(learnt.speakers)),
            "failed": len(features.failures),
            "chosen": learnt.chosen,
            "train_errors": learnt.errors,
            "scores": rows,
        }
        return result, curves

    def _draw(self, folder: Path, learnt: "_Learnt") -> None:
        """The speakers with the most utterances in the trials, as the scorer of the first chosen layer sees them."""
        trials = self.plan.trials[0].within(learnt.features.store)
        rows = np.unique(trials.pairs)
        shown = pd.Series(trials.speakers[rows]).value_counts().index[:DRAWN_SPEAKERS]
        rows = rows[np.isin(trials.speakers[rows], shown)]
        if len(rows) < 3:
            return
        vectors = learnt.project([trials.ids[row] for row in rows], learnt.chosen[0])
        folder.mkdir(parents=True, exist_ok=True)
        for method in ("tsne", "pca"):
            file = folder / f"{method}.png"
            plots.plot_embeddings(vectors, trials.speakers[rows], file, method, names=(self.plan.speaker, ""))

    def _pictures(self, out: Path) -> dict[str, Path]:
        folders = {model_slug(model): out / model_slug(model) for model in self.models}
        return {
            "Detection error trade-off": out / "det.png",
            **({} if self.is_network else {"Equal error rate by layer": out / "layers.png"}),
            **{
                f"{name}: {file.stem}": file
                for name, folder in folders.items()
                for file in sorted(folder.glob("*.png"))
            },
        }

    def _how(self) -> str:
        if self.is_network:
            learnt = ["the network and its mix of layers, with AAM-softmax"]
        else:
            learnt = ["standardisation", *(["projection"] if self.head == "lda" else [])]
            learnt += ["layer"] if self.layers == "auto" else []
        learnt += ["cohort"] if self.cohort else []
        return (
            "EER in per cent, minDCF from 0 to 1, with 95 % intervals by a bootstrap over speakers. Scores: cosine"
            f"{'' if self.head == 'cosine' else ' after ' + self.head}"
            f"{f', AS-norm with at most {self.cohort} speakers' if self.cohort else ''}. Learnt from the training "
            f"speakers alone: {', '.join(learnt)}."
        )

    def _data(self, found: Mapping[str, Any]) -> str:
        lines = [f"{self.corpus.name}: {self.plan.about}. {self.corpus.note}".strip(), ""]
        for trials in self.plan.trials:
            speakers = len(np.unique(trials.speakers[np.unique(trials.pairs)]))
            lines.append(
                f"* trials, {trials.name}: {len(trials.pairs)} of {speakers} speakers; {trials.num_targets} targets"
            )
        for model, one in found.items():
            lines.append(
                f"* {model_slug(model)}: learnt from {one['num_train']} utterances of {one['num_train_speakers']} "
                f"speakers; recordings that could not be read and are left out: {one['failed']}"
            )
        return "\n".join(lines)


class _Learnt:
    """The features of one encoder, and what is learnt from those of the training speakers."""

    def __init__(self, experiment: Verification, features: CorpusFeatures, folder: Path) -> None:
        self.experiment = experiment
        self.features = features
        self.layers: list[int | str] = list(features.store.config["encoder"]["layers"])
        train = [utterance for utterance in experiment.plan.train if utterance.id in features.store]
        self.speakers = [utterance.labels[experiment.plan.speaker] for utterance in train]
        ids = [utterance.id for utterance in train]
        self.network = self._learn(ids, folder) if experiment.is_network else None
        if self.network is not None:
            self.layers = [MIX]
        self._train = self._embeddings(ids)
        self._scorers: dict[int | str, Scorer] = {}
        self.errors: list[float] | list[None] = [None] * len(self.layers)
        self.chosen = self._choose()

    def score(self, trials: Trials, layers: Sequence[int | str]) -> Iterator[tuple[dict[str, Any], DetCurve]]:
        """Figures of a list of trials by each of some layers; by one that was not chosen, the EER alone."""
        there = trials.within(self.features.store)
        rows = np.unique(there.pairs)
        pairs = np.searchsorted(rows, there.pairs)
        values = self._embeddings([there.ids[row] for row in rows])
        first, second = there.sides
        for layer in layers:
            scores = self._scorer(layer).score(values[:, self.layers.index(layer)], pairs)
            wanted = MEASURES if layer in self.chosen else {EER: MEASURES[EER]}
            found = {
                name: score_trials(scores, first, second, measure, num=self.experiment.num)
                for name, measure in wanted.items()
            }
            counts = {"num_trials": len(pairs), "num_targets": there.num_targets}
            yield {"trials": there.name, "layer": layer, **found, **counts}, det_curve(scores, first == second)

    def project(self, ids: Sequence[str], layer: int | str) -> np.ndarray:
        """Utterances as they are compared, `[n, E]`."""
        return self._scorer(layer).project(self._embeddings(ids)[:, self.layers.index(layer)])

    def _embeddings(self, ids: Sequence[str]) -> np.ndarray:
        """`[n, L, D]`."""
        if self.network is not None:
            return self.network.embed(self.features.store, ids)[:, None]
        values = self.features.store.embeddings(ids)[1]
        return values if self.features.store.config["encoder"]["stacked"] else values[:, None]

    def _scorer(self, layer: int | str) -> Scorer:
        if layer not in self._scorers:
            kind = PLAIN if self.network is not None else self.experiment.head
            scorer = Scorer(kind, cohort=self.experiment.cohort, seed=self.experiment.seed)
            self._scorers[layer] = scorer.fit(self._train[:, self.layers.index(layer)], self.speakers)
        return self._scorers[layer]

    def _learn(self, ids: Sequence[str], folder: Path) -> FrameHead:
        options, encoder = self.experiment, self.features.store.config["encoder"]
        wanted = encoder["layers"]
        if options.layers not in ("auto", "all"):
            wanted = select_layers(options.layers, encoder["num_layers"]).indices
        settings = {"seed": options.seed, **options.head_options}
        return voice_network(
            self.features.store, ids, self.speakers, folder / "head", options.head, layers=wanted, options=settings
        )

    def _choose(self) -> list[int | str]:
        options = self.experiment
        if options.layers != "auto" and self.network is None:
            return list(select_layers(options.layers, self.features.store.config["encoder"]["num_layers"]).indices)
        if len(self.layers) == 1:
            return self.layers
        errors = layer_errors(self._train, self.speakers, options.head, most=options.most, seed=options.seed)
        self.errors = errors
        return [self.layers[int(np.argmin(errors))]]


def check_speakers(plan: VerificationPlan, *, allowed: bool = False) -> LeakReport:
    """What training speakers and trials share, before anything is extracted.

    A speaker or a recording on both sides is a leak. A sentence is reported only: voices are told apart, not words.

    Raises:
        ParameterError: for a leak that is not `allowed`.
    """
    train, test = len(plan.train), len(plan.test)
    rows = [*plan.train, *plan.test]
    report = leak_report(rows, np.arange(train), np.arange(train, train + test), speaker=plan.speaker)
    found = [name for name in ("speakers", "recordings") if (leak := getattr(report, name)) and leak.count]
    if found and not allowed:
        raise ParameterError(
            f"{' and '.join(found)} are on both sides, so the scores would be too good:\n{report.text()}\nMend the "
            "labels, choose other trials or speakers to test, or go on all the same with --allow-leaks"
        )
    return report


def _curve(found: Mapping[str, Any], trials: str) -> tuple[list[Any], list[LayerScore]]:
    rows = [row for row in found["scores"] if row["trials"] == trials]
    return [row["layer"] for row in rows], [row[EER] for row in rows]


def _scores_table(found: Mapping[str, Any]) -> str:
    rows = []
    for model, one in found.items():
        for row in one["scores"]:
            if row["layer"] in one["chosen"]:
                costs = {
                    f"minDCF, p = {name.removeprefix('min_dcf_')}": score_cell(*row[name], scale=1, digits=3)
                    for name in MEASURES
                    if name != EER
                }
                named = {"encoder": model_slug(model), "layer": row["layer"], "trials": row["trials"]}
                rows.append({**named, "EER (%)": row[EER], **costs})
    return markdown_table(rows)


def _layers_table(found: Mapping[str, Any], trials: str) -> str:
    rows = []
    for model, one in found.items():
        for layer, score, error in zip(*_curve(one, trials), one["train_errors"], strict=True):
            rows.append(
                {
                    "encoder": model_slug(model),
                    "layer": layer,
                    "EER of training speakers (%)": None if error is None else f"{100 * error:.1f}",
                    f"EER, {trials} (%)": score,
                    "chosen": "yes" if layer in one["chosen"] else "",
                }
            )
    return markdown_table(rows)
