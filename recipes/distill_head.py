"""What a teacher's probabilities are worth to a small head or encoder: soft labels against the same student without.

    python recipes/distill_head.py --corpus fsdd --root DIR -m mfcc --teacher openai/whisper-tiny.en:3 -o runs/taught
    python recipes/distill_head.py --corpus emodb --root DIR -m conformer-s -l 3 --teacher ... --tune 2 -o runs/taught

In every fold a teacher, a logistic head on the features of another encoder (several: `--teacher` again, their average),
answers for the training utterances by heads that were not trained on them. The student, a logistic head on features of
`-m`, learns by `alpha * T^2 * KL + (1 - alpha) * cross-entropy` (Hinton et al., 2015), for each temperature T and each
alpha; its layer is that chosen for hard labels alone, which it is compared with, and the strength of the
regularisation is chosen for each on the training data. `--tune K` trains the student's top K blocks with its head,
too: on hard labels, and at the first T for each alpha.

OUT/report.md has the whole table: no cell of it is chosen, so that the best one is better than it will be elsewhere.
Intervals and those of gains, in pairs, are by a bootstrap over speakers.
"""

import argparse
import sys

import numpy as np
from tqdm import tqdm

import speechfeat as sf

# Its own split has all speakers on both sides.
SPLITS = {"fsdd": "logo"}
HARD, TEACHER, TUNED = "hard labels", "teacher", "tuned"
# Not searched: a teacher is trained six times a fold, and this is what probes have.
TEACHER_OPTIONS = {"C": 0.01}


def numbers(text: str) -> list[float]:
    """Of a comma-separated list."""
    return [float(part) for part in text.split(",")]


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    sf.add_corpus_options(parser, "fsdd")
    sf.add_encoder_options(parser)
    sf.add_output_options(parser)
    group = parser.add_argument_group("distillation and protocol")
    group.add_argument("--teacher", action="append", required=True, dest="teachers", metavar="MODEL[:LAYER]")
    group.add_argument("-l", "--layers", default="auto", help="of the student: auto, all, 7 (%(default)s)")
    group.add_argument("--temperatures", type=numbers, default="2,1,4,8", metavar="T,T,...", help="(%(default)s)")
    group.add_argument("--alphas", type=numbers, default="0.25,0.5,0.75,1", metavar="A,A,...", help="(%(default)s)")
    group.add_argument("--split", default="auto", help="official, logo, group-k, k, or LABEL=VALUE,VALUE (%(default)s)")
    group.add_argument("--folds", type=int, default=5, help="of group-k and k (%(default)s)")
    group = parser.add_argument_group("training of the encoder")
    group.add_argument("--tune", type=int, metavar="K", help="train the top K blocks of the student, too")
    group.add_argument("--limit", type=int, metavar="N", help="in the first N folds alone")
    group.add_argument("--epochs", type=int, default=8, help="the most (%(default)s)")
    group.add_argument("--rate", type=float, default=1e-4, help="of the blocks (%(default)s)")
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be done, before anything is extracted.

    Raises:
        ParameterError: for an option out of range.
    """
    if not all(temperature > 0 for temperature in options.temperatures):
        raise sf.ParameterError(f"--temperatures {options.temperatures} must be above 0")
    if not all(0 <= alpha <= 1 for alpha in options.alphas):
        raise sf.ParameterError(f"--alphas {options.alphas} must be from 0 (labels alone) to 1 (the teacher alone)")


class Material:
    """The corpus with the features of student and teachers.

    Attributes:
        student: its features.
        teachers: of each, its features and its layers.
        protocol: the folds of the utterances that all have features of.
        ids: of these utterances.
        labels: of each.
        classes: what they may be.
        inner: of each, by what training data are divided; or None.
        audio: of the utterances, decoded once; None unless an encoder is trained.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, corpus, models = options, sf.corpus_of(options), sf.models_of(options)
        if len(models) > 1:
            raise sf.ParameterError(f"-m names {len(models)} students; give one, and another directory for the next")
        protocol = self._divide(corpus, corpus.utterances)
        sf.check_leaks(corpus, corpus.utterances, protocol, allowed=options.allow_leaks)
        self.model = models[0]
        self.student = self._extract(corpus, self.model)
        self.teachers = []
        for text in options.teachers:
            model, _, layer = text.rpartition(":")
            named = bool(model) and layer.isdigit()
            found = self._extract(corpus, model if named else text)
            self.teachers.append((found, int(layer) if named else "auto"))
        there = set.intersection(*(set(found.ids) for found in (self.student, *(one for one, _ in self.teachers))))
        self.utterances = [one for one in self.student.utterances if one.id in there]
        self.protocol = self._divide(corpus, self.utterances)
        self.ids = [one.id for one in self.utterances]
        self.labels = [one.labels[corpus.label] for one in self.utterances]
        self.classes = sorted(set(self.labels))
        self.inner = self.protocol.inner
        self.audio = None
        if options.tune:
            options.out.mkdir(parents=True, exist_ok=True)
            rate = self.student.store.grid["sample_rate"]
            self.audio = sf.AudioCache(options.out, self.utterances, rate, exact=True)

    def _divide(self, corpus: sf.Corpus, utterances: list[sf.Utterance]) -> sf.Protocol:
        split = self.options.split
        split = SPLITS.get(self.options.corpus, split) if split == "auto" else split
        return sf.make_protocol(corpus, utterances, split, k=self.options.folds, seed=self.options.seed)

    def _extract(self, corpus: sf.Corpus, model: str) -> sf.CorpusFeatures:
        kept = self.options.features or self.options.out / "features"
        folder = sf.features_folder(kept, model, corpus, pool=self.options.pool)
        return sf.corpus_features(corpus, folder, model, pool=self.options.pool, **sf.extraction_of(self.options))

    def of(self, rows: np.ndarray) -> dict:
        """Arguments of `train_head` for some of the utterances."""
        return {
            "labels": [self.labels[row] for row in rows],
            "ids": [self.ids[row] for row in rows],
            "groups": None if self.inner is None else [self.inner[row] for row in rows],
            "seed": self.options.seed,
        }


