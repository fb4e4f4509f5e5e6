"""Speaker identification on frozen features: which of the known speakers is it.

    python recipes/speaker_id.py --corpus fsdd --root DIR [-m MODEL ...] [-l auto|all|K] [--head KIND] -o runs/spk

Training and test share the speakers, for these are to be told, but no recording. Of FSDD the speakers are trained on
the digits 0-4 and tested on 5-9, so that no word is known; VoxCeleb1 has its own split; others get five folds, or what
--split says. A second run takes what is there.
"""

import sys

import speechfeat as sf

SPLITS = {"fsdd": "keyword=5,6,7,8,9"}


def main() -> int:
    """Run the experiment that the command line asks for."""
    options = sf.classification_parser(__doc__, corpus="fsdd").parse_args()
    options.label = options.label or "speaker"
    if options.split == "auto":
        options.split = SPLITS.get(options.corpus, "auto")
    experiment = sf.classification_of(options, "Speaker identification")
    print(experiment.table(experiment.run()))
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
