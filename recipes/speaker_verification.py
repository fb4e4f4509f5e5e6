"""Speaker verification on frozen features: do two recordings have one voice, told of speakers nothing was learnt from.

    python recipes/speaker_verification.py --corpus voxceleb1-verification --root DIR [-m MODEL ...]
        [--head cosine|lda|stats|xvector|...] [--layers auto|all|K] [--as-norm] -o runs/asv
    python recipes/speaker_verification.py --corpus manifest --root recordings.tsv --label speaker -o runs/asv

VoxCeleb1 has official trials (--trials O,E,H). Of another corpus a share of the speakers is tested, or those that a
file lists (--test-speakers), as is right where an encoder was trained on some of them: all pairs of at most five
utterances of each. Standardisation, projection, layer and cohort are learnt from the other speakers alone; so is, with
a network on frames as --head (stats, attentive, xvector ...), what gives the vectors that are compared: it is trained
with AAM-softmax on a mix of the layers, and kept as OUT/MODEL/head.

OUT/report.md and OUT/results.json hold equal error rate and minDCF with 95 % intervals by a bootstrap over speakers,
OUT/det.png and OUT/layers.png the pictures. A second run takes the features that are there.

Equal error rates in per cent on 117 speakers of Common Voice in 29 languages, 24,090 pairs (199 of one speaker), learnt
from 1,046 others; conformer-s was not trained on those tested, the layers were chosen on the others:

    --corpus manifest --root common_voice_multi.tsv --test-speakers held_out.csv --short-window -m ...
                             cosine              --head lda --as-norm
    conformer-s, layer 2     10.5 (7.0-15.7)     5.5 (4.0-7.9)
    Whisper tiny.en, 1       19.6 (14.3-27.1)    6.1 (3.7-9.5)
    MFCC                     18.6 (13.6-26.8)    15.4 (11.6-20.7)
    log-mel                  23.6 (19.7-30.7)    13.5 (8.8-18.9)
    conformer-s, --head stats --set mix_starts=2: 6.0 (3.9-8.6)
"""

import argparse
import sys
from pathlib import Path

import speechfeat as sf

COHORT = 300


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    data = parser.add_argument_group("data")
    data.add_argument("--corpus", default="voxceleb1-verification", help=f"{', '.join(sf.CORPORA)} (%(default)s)")
    data.add_argument("--root", type=Path, required=True, help="its directory; of manifest, the file")
    data.add_argument(
        "--label", default="speaker", help="what tells the speaker; of manifest, its column (%(default)s)"
    )
    sf.add_encoder_options(parser)
    sf.add_output_options(parser)
    trials = parser.add_argument_group("trials")
    trials.add_argument("--trials", help="official lists, such as O,E,H (the first there is)")
    trials.add_argument("--test-speakers", metavar="FILE", help="CSV or TSV with their column, or one a line")
    trials.add_argument("--test-share", type=float, default=0.5, help="of the speakers otherwise (%(default)s)")
    trials.add_argument("--most", type=int, default=5, help="utterances of a speaker that are paired (%(default)s)")
    trials.add_argument("--draws", type=int, default=200, help="of the bootstrap (%(default)s)")
    learning = parser.add_argument_group("what is learnt from the other speakers")
    learning.add_argument(
        "--head",
        default="cosine",
        help=f"cosine; lda and cosine; or a network on frames: {', '.join(sf.FRAME_KINDS)} (%(default)s)",
    )
    sf.add_settings(learning, "a network, such as epochs=20 or width=64")
    learning.add_argument(
        "-l",
        "--layers",
        default="auto",
        help="auto: the best on them; all, 7, 0,4: each is scored, or mixed by a network",
    )
    learning.add_argument("--as-norm", action="store_true", help="normalise scores by a cohort")
    learning.add_argument("--cohort", type=int, default=COHORT, metavar="N", help="speakers in it (%(default)s)")
    learning.add_argument("--train-speakers", type=int, metavar="N", help="the most to learn from (all)")
    learning.add_argument("--train-most", type=int, default=20, metavar="N", help="utterances of each (%(default)s)")
    return parser.parse_args()


def main() -> int:
    """Plan, verify, report."""
    options = read_arguments()
    corpus = sf.open_corpus(options.corpus, options.root, label=options.label)
    plan = sf.plan_verification(
        corpus,
        lists=options.trials.split(",") if options.trials else None,
        test_speakers=sf.read_speakers(options.test_speakers, options.label) if options.test_speakers else None,
        test_share=options.test_share,
        train_speakers=options.train_speakers,
        train_most=options.train_most,
        most=options.most,
        seed=options.seed,
    )
    sf.Verification(
        "Speaker verification",
        corpus,
        plan,
        models=sf.models_of(options),
        out=options.out,
        head=options.head,
        head_options=sf.settings_of(options),
        layers=options.layers,
        cohort=options.cohort if options.as_norm else 0,
        most=options.most,
        num=options.draws,
        pool=options.pool,
        features=options.features,
        allow_leaks=options.allow_leaks,
        seed=options.seed,
        extraction=sf.extraction_of(options),
        command=sf.command_line(),
    ).run()
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
