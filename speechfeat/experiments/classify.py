"""The whole of a classification experiment: features, folds, heads, scores, pictures, report, for one or more encoders.

experiment = Classification("Emotion", corpus, models=["conformer-s"], out="runs/emotion", metric="uar")
results = experiment.run()
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from speechfeat import plots
from speechfeat.augmentation import MILD, copies_of
from speechfeat.classification import confusion_matrix
from speechfeat.cli import tell
from speechfeat.corpora.base import Corpus
from speechfeat.errors import ParameterError
from speechfeat.experiments.crossval import MEASURES, Answers, HeadPlan, cross_validate
from speechfeat.experiments.features import POOL, CorpusFeatures, corpus_features, features_folder, model_slug
from speechfeat.experiments.protocol import Protocol, check_leaks, make_protocol
from speechfeat.experiments.report import Section, markdown_table, read_results, write_report, write_results
from speechfeat.heads.base import HEAD_JSON, Head, describe_training
from speechfeat.heads.episodes import few_shot
from speechfeat.heads.framed import FRAME_KINDS
from speechfeat.leaks import LeakReport
from speechfeat.probing import LayerScore

ANSWERS = "answers.csv"
# Classes in an episode of few examples, and questions of each: small corpora have no more.
MOST_WAYS, QUERIES = 5, 5


@dataclass(frozen=True)
class Classification:
    """An experiment.

    Attributes:
        title: of the report.
        corpus: from `open_corpus`.
        models: encoders, as for `load_encoder`, to be compared.
        out: directory of results and heads, of features too unless `features` is given.
        head: which is trained, and how.
        pool: of the embeddings.
        split: see `make_protocol`.
        k: folds where the split says k.
        metric: that is looked at: "accuracy", "uar" or "macro_f1".
        features: directory of features, to share them between experiments.
        copies: augmented copies of each utterance that a second score averages over (test-time augmentation).
        shots: examples of a class that prototypes are made of in few-shot episodes, several to be tried.
        allow_leaks: go on although a speaker or a recording is on both sides.
        seed: of the folds.
        extraction: of `corpus_features`: device, dtype, quiet, short_window ...
        command: that was given, for the report.
    """

    title: str
    corpus: Corpus = field(repr=False)
    models: Sequence[str]
    out: str | os.PathLike[str]
    head: HeadPlan = field(default_factory=HeadPlan)
    pool: str = POOL
    split: str = "auto"
    k: int = 5
    metric: str = "accuracy"
    features: str | os.PathLike[str] | None = None
    copies: int = 0
    shots: Sequence[int] = ()
    allow_leaks: bool = False
    seed: int = 0
    extraction: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        if self.metric not in MEASURES:
            raise ParameterError(f"metric={self.metric!r} is not known; use {', '.join(MEASURES)}")
        if self.copies < 0:
            raise ParameterError(f"copies={self.copies} must be at least 0")
        if not self.models:
            raise ParameterError("there is no model; name at least one encoder")

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; the content of `results.json`.

        Raises:
            ParameterError: for a leak, or a corpus that cannot be divided or told apart.
            SpeechfeatError: as of extraction.
        """
        out = Path(self.out)
        # Before hours of extraction: a split that leaks or cannot be made is told first.
        protocol = make_protocol(self.corpus, self.corpus.utterances, self.split, k=self.k, seed=self.seed)
        leaks = check_leaks(self.corpus, self.corpus.utterances, protocol, allowed=self.allow_leaks)
        found = {model: self._run_model(model, out / model_slug(model)) for model in self.models}
        results = {
            "title": self.title,
            "command": self.command,
            "corpus": self.corpus.name,
            "label": self.corpus.label,
            "metric": self.metric,
            "protocol": protocol.about,
            "leaks": [asdict(report) for report in leaks],
            "models": found,
        }
        write_results(out, results)
        self._report(out, results, leaks)
        return results

    def _run_model(self, model: str, folder: Path) -> dict[str, Any]:
        features = self._extract(model)
        protocol = make_protocol(self.corpus, features.utterances, self.split, k=self.k, seed=self.seed)
        settings = self._settings(features, protocol)
        known = read_results(folder)
        if known is not None and known["settings"] == settings and (folder / "head" / HEAD_JSON).exists():
            tell(f"{model}: {folder} holds the results of this experiment already")
            return known
        answers, head = self._train(model, features, protocol)
        scores = {name: score._asdict() for name, score in answers.scores().items()}
        if self.copies:
            augmented = answers.scores(augmented=True)
            scores |= {f"{name}_tta": score._asdict() for name, score in augmented.items()}
        head.score(protocol=protocol.about, **scores)
        head.save(folder / "head", overwrite=True)
        result = {
            "settings": settings,
            "utterances": len(features.utterances),
            "failed": len(features.failures),
            "scores": scores,
            "layers": [list(one.record.binding.layers) for one in answers.heads],
            "final_layers": list(head.record.binding.layers),
            "few_shot": self._few_shot(features, protocol, head),
            "head": {name: value for name, value in head.record.options.items() if name != "pipeline"},
        }
        _write_answers(answers, folder / ANSWERS)
        self._draw(folder, features, answers, head)
        write_results(folder, result)
        # As it is read back: a second run returns the same.
        return read_results(folder) or result

    def _extract(self, model: str, copies: int = 0) -> CorpusFeatures:
        kept = Path(self.features) if self.features is not None else Path(self.out) / "features"
        frames = self.head.kind in FRAME_KINDS
        folder = features_folder(kept, model, self.corpus, pool=self.pool, frames=frames)
        corpus, augmentation = self.corpus, None
        if copies:
            folder = folder.with_name(f"{folder.name}-copies{copies}")
            corpus = replace(corpus, utterances=copies_of(corpus.utterances, copies))
            augmentation = MILD
        options = {"pool": self.pool, "frames": frames, "augmentation": augmentation, **self.extraction}
        return corpus_features(corpus, folder, model, "all", **options)

    def _settings(self, features: CorpusFeatures, protocol: Protocol) -> dict[str, Any]:
        """What decides the scores: another value of any of these means that the experiment is another."""
        return {
            "data": describe_training(features.store, features.ids, features.values()),
            "protocol": protocol.about,
            "copies": self.copies,
            "shots": list(self.shots),
            "head": {name: str(value) for name, value in asdict(self.head).items()},
        }

    def _train(self, model: str, features: CorpusFeatures, protocol: Protocol) -> tuple[Answers, Head]:
        num = len(protocol.folds)
        copies = self._extract(model, self.copies).store if self.copies else None
        with tqdm(total=num + (num > 1), unit="head", desc=model, disable=self.extraction.get("quiet")) as bar:
            answers = cross_validate(features, protocol, self.head, lambda *_: bar.update(), copies=copies)
            if num == 1:  # the head that is kept is the one whose score is known
                return answers, answers.heads[0]
            head = self.head.train(features, range(len(features.utterances)), protocol.inner)
            bar.update()
        return answers, head

    def _few_shot(self, features: CorpusFeatures, protocol: Protocol, head: Head) -> list[dict[str, Any]]:
        """A row a number of examples: prototypes of episodes, whose examples and questions are of different groups."""
        values, labels = _pooled(features, head), features.values()
        ways = min(MOST_WAYS, len(set(labels)))
        rows = []
        for shots in self.shots:
            # Without the mean, which all utterances share, cosines tell more.
            found = few_shot(
                values - values.mean(axis=0),
                labels,
                ways=ways,
                shots=shots,
                queries=QUERIES,
                groups=protocol.groups,
                seed=self.seed,
            )
            rows.append({"ways": ways, "shots": shots, "accuracy": found._asdict()})
        return rows

    def _draw(self, folder: Path, features: CorpusFeatures, answers: Answers, head: Head) -> None:
        plots.plot_confusion(confusion_matrix(answers.labels, answers.answers), folder / "confusion.png")
        values = _pooled(features, head)
        for method in ("tsne", "pca"):
            plots.plot_embeddings(values, features.values(), folder / f"{method}.png", method=method)
        if "layer_scores" in head.record.options:
            layers, scores = head.record.options["layer_scores"]
            curve = (layers, [LayerScore(*score) for score in scores])
            plots.plot_layers({self.corpus.label: curve}, folder / "layers.png", "uar on the training data")
        if (mix := getattr(head, "mix", None)) is not None:
            plots.plot_mix(list(mix), list(mix.values()), folder / "mix.png")

    def table(self, results: Mapping[str, Any]) -> str:
        """The scores of `run`, a row an encoder, as Markdown."""
        rows = [
            {
                "encoder": model,
                "layer": _layers_said(found),
                **{name: LayerScore(**score) for name, score in found["scores"].items()},
            }
            for model, found in results["models"].items()
        ]
        return markdown_table(rows)

    def _report(self, out: Path, results: Mapping[str, Any], leaks: Sequence[LeakReport]) -> None:
        sections = [
            Section("Scores", self.table(results) + "\n\nIn per cent, with 95 % bootstrap intervals."),
            *self._episodes(results),
            Section("Data", self._data_said(results)),
            Section("Shared by training and test", _leaks_said(leaks)),
        ]
        pictures = {
            f"{model}: {file.stem}": file
            for model in results["models"]
            for file in sorted((out / model_slug(model)).glob("*.png"))
        }
        write_report(out, self.title, self.command, sections, pictures)

    def _episodes(self, results: Mapping[str, Any]) -> list[Section]:
        rows = [
            {"encoder": model, **row, "accuracy": LayerScore(**row["accuracy"])}
            for model, found in results["models"].items()
            for row in found["few_shot"]
        ]
        return [Section("Few examples", markdown_table(rows))] if rows else []

    def _data_said(self, results: Mapping[str, Any]) -> str:
        first = next(iter(results["models"].values()))
        note = f" {self.corpus.note}" if self.corpus.note else ""
        return (
            f"{self.corpus.name}: {first['utterances']} utterances, {len(set(self.corpus.values()))} values of "
            f"{self.corpus.label}; {results['protocol']}.{note}"
        )


