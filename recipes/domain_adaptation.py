"""Trained on clean recordings, tested on a telephone: what adaptation without labels wins back, and what augmentation.

    python recipes/domain_adaptation.py --corpus emodb --root DIR [-m MODEL ...] [-l auto|K] [--degraded FILE]
        -o runs/adaptation

The target is a copy of the corpus that is made here: noise of 10 dB, 300 to 3400 Hz at 8 kHz, 8 bits of the mu-law (or
what --degraded says, a configuration as `python -m speechfeat.augment` writes it). Half of the training utterances are
clean and labelled; the other half are of the target and have no labels. What is tested is of speakers that neither half
has. A second run takes the features that are there.
"""

import argparse
import sys

import speechfeat as sf

# FSDD's own test set is of the speakers that are trained on.
SPLITS = {"fsdd": "logo"}
NOTE = (
    "In per cent, with 95 % bootstrap intervals over speakers (utterances where speakers are not known); gain: over "
    "none, on the same utterances. All rows but no shift are tested on the degraded copy, and are trained on the same "
    "utterances, with the same layer. Ceiling: trained on the degraded copy with labels."
)


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    sf.add_corpus_options(parser, "emodb")
    sf.add_encoder_options(parser)
    sf.add_output_options(parser)
    group = parser.add_argument_group("adaptation and protocol")
    group.add_argument("--degraded", metavar="FILE", help="how the target differs (default: a noisy telephone)")
    group.add_argument("--copies", type=int, default=2, help="augmented, of each utterance (%(default)s)")
    group.add_argument("--labelled", type=float, default=0.5, help="share of the training utterances (%(default)s)")
    group.add_argument("--head", default="logistic", help=f"{', '.join(sf.POOLED_KINDS)} (%(default)s)")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="head_options",
        metavar="NAME=VALUE",
        help="of the head, such as C=0.01",
    )
    group.add_argument("-l", "--layers", default="auto", help="auto: the best on the clean training data; 7; 0,4")
    group.add_argument("--split", default="auto", help="official, logo, group-k, k, or LABEL=VALUE,VALUE (%(default)s)")
    group.add_argument("--folds", type=int, default=5, help="of group-k and k (%(default)s)")
    group.add_argument("--metric", help="accuracy, uar or macro_f1 (default: uar of emotions, else accuracy)")
    return parser.parse_args()


def plan_of(options: argparse.Namespace) -> sf.AdaptationPlan:
    """What the options say is compared."""
    degraded = {} if options.degraded is None else {"degraded": sf.read_augmentation(options.degraded)}
    return sf.AdaptationPlan(
        copies=options.copies,
        labelled=options.labelled,
        kind=options.head,
        options=sf.read_settings(options.head_options, "--set", "C=0.01"),
        layers=options.layers,
        seed=options.seed,
        **degraded,
    )


def main() -> int:
    """Compare, report."""
    options = read_arguments()
    plan, corpus = plan_of(options), sf.corpus_of(options)
    metric = options.metric or ("uar" if corpus.label == "emotion" else "accuracy")
    split = SPLITS.get(options.corpus, "auto") if options.split == "auto" else options.split
    found, sections = {}, []
    for model in sf.models_of(options):
        result = sf.compare_adaptations(
            corpus,
            options.features or options.out / "features",
            model,
            plan=plan,
            split=split,
            k=options.folds,
            metric=metric,
            pool=options.pool,
            allow_leaks=options.allow_leaks,
            **sf.extraction_of(options),
        )
        found[model] = {"scores": result.scores, "gains": result.gains, "layers": result.layers}
        folder = options.out / sf.model_slug(model)
        folder.mkdir(parents=True, exist_ok=True)
        result.answers.to_csv(folder / "answers.csv", index=False)
        table = sf.markdown_table(result.rows())
        sections.append(sf.Section(model, f"{table}\n\nLayers of the folds: {result.layers}"))
        print(f"{model}, {corpus.label} of {corpus.name}\n{table}")
    data = sf.Section("Data", f"{corpus.name}: {corpus.label}; {result.protocol.about}.")
    described = {"degraded": plan.degraded.describe(), **{n: a.describe() for n, a in plan.augmentations.items()}}
    results = {"command": sf.command_line(), "protocol": result.protocol.about, "metric": metric}
    sf.write_results(options.out, {**results, "augmentations": described, "models": found})
    sf.write_report(
        options.out,
        "Domain adaptation",
        sf.command_line(),
        [*sections, sf.Section("What is compared", NOTE), data],
    )
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
