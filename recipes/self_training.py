"""A head from a few labels and many recordings without: students teach each other in rounds (Noisy Student).

    python recipes/self_training.py --corpus emodb --root DIR [-m MODEL] [--share 0.1] [--seeds 5] -o runs/self
    python recipes/self_training.py --corpus folders --root DIR --unlabelled MORE [--unlabelled ...] -o runs/self

Of the training speakers of each fold a share of the labels is drawn, at least one of each class, anew for each seed;
the other labels are hidden. Every layer (`-l`) is a view with a student of its own, a linear discriminant analysis; the
students together label the unlabelled recordings for those of the next round (see `sf.self_train`). The last round that
folds of the labelled recordings do not show to be worse is taken. Directories of recordings that have no labels at all
(`--unlabelled`) are learnt from in every fold, and with them OUT/head is trained on all labels that there are.

OUT/report.md has a table by round, and the gain over heads that are trained on the labels alone: logistic regression on
the layer that they choose, as in the other recipes, and round 0. Intervals draw speakers and seeds.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

import speechfeat as sf

# Its own split has all speakers on both sides.
SPLITS = {"fsdd": "logo"}
NUM_DRAWS = 1000
SUPERVISED, ENSEMBLE, JOINED = "labels alone: logistic", "students together", "one head of all"


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    sf.add_corpus_options(parser, "emodb")
    sf.add_encoder_options(parser)
    sf.add_output_options(parser)
    group = parser.add_argument_group("labels and protocol")
    group.add_argument("--share", type=float, default=0.1, help="of the training labels, at most 1 (%(default)s)")
    group.add_argument("--seeds", type=int, default=5, help="draws of the labels (%(default)s)")
    group.add_argument("--unlabelled", action="append", default=[], type=Path, help="directory of recordings; again")
    group.add_argument("--split", default="auto", help="official, logo, group-k, k, or LABEL=VALUE,VALUE (%(default)s)")
    group.add_argument("--folds", type=int, default=5, help="of group-k and k (%(default)s)")
    group = parser.add_argument_group("self-training")
    group.add_argument("-l", "--layers", default="all", help="views that teach each other: all, or 1,2,3 (%(default)s)")
    group.add_argument("--rounds", type=int, default=3, help="at most (%(default)s)")
    group.add_argument("--threshold", type=float, default=0.0, help="least probability of a label (%(default)s)")
    group.add_argument("--hard", action="store_true", help="learn the likeliest class, not all probabilities")
    group.add_argument("--shrinkage", type=float, default=0.3, help="of the students' covariance (%(default)s)")
    group.add_argument("--copies", type=int, default=0, help="augmented copies that students hear too (%(default)s)")
    return parser.parse_args()


class Material:
    """A corpus with its features, those of copies, and those of directories without labels.

    Attributes:
        features: of the corpus.
        protocol: its folds.
        binding: with the layers that are views.
        values: `[n, V, D]` of the corpus.
        copies: `[K, n, V, D]`, or None.
        unlabelled: a store of each directory.
        classes: names of the classes.
        codes: `[n]`, their numbers.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, models, corpus = options, sf.models_of(options), sf.corpus_of(options)
        if len(models) > 1:
            raise sf.ParameterError(f"-m names {len(models)} encoders; give one, and another directory for the next")
        self.model = models[0]
        protocol = self._divide(corpus, corpus.utterances)
        sf.check_leaks(corpus, corpus.utterances, protocol, allowed=options.allow_leaks)
        kept = options.features or options.out / "features"
        folder = sf.features_folder(kept, self.model, corpus, pool=options.pool)
        self.features = self._extract(corpus, folder)
        self.protocol = self._divide(corpus, self.features.utterances)
        self.binding = sf.Binding.of(self.features.store, views_of(options.layers))
        self.values = self.binding.embeddings(self.features.store, self.features.ids)
        self.copies = self._read_copies(corpus, folder) if options.copies else None
        self.unlabelled = [self._read_unlabelled(path, kept) for path in options.unlabelled]
        self.classes, self.codes = np.unique(self.features.values(), return_inverse=True)

    def _divide(self, corpus: sf.Corpus, utterances: list[sf.Utterance]) -> sf.Protocol:
        split = self.options.split
        split = SPLITS.get(self.options.corpus, split) if split == "auto" else split
        return sf.make_protocol(corpus, utterances, split, k=self.options.folds, seed=self.options.seed)

    def _extract(
        self, corpus: sf.Corpus, folder: Path, augmentation: sf.Augmentation | None = None
    ) -> sf.CorpusFeatures:
        options = sf.extraction_of(self.options)
        return sf.corpus_features(
            corpus, folder, self.model, pool=self.options.pool, augmentation=augmentation, **options
        )

    def _read_copies(self, corpus: sf.Corpus, folder: Path) -> np.ndarray:
        count = self.options.copies
        copies = replace(corpus, utterances=sf.copies_of(corpus.utterances, count))
        store = self._extract(copies, folder.with_name(f"{folder.name}-dirty{count}"), sf.Augmentation()).store
        numbered = [[f"{key}#{number + 1}" for key in self.features.ids] for number in range(count)]
        return np.stack([self.binding.embeddings(store, keys) for keys in numbered])

    def _read_unlabelled(self, path: Path, kept: Path) -> sf.Store:
        options = sf.extraction_of(self.options)
        out = kept / f"{sf.model_slug(self.model)}-{sf.model_slug(str(path.resolve()))}-unlabelled"
        return sf.extract_features(
            path,
            out,
            self.model,
            "all",
            pool=self.options.pool,
            frames=False,
            device=options["device"],
            dtype=options["dtype"],
            encoder_options={"short_window": options["short_window"]},
        )


