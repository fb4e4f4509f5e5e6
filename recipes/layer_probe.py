"""What every layer of an encoder tells of every task given: linear probes with intervals, the curve, the best layer.

    python recipes/layer_probe.py --task fsdd:DIR --task fsdd:DIR:speaker:keyword=5,6,7,8,9 --task emodb:DIR
        --task manifest:wakeword.tsv:keyword:k [-m MODEL ...] -o runs/layers

A task is CORPUS:ROOT[:LABEL[:SPLIT]]; the corpora and their splits are those of the other recipes, and SPLIT "trials"
is speaker verification: the equal error rate over all pairs, at most five utterances of a speaker. The probe is
logistic regression of one strength on standardised dimensions, the same for all layers and encoders. A second run takes
the features that are there.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import speechfeat as sf

TRIALS = "trials"
# Of a speaker with 50 utterances there are as many pairs as of 100 with five.
MOST_OF_A_SPEAKER = 5


class Task(NamedTuple):
    """What is to be told, and how its corpus is divided."""

    name: str
    corpus: sf.Corpus
    split: str


def read_task(text: str) -> Task:
    """`CORPUS:ROOT[:LABEL[:SPLIT]]`.

    Raises:
        ParameterError: if it is not of that form, or the corpus cannot be read.
    """
    parts = text.split(":")
    if not 2 <= len(parts) <= 4:
        raise sf.ParameterError(f"--task {text!r} must be CORPUS:ROOT[:LABEL[:SPLIT]], as in fsdd:DIR:speaker:k")
    name, root, label, split = (parts + [""] * 2)[:4]
    group = "speaker" if name == "manifest" and has_speakers(root, label) else None
    corpus = sf.open_corpus(name, root, label=label or None, group=group)
    return Task(f"{corpus.label} of {Path(root).stem}", corpus, split or ("logo" if name == "fsdd" else "auto"))


def has_speakers(manifest: str, label: str) -> bool:
    """Whether every utterance of a manifest has a speaker."""
    return all(one.labels.get("speaker") for one in sf.open_corpus("manifest", manifest, label=label).utterances)


def probe(features: sf.CorpusFeatures, task: Task, options: argparse.Namespace) -> tuple[str, list[sf.LayerScore]]:
    """How the corpus was divided, and a score a layer."""
    stacked = features.store.config["encoder"]["stacked"]
    values = features.store.embeddings(features.ids)[1]
    layers = values if stacked else values[:, None]
    if task.split == TRIALS:
        about = f"all pairs of at most {MOST_OF_A_SPEAKER} utterances of a speaker, equal error rate"
        return about, sf.verify_layers(layers, features.values(), most=MOST_OF_A_SPEAKER)
    protocol = sf.make_protocol(features.corpus, features.utterances, task.split, seed=options.seed)
    sf.check_leaks(features.corpus, features.utterances, protocol, allowed=options.allow_leaks)
    metric = "uar" if features.corpus.label == "emotion" else "accuracy"
    found = sf.probe_layers(layers, features.values(), protocol.folds, groups=protocol.groups, metric=metric)
    return f"{protocol.about}, {metric}", found


def describe(features: sf.CorpusFeatures, about: str, scores: list[sf.LayerScore], best: int) -> dict:
    """For `results.json`."""
    layers = features.store.config["encoder"]["layers"]
    rows = [{"layer": layer, **score._asdict()} for layer, score in zip(layers, scores, strict=True)]
    return {"protocol": about, "utterances": len(features.utterances), "best": layers[best], "scores": rows}


def run(options: argparse.Namespace, tasks: list[Task]) -> dict[str, dict[str, dict]]:
    """What is found, by encoder and task."""
    results: dict[str, dict[str, dict]] = {}
    for model in sf.models_of(options):
        for task in tasks:
            folder = sf.features_folder(
                options.features or options.out / "features", model, task.corpus, pool=options.pool
            )
            features = sf.corpus_features(
                task.corpus, folder, model, "all", pool=options.pool, **sf.extraction_of(options)
            )
            about, scores = probe(features, task, options)
            rank = [score.score if task.split != TRIALS else -score.score for score in scores]
            results.setdefault(model, {})[task.name] = describe(features, about, scores, rank.index(max(rank)))
    return results


def table(results: dict[str, dict[str, dict]]) -> str:
    """A row a layer, a column a task, in per cent with the interval; the best of each encoder in bold."""
    rows = []
    for model, tasks in results.items():
        cells: dict[int, dict[str, str]] = {}
        for name, found in tasks.items():
            for one in found["scores"]:
                text = sf.score_cell(one["score"], one["low"], one["high"])
                is_best = one["layer"] == found["best"]
                cells.setdefault(one["layer"], {})[name] = f"**{text}**" if is_best else text
        rows += [{"encoder": model, "layer": layer, **found} for layer, found in sorted(cells.items())]
    return sf.markdown_table(rows)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--task", action="append", required=True, dest="tasks", help="CORPUS:ROOT[:LABEL[:SPLIT]]")
    sf.add_encoder_options(parser)
    sf.add_output_options(parser)
    return parser.parse_args()


def main() -> int:
    """Probe, draw, report."""
    options = read_arguments()
    results = run(options, [read_task(text) for text in options.tasks])
    sf.write_results(options.out, {"command": sf.command_line(), "models": results})
    pictures = {}
    for task in next(iter(results.values())):
        curves = {}
        for model, found in results.items():
            scores = [sf.LayerScore(one["score"], one["low"], one["high"]) for one in found[task]["scores"]]
            curves[model] = ([one["layer"] for one in found[task]["scores"]], scores)
        pictures[task] = options.out / f"{sf.model_slug(task)}.png"
        sf.plot_layers(curves, pictures[task], "score")
    protocols = {name: found["protocol"] for tasks in results.values() for name, found in tasks.items()}
    sections = [
        sf.Section(
            "Scores", table(results) + "\n\nIn per cent, with 95 % bootstrap intervals; the best layers in bold."
        ),
        sf.Section("Tasks", "\n".join(f"* {name}: {about}" for name, about in protocols.items())),
    ]
    sf.write_report(options.out, "Layers", sf.command_line(), sections, pictures)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
