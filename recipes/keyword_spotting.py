"""Keyword spotting on frozen features: which of the known words is it.

    python recipes/keyword_spotting.py --corpus fsdd|speech-commands-v2-12 --root DIR [-m MODEL ...]
        [-l auto|all|K] [--head KIND] -o runs/keywords

Speech Commands has its official lists; others leave out a speaker in turn, or what --split says. A second run takes
what is there.
"""

import sys

import speechfeat as sf

# FSDD's own test set is of the speakers that are trained on.
SPLITS = {"fsdd": "logo"}


def main() -> int:
    """Run the experiment that the command line asks for."""
    options = sf.classification_parser(__doc__, corpus="fsdd").parse_args()
    if options.split == "auto":
        options.split = SPLITS.get(options.corpus, "auto")
    experiment = sf.classification_of(options, "Keyword spotting")
    print(experiment.table(experiment.run()))
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