def views_of(layers: str) -> tuple[int, ...] | None:
    """Numbers of layers; None for all.

    Raises:
        ParameterError: if they are no numbers.
    """
    try:
        return None if layers == "all" else tuple(map(int, layers.split(",")))
    except ValueError:
        raise sf.ParameterError(f"--layers {layers!r} must be all, or numbers such as 1,2,3") from None


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be done, before anything is extracted.

    Raises:
        ParameterError: for an option out of range.
    """
    if not 0 < options.share <= 1 or options.seeds < 1 or options.copies < 0:
        raise sf.ParameterError(
            f"--share {options.share} must be above 0 and at most 1, --seeds {options.seeds} at least 1, --copies "
            f"{options.copies} at least 0"
        )
    if options.copies and options.unlabelled:
        raise sf.ParameterError("--copies are of the corpus alone; leave them out, or --unlabelled")
    plan_of(options, options.seed)
    views_of(options.layers)


def plan_of(options: argparse.Namespace, seed: int) -> sf.SelfTraining:
    """How students are trained."""
    return sf.SelfTraining(
        rounds=options.rounds,
        threshold=options.threshold,
        soft=not options.hard,
        shrinkage=options.shrinkage,
        seed=seed,
    )


def draw_labelled(codes: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Rows of a share of each class, at least one."""
    drawn = [rng.permutation(np.flatnonzero(codes == code)) for code in np.unique(codes)]
    return np.sort(np.concatenate([rows[: max(1, round(share * len(rows)))] for rows in drawn]))


def run_fold(material: Material, fold: int, seed: int) -> tuple[dict[str, np.ndarray], sf.SelfTrained]:
    """Who is right about which test utterance, `[m]` by name, and what was trained."""
    train, test = material.protocol.folds[fold]
    chosen = draw_labelled(material.codes[train], material.options.share, np.random.default_rng((seed, fold)))
    codes = np.full(len(train), -1)
    codes[chosen] = material.codes[train[chosen]]
    groups = None if material.protocol.inner is None else np.array(material.protocol.inner)[train]
    values, copies = material.values[train], material.copies
    supervised = sf.HeadPlan(seed=seed).train(material.features, train[chosen], material.protocol.inner)
    shares = supervised.probabilities(material.features.store, [material.features.ids[row] for row in test])
    answers = {SUPERVISED: shares.argmax(axis=1)}
    for store in material.unlabelled:
        others = material.binding.embeddings(store)
        values, codes = np.concatenate([values, others]), np.append(codes, np.full(len(others), -1))
        # Of whom they are is not known: each stands for itself.
        groups = None if groups is None else np.append(groups, [f"{store!r} {key}" for key in store.ids])
    found = sf.self_train(
        values,
        codes,
        len(material.classes),
        plan_of(material.options, seed),
        groups=groups,
        copies=None if copies is None else copies[:, train],
    )
    for number, place in [*((one, f"round {one}") for one in range(len(found.rounds))), (None, "round taken")]:
        heard = material.values[test]
        answers[f"{ENSEMBLE}, {place}"] = found.probabilities(heard, number).argmax(axis=1)
        answers[f"{JOINED}, {place}"] = found.joined(number).predict(heard.reshape(len(heard), -1))
    return {name: given == material.codes[test] for name, given in answers.items()}, found


