"""What every layer of an encoder tells of digits, speakers, emotions and wake words: linear probes with intervals.

    python -m benchmarks.encoder_scores DATA_DIR -m MODEL [-m MODEL ...] [--tasks digits,speaker,emotion,wake]
        [--held-out FILE] [--dtype float32] [--short-window] [--features DIR] [--csv out.csv]

DATA_DIR holds `fsdd.tsv`, `emodb.tsv` and `wakeword.tsv` and the recordings they name. MODEL is whatever speechfeat
loads, or `random:` and a checkpoint directory: the same architecture with random weights. Features are the mean and the
standard deviation over the real frames of each utterance; the classifier is logistic regression (C = 0.01) on
standardised dimensions, the same for all.

    digits        fsdd: the digit, leaving out each of 6 speakers in turn; accuracy
    speaker       fsdd: the speaker, trained on digits 0-4, tested on digits 5-9; accuracy
    emotion       emodb: the emotion, leaving out each of 10 speakers in turn; average recall (UAR)
    wake          wakeword: the wake word, 5 folds; accuracy
    verification  FILE (path, speaker): equal error rate over all pairs of utterances, at most five of a speaker, by
                  the cosine of embeddings whose dimensions are standardised over FILE; the lower the better

Intervals (95 %) are bootstraps: over speakers in digits, emotion and verification, over utterances in speaker and wake.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import LeaveOneGroupOut, StratifiedKFold

import speechfeat as sf
from benchmarks.random_weights import random_model
from speechfeat.cli import main_with_errors, tell

POOL = "mean+std"


class Row(NamedTuple):
    """A figure: of the `layer` of an encoder, in a task."""

    layer: int
    task: str
    score: float
    low: float
    high: float


class Task(NamedTuple):
    """A label of a corpus, how it is split, and what the interval's bootstrap draws (None: utterances)."""

    corpus: str
    label: str
    folds: Callable[[pd.DataFrame], Iterable[tuple[np.ndarray, np.ndarray]]]
    groups: str | None = None
    metric: str = "accuracy"


def by_speaker(table: pd.DataFrame) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    return LeaveOneGroupOut().split(table, groups=table["speaker"])


def by_digit(table: pd.DataFrame) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    is_low = table["keyword"].astype(int) < 5
    return [(np.flatnonzero(is_low), np.flatnonzero(~is_low))]


def in_five(table: pd.DataFrame) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    return StratifiedKFold(5, shuffle=True, random_state=0).split(table, table["keyword"])


PROBES = {
    "digits": Task("fsdd", "keyword", by_speaker, "speaker"),
    "speaker": Task("fsdd", "speaker", by_digit),
    "emotion": Task("emodb", "emotion", by_speaker, "speaker", "uar"),
    "wake": Task("wakeword", "keyword", in_five),
}
VERIFICATION = "verification"
# Of a speaker with 50 utterances there are as many pairs as of 100 with five.
MOST_OF_A_SPEAKER = 5
TASKS = (*PROBES, VERIFICATION)


def corpora(tasks: Collection[str], data: Path, held_out: Path | None) -> dict[str, Path]:
    """The manifests that tasks need, by the name of their corpus."""
    names = [PROBES[task].corpus for task in tasks if task in PROBES]
    found = {name: data / f"{name}.tsv" for name in names}
    if held_out is not None and VERIFICATION in tasks:
        found[VERIFICATION] = held_out
    return found