def _leaks_said(leaks: Sequence[LeakReport]) -> str:
    """A row a fold, and examples of what should not be shared."""
    rows = [
        {
            "fold": number,
            "training": report.num_train,
            "test": report.num_test,
            **{name: getattr(getattr(report, name), "count", None) for name in ("speakers", "recordings", "sentences")},
        }
        for number, report in enumerate(leaks)
    ]
    bad = [one.text() for one in leaks if one.recordings.count or (one.speakers is not None and one.speakers.count)]
    parts = [markdown_table(rows), *(f"```\n{text}\n```" for text in bad)]
    return "\n\n".join([*parts, "Utterances, then what both sides have; - where it is not known or is what is told."])


def _layers_said(found: Mapping[str, Any]) -> str:
    chosen = sorted({tuple(layers) for layers in found["layers"]})
    return " or ".join("+".join(map(str, layers)) for layers in chosen)


def _pooled(features: CorpusFeatures, head: Head) -> np.ndarray:
    """`[n, D']` embeddings to draw: of the layers the head takes, side by side."""
    values = features.store.embeddings(features.ids)[1]
    if not features.store.config["encoder"]["stacked"]:
        return values
    there = features.store.config["encoder"]["layers"]
    places = [there.index(layer) for layer in head.record.binding.layers]
    return values[:, places].reshape(len(values), -1)


def _write_answers(answers: Answers, file: Path) -> None:
    table = {"id": answers.ids, "fold": answers.folds, "label": answers.labels, "answer": answers.answers}
    shares = {f"p_{name}": answers.probabilities[:, column] for column, name in enumerate(answers.classes)}
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({**table, **shares}).to_csv(file, index=False, float_format="%.6g")