def recalls(truth: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Recall averaged over classes, of each column, `[m, S]` -> `[S]`; of differences, the difference."""
    return np.mean([right[truth == code].mean(axis=0) for code in np.unique(truth)], axis=0)


def with_interval(truth: np.ndarray, right: np.ndarray, groups: np.ndarray | None) -> sf.LayerScore:
    """Averaged over seeds, with an interval that draws speakers, and seeds, anew."""
    rng = np.random.default_rng(0)

    def drawn(labels: np.ndarray, told: np.ndarray) -> float:
        return float(recalls(labels, told)[rng.integers(told.shape[1], size=told.shape[1])].mean())

    interval = sf.bootstrap_interval(drawn, truth, right, groups=groups, num=NUM_DRAWS)
    return sf.LayerScore(float(recalls(truth, right).mean()), *interval)


def summarise(material: Material, right: dict[str, np.ndarray]) -> list[dict]:
    """A row for each of what was trained: its score, its gains, and in how many draws of labels it gains."""
    tested = np.concatenate([test for _, test in material.protocol.folds])
    truth = material.codes[tested]
    groups = None if material.protocol.groups is None else np.array(material.protocol.groups)[tested]
    rows = []
    for name, found in right.items():
        row: dict = {"head": name, "uar": with_interval(truth, found, groups)}
        if name != SUPERVISED:
            gains = recalls(truth, found - right[SUPERVISED])
            row["gain over labels alone"] = with_interval(truth, found - right[SUPERVISED], groups)
            start = right[f"{name.partition(',')[0]}, round 0"]
            row["gain over round 0"] = None if found is start else with_interval(truth, found - start, groups)
            row["better draws"] = f"{int((gains > 0).sum())} of {len(gains)}"
        rows.append(row)
    return rows


def save_head(material: Material) -> None:
    """Train a head on all labels, and on the directories that have none."""
    head = sf.self_train_head(
        material.features.store,
        material.features.values(),
        plan_of(material.options, material.options.seed),
        ids=material.features.ids,
        groups=material.protocol.inner,
        layers=material.binding.layers,
        unlabelled=material.unlabelled,
        task=material.features.corpus.label,
    )
    head.save(material.options.out / "head", overwrite=True)


def report(material: Material, rows: list[dict], taken: list[list[int]]) -> str:
    """Write what was found; the table."""
    options, corpus = material.options, material.features.corpus
    table = sf.markdown_table(rows)
    others = sum(len(store.ids) for store in material.unlabelled)
    results = {
        "command": sf.command_line(),
        "corpus": corpus.name,
        "model": material.model,
        "layers": material.binding.layers,
        "protocol": material.protocol.about,
        "utterances": len(material.features.utterances),
        "unlabelled": others,
        "share": options.share,
        "seeds": options.seeds,
        "rounds taken": taken,
        "rows": rows,
    }
    sf.write_results(options.out, results)
    about = (
        f"{corpus.name}: {len(material.features.utterances)} utterances, {corpus.label}; {material.protocol.about}. "
        f"Encoder {material.model}, layers {', '.join(map(str, material.binding.layers))}. "
        f"{100 * options.share:g} % of the training labels, {options.seeds} draws; {others} recordings of other "
        f"directories. Rounds taken: {np.mean(taken):.1f} on average."
    )
    sections = [sf.Section("Scores", f"{table}\n\n{TABLE_NOTE}"), sf.Section("Data", about)]
    sf.write_report(options.out, "Self-training", sf.command_line(), sections)
    return table


TABLE_NOTE = (
    "Recall averaged over classes (UAR) in per cent, averaged over draws of the labels, with 95 % bootstrap intervals "
    "over speakers and draws; gains are of the same utterances and draws. Students together: their probabilities are "
    "averaged; one head of all: their log likelihoods, which makes them one linear head."
)


def main() -> int:
    """Train, test, report."""
    options = read_arguments()
    check(options)
    material = Material(options)
    count = len(material.protocol.folds)
    seeds = range(options.seed, options.seed + options.seeds)
    columns: list[dict[str, np.ndarray]] = []
    taken: list[list[int]] = []
    with tqdm(total=count * len(seeds), unit="fold", disable=options.quiet) as bar:
        for seed in seeds:
            found = []
            for fold in range(count):
                found.append(run_fold(material, fold, seed))
                bar.update()
            columns.append({name: np.concatenate([right[name] for right, _ in found]) for name in found[0][0]})
            taken.append([trained.best for _, trained in found])
    right = {name: np.stack([column[name] for column in columns], axis=1).astype(float) for name in columns[0]}
    rows = summarise(material, right)
    if material.unlabelled:
        save_head(material)
    print(report(material, rows, taken))
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