def embed(encoder: sf.Encoder, manifest: Path, root: Path, folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Labels and embeddings `[n, L, D']` of the utterances of a manifest, by way of a store in `folder`."""
    extractor = sf.Extractor(encoder, sf.ExtractConfig(pool=POOL, frames=False))
    utterances = extractor.discover(manifest, root=root)
    extractor.run(extractor.survey(utterances), folder)
    store = sf.Store(folder)
    if failures := store.errors():
        raise sf.AudioError(f"{len(failures)} recordings of {manifest} failed, first {failures[0]}")
    # A store that was kept may hold utterances of an earlier manifest too.
    values = store.embeddings([utterance.id for utterance in utterances])[1]
    table = pd.DataFrame([utterance.labels for utterance in utterances])
    return table, values if encoder.selection.stacked else values[:, None]


def score_task(task: str, table: pd.DataFrame, values: np.ndarray) -> list[sf.LayerScore]:
    """A score of each layer."""
    if task == VERIFICATION:
        return sf.verify_layers(values, table["speaker"], most=MOST_OF_A_SPEAKER)
    probe = PROBES[task]
    groups = None if probe.groups is None else table[probe.groups]
    return sf.probe_layers(values, table[probe.label], probe.folds(table), groups=groups, metric=probe.metric)


def scores(
    encoder: sf.Encoder,
    data: Path,
    tasks: Collection[str] = TASKS,
    held_out: Path | None = None,
    features: Path | None = None,
) -> list[Row]:
    """Figures of an encoder's layers.

    Args:
        encoder: with the layers wanted.
        data: directory of the corpora.
        tasks: some of `TASKS`.
        held_out: manifest of the utterances to verify speakers on; without it verification is left out.
        features: directory to keep the embeddings in; a run that finds them there takes them.
    """
    rows = []
    with TemporaryDirectory() if features is None else nullcontext(features) as folder:
        for corpus, manifest in corpora(tasks, data, held_out).items():
            began = time.monotonic()
            table, values = embed(encoder, manifest, data, Path(folder) / corpus)
            tell(f"{encoder.name}: {len(table)} utterances of {corpus}, {time.monotonic() - began:.0f} s")
            for task in tasks:
                if corpus == (PROBES[task].corpus if task in PROBES else task):
                    found = zip(encoder.selection.indices, score_task(task, table, values), strict=True)
                    rows += [Row(layer, task, *figures) for layer, figures in found]
    return rows


def load(name: str, dtype: str, short_window: bool) -> sf.Encoder:
    options = {"layers": "all", "dtype": dtype, "short_window": short_window}
    if not name.startswith("random:"):
        return sf.load_encoder(name, **options)
    model, extractor = random_model(name.removeprefix("random:"))
    return sf.load_encoder(model, feature_extractor=extractor, **options)


def markdown(frame: pd.DataFrame) -> str:
    """A row a layer, a column a task, in per cent with the interval."""
    tasks = [task for task in TASKS if task in set(frame["task"])]
    lines = [f"| model | layer | {' | '.join(tasks)} |", f"|---|---|{'---|' * len(tasks)}"]
    for (model, layer), rows in frame.groupby(["model", "layer"], sort=False):
        figures = rows.set_index("task")[["score", "low", "high"]] * 100
        cells = {task: f"{score:.1f} ({low:.1f}-{high:.1f})" for task, score, low, high in figures.itertuples()}
        lines.append(f"| {model} | {layer} | {' | '.join(cells.get(task, '-') for task in tasks)} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoder_scores", description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-m", "--model", action="append", required=True, dest="models")
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(TASKS), help=",".join(TASKS))
    parser.add_argument("--held-out", type=Path, help="CSV or TSV with path (below DATA_DIR) and speaker")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--short-window", action="store_true", help="run Whisper on the clip's length, not on 30 s")
    parser.add_argument("--features", type=Path, help="keep the embeddings here and take those that are here")
    parser.add_argument("--csv", type=Path, help="write the figures here too, a line each")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"unknown tasks {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    if not corpora(options.tasks, options.data, options.held_out):
        parser.error("verification needs --held-out")
    return options


def main() -> int:
    options = arguments()
    if options.held_out is None and VERIFICATION in options.tasks:
        tell("verification is left out: it needs --held-out")
    found = []
    for name in options.models:
        encoder = load(name, options.dtype, options.short_window)
        folder = options.features and options.features / re.sub(r"[^\w.-]+", "_", name).strip("_")
        rows = scores(encoder, options.data, options.tasks, options.held_out, folder)
        found += [{"model": name, **row._asdict()} for row in rows]
    frame = pd.DataFrame(found)
    if options.csv:
        frame.to_csv(options.csv, index=False)
    print(markdown(frame))
    return 0


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