def cells(options: argparse.Namespace) -> list[tuple[float, float]]:
    """Temperatures and alphas that are tried."""
    return [(temperature, alpha) for temperature in options.temperatures for alpha in options.alphas]


def name_of(temperature: float, alpha: float) -> str:
    """Of a cell of the table."""
    return f"T={temperature:g}, alpha={alpha:g}"


def teach(material: Material, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the teachers say of training utterances, `[n, C]`, not having been trained on them, and of those to test."""
    ids = [material.ids[row] for row in test]
    said, told = [], []
    for found, layer in material.teachers:
        settings = {"layers": layer, **TEACHER_OPTIONS, **material.of(train)}
        said.append(sf.held_out_answers(found.store, **settings))
        told.append(sf.train_head(found.store, **settings).probabilities(found.store, ids))
    return np.mean(said, axis=0), np.mean(told, axis=0)


def run_fold(material: Material, number: int) -> dict[str, np.ndarray]:
    """Answers for the test utterances of a fold, by name."""
    options = material.options
    train, test = material.protocol.folds[number]
    store, ids = material.student.store, [material.ids[row] for row in test]
    teacher, told = teach(material, train, test)
    hard = sf.train_head(store, layers=options.layers, **material.of(train))
    answers = {TEACHER: told, HARD: hard.probabilities(store, ids)}
    layers = hard.record.binding.layers
    for temperature, alpha in cells(options):
        settings = {"temperature": temperature, "alpha": alpha, "beta": 1 - alpha}
        head = sf.distill_head(store, teacher=teacher, layers=layers, **settings, **material.of(train))
        answers[name_of(temperature, alpha)] = head.probabilities(store, ids)
    if options.tune and number < (options.limit or number + 1):
        every = np.full((len(material.ids), len(material.classes)), np.nan)
        every[train] = np.log(np.maximum(teacher, 1e-12))
        for alpha in (0.0, *options.alphas):
            answers[tuned_name(options, alpha)] = tune(material, number, layers, every, alpha)
    return {name: shares.argmax(axis=1) for name, shares in answers.items()}


def tuned_name(options: argparse.Namespace, alpha: float) -> str:
    """Of a row of the table."""
    return f"{TUNED}, {name_of(options.temperatures[0], alpha) if alpha else HARD}"


def tune(material: Material, number: int, layers: tuple[int, ...], teacher: np.ndarray, alpha: float) -> np.ndarray:
    """Train the encoder with its head, by a teacher and labels; its answers for the test utterances of a fold."""
    options = material.options
    train, test = material.protocol.folds[number]
    extraction = sf.extraction_of(options)
    plan = sf.TuningPlan(
        model=material.model,
        layers=layers,
        regime=sf.TopBlocks(options.tune, rate=options.rate, head_epochs=0),
        head_options={"pool": options.pool},
        balanced=False,
        batches=sf.BatchPlan(seed=options.seed),
        training=sf.TrainConfig(epochs=options.epochs, seed=options.seed),
        options={"short_window": extraction["short_window"]},
    )
    settings = {"temperature": options.temperatures[0], "alpha": alpha, "beta": 1 - alpha}
    tuning = sf.Tuning(
        material.utterances,
        {"label": material.labels},
        options.out / "tuned" / f"fold-{number}-alpha-{alpha:g}",
        plan,
        rows=train,
        groups=material.inner,
        objective=lambda tasks: sf.Distilled(tasks[0], teacher, **settings),
        audio=material.audio,
        device=extraction["device"],
    )
    tuning.run()
    return tuning.probabilities("label", test)


def summarise(material: Material, folds: list[dict[str, np.ndarray]]) -> list[dict]:
    """A row for each of what was trained: its score and its gain over hard labels."""
    rows = []
    for name in folds[0]:
        done = [
            (answers, test)
            for answers, (_, test) in zip(folds, material.protocol.folds, strict=True)
            if name in answers
        ]
        tested = np.concatenate([test for _, test in done])
        truth = np.array([material.classes.index(material.labels[row]) for row in tested])
        groups = None if material.protocol.groups is None else np.array(material.protocol.groups)[tested]
        right = np.concatenate([answers[name] for answers, _ in done]) == truth
        row = {"student": name, "uar": with_interval(truth, right.astype(float), groups)}
        base = tuned_name(material.options, 0) if name.startswith(TUNED) else HARD
        if name not in (TEACHER, base):
            others = np.concatenate([answers[base] for answers, _ in done]) == truth
            row["gain over hard labels"] = with_interval(truth, right.astype(float) - others, groups)
        rows.append(row)
    return rows


def with_interval(truth: np.ndarray, right: np.ndarray, groups: np.ndarray | None) -> sf.LayerScore:
    """Recall averaged over classes, or a difference of two, `[m]`, with its interval."""

    def recall(labels: np.ndarray, told: np.ndarray) -> float:
        return float(np.mean([told[labels == code].mean() for code in np.unique(labels)]))

    return sf.LayerScore(recall(truth, right), *sf.bootstrap_interval(recall, truth, right, groups=groups))


def main() -> int:
    """Train, test, report."""
    options = read_arguments()
    check(options)
    material = Material(options)
    folds = []
    for number in tqdm(range(len(material.protocol.folds)), unit="fold", disable=options.quiet):
        folds.append(run_fold(material, number))
    rows = summarise(material, folds)
    table = sf.markdown_table(rows)
    corpus = material.student.corpus
    results = {
        "command": sf.command_line(),
        "corpus": corpus.name,
        "student": material.model,
        "teachers": options.teachers,
        "protocol": material.protocol.about,
        "utterances": len(material.ids),
        "rows": rows,
    }
    sf.write_results(options.out, results)
    about = (
        f"{corpus.name}: {len(material.ids)} utterances, {corpus.label}; {material.protocol.about}. Student "
        f"{material.model}, layers {options.layers}; taught by {', '.join(options.teachers)}."
    )
    note = "UAR in per cent with 95 % bootstrap intervals over speakers. All cells are shown, none was chosen."
    sections = [sf.Section("Scores", f"{table}\n\n{note}"), sf.Section("Data", about)]
    sf.write_report(options.out, "Distillation", sf.command_line(), sections)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
