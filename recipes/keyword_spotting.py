"""Keyword spotting on frozen features: which of the known words is it, and where in long recordings is it.

    python recipes/keyword_spotting.py --corpus fsdd|speech-commands-v2-12 --root DIR [-m MODEL ...]
        [-l auto|all|K] [--head KIND] [--long SPEECH] -o runs/keywords

Speech Commands has its official lists; others leave out a speaker in turn, or what --split says. A second run takes
what is there.

With --long, keywords are also looked for in recordings of ten minutes, made of the other speech of SPEECH (a manifest
whose column text has transcripts, so that nobody else says them) with keywords at known times: a detector is trained on
six, and tested on six others of other speakers. How many keywords it misses at one false alarm an hour, and how far off
its times are, is in OUT/MODEL/long.
"""

import argparse
import sys
from pathlib import Path

import speechfeat as sf

# FSDD's own test set is of the speakers that are trained on.
SPLITS = {"fsdd": "logo"}


def find_in_long(options: argparse.Namespace, model: str) -> None:
    """Make long recordings, train a detector, test it on others, and keep what came of it."""
    out = options.out / sf.model_slug(model) / "long"
    result = sf.spot_keywords(
        sf.corpus_of(options),
        options.long,
        options.out / "long",
        model,
        # What tells a word best when it is cut out lets more pass for it in running speech: measured on FSDD's digits.
        "penultimate" if options.layers == "auto" else options.layers,
        pool=options.pool,
        device=options.device,
        dtype=options.dtype,
        quiet=options.quiet,
        encoder_options={"short_window": options.short_window},
        plan=sf.SpottingPlan(
            seconds=options.long_seconds, num_train=options.long_count, num_test=options.long_count, seed=options.seed
        ),
    )
    sf.write_results(out, {"command": sf.command_line(), "tested": result.test_groups, **result.report.describe()})
    sf.plot_spotting(result.report.curves, out / "curves.png")
    result.detections.to_csv(out / "detections.csv", index=False)
    result.events.to_csv(out / "events.csv", index=False)
    result.head.save(out / "head", overwrite=True)
    print(f"{model}, keywords of {', '.join(result.test_groups)} in long recordings\n{result.report.text()}")


def main() -> int:
    """Run the experiment that the command line asks for."""
    parser = sf.classification_parser(__doc__, corpus="fsdd")
    parser.add_argument("--long", type=Path, metavar="SPEECH", help="find them in long recordings of this speech, too")
    parser.add_argument("--long-seconds", type=float, default=600, metavar="S", help="of one of these (%(default)s)")
    parser.add_argument(
        "--long-count", type=int, default=6, metavar="N", help="to train on, and to test on (%(default)s)"
    )
    options = parser.parse_args()
    if options.split == "auto":
        options.split = SPLITS.get(options.corpus, "auto")
    experiment = sf.classification_of(options, "Keyword spotting")
    print(experiment.table(experiment.run()))
    if options.long is not None:
        for model in sf.models_of(options):
            find_in_long(options, model)
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
