"""Emotion recognition on frozen features: a light head, speakers kept apart, average recall with intervals.

    python recipes/emotion.py --corpus emodb --root DIR [-m MODEL ...] [-l auto|all|K] [--head KIND] -o runs/emotion

Without an official split each speaker is left out in turn (up to 12 speakers; five folds by speaker above). A second
run takes what is there.
"""

import sys

import speechfeat as sf


def main() -> int:
    """Run the experiment that the command line asks for."""
    options = sf.classification_parser(__doc__, corpus="emodb", metric="uar").parse_args()
    experiment = sf.classification_of(options, "Emotion recognition")
    print(experiment.table(experiment.run()))
    return 0


if __name__ == "__main__":
    sys.exit(sf.main_with_errors(main))
