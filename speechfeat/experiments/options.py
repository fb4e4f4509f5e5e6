"""The command line that recipes share."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from speechfeat.arguments import read_settings
from speechfeat.corpora.base import Corpus
from speechfeat.corpora.opening import CORPORA, open_corpus
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.errors import ParameterError
from speechfeat.experiments.classify import Classification
from speechfeat.experiments.crossval import MEASURES, HeadPlan
from speechfeat.experiments.features import POOL, CorpusFeatures, corpus_text_features, features_folder, model_slug
from speechfeat.heads.framed import FRAME_KINDS, RATES
from speechfeat.heads.opening import HEAD_KINDS


def add_corpus_options(parser: argparse.ArgumentParser, corpus: str | None = None) -> None:
    """Add what names a corpus; `corpus` is taken if none is named."""
    group = parser.add_argument_group("data")
    group.add_argument("--corpus", default=corpus, required=corpus is None, help=f"{', '.join(CORPORA)} (%(default)s)")
    group.add_argument("--root", type=Path, required=True, help="its directory; of manifest, the file")
    group.add_argument(
        "--label", help="what is to be told, if not what the corpus is known for; of manifest, its column"
    )
    group.add_argument("--group", help="what training and test do not share, such as speaker; of manifest, its column")
    group.add_argument("--split-column", help="of manifest: its column of train, validation, test, or folds")
    group.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN[=VALUE,VALUE]",
        help="of manifest: take only lines with one of these values, or with any; again for more",
    )


def add_encoder_options(parser: argparse.ArgumentParser) -> None:
    """Add what names encoders and says how they are run."""
    group = parser.add_argument_group("encoder")
    group.add_argument(
        "-m",
        "--model",
        action="append",
        dest="models",
        help=f"catalogue name, hub id or checkpoint directory; again for another to compare ({DEFAULT_MODEL})",
    )
    group.add_argument("--pool", default=POOL, help="mean, std, mean+std, max (%(default)s)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (%(default)s)")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16, int8 (%(default)s)")
    group.add_argument("--short-window", action="store_true", help="run Whisper on the clip's length, not on 30 s")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add where results go."""
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--out", type=Path, required=True, help="directory of results, pictures and heads")
    group.add_argument("--features", type=Path, help="directory of features, to share them (default: OUT/features)")
    group.add_argument("--allow-leaks", action="store_true", help="go on if speakers or recordings are on both sides")
    group.add_argument("--seed", type=int, default=0, help="of folds and training (%(default)s)")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress bars")


def add_settings(group: argparse._ArgumentGroup, what: str) -> None:
    """Add --set, which `settings_of` reads."""
    group.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help=f"an option of {what}; again for more",
    )


def add_head_options(
    parser: argparse.ArgumentParser, *, metric: str = "accuracy", split: str = "auto"
) -> argparse._ArgumentGroup:
    """Add which head is trained, and on what it is tested; the group of these options.

    Args:
        parser: of a recipe.
        metric: that is looked at.
        split: that is made if none is named.
    """
    group = parser.add_argument_group("head and protocol")
    group.add_argument("--head", default="logistic", help=f"{', '.join(HEAD_KINDS)} (%(default)s)")
    add_settings(group, "the head, such as epochs=20, width=64 or class_weight=balanced")
    group.add_argument("--sweep", action="store_true", help="of a head on frames: try the learning rates 1e-1 to 1e-5")
    group.add_argument(
        "-l",
        "--layers",
        default="auto",
        help="auto: the best on the training data; all: side by side, or mixed; 7; 0,4",
    )
    group.add_argument(
        "--split",
        default=split,
        help="official, logo (leave one group out), group-k, k, or LABEL=VALUE,VALUE to test those (%(default)s)",
    )
    group.add_argument("--folds", type=int, default=5, help="of group-k and k (%(default)s)")
    group.add_argument("--metric", default=metric, choices=list(MEASURES), help="that is looked at (%(default)s)")
    return group


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """Add what names an encoder of the corpus's transcripts and says how it is run."""
    group = parser.add_argument_group("text")
    group.add_argument("--text-model", required=True, help="encoder of texts: catalogue name, hub id or directory")
    group.add_argument("--text-layers", default="last", help="one layer of it (%(default)s)")
    group.add_argument("--text-pool", default="mean", help="mean, mean+std, cls, last_token (%(default)s)")
    group.add_argument("--text", default="text", help="label that is the transcript (%(default)s)")


def classification_parser(
    description: str, *, corpus: str | None = None, metric: str = "accuracy", split: str = "auto"
) -> argparse.ArgumentParser:
    """A parser with what a classification takes.

    Args:
        description: the recipe's docstring.
        corpus: that is taken if none is named.
        metric: that is looked at.
        split: that is made if none is named.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_corpus_options(parser, corpus)
    add_encoder_options(parser)
    add_output_options(parser)
    group = add_head_options(parser, metric=metric, split=split)
    group.add_argument(
        "--tta", type=int, default=0, metavar="N", help="score averages over N augmented copies of each utterance too"
    )
    group.add_argument(
        "--shots", type=int, action="append", default=[], metavar="K", help="try prototypes of K examples a class, too"
    )
    return parser


def corpus_of(options: argparse.Namespace) -> Corpus:
    """The corpus that options name."""
    where = {
        column: [value for value in values.split(",") if value]
        for column, _, values in (text.partition("=") for text in options.where)
    }
    return open_corpus(
        options.corpus,
        options.root,
        label=options.label,
        group=options.group,
        split=options.split_column,
        where=where,
    )


def models_of(options: argparse.Namespace) -> list[str]:
    """The encoders that options name, each once."""
    return list(dict.fromkeys(options.models or [DEFAULT_MODEL]))


def extraction_of(options: argparse.Namespace) -> dict[str, Any]:
    """What options say of extraction, for `corpus_features`."""
    return {
        "device": options.device,
        "dtype": options.dtype,
        "quiet": options.quiet,
        "short_window": options.short_window,
    }


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What --set says, by name.

    Raises:
        ParameterError: if one is not of the form NAME=VALUE.
    """
    return read_settings(options.settings, "--set", "epochs=20")


def text_features_of(
    options: argparse.Namespace, corpus: Corpus, kept: str | os.PathLike[str], *, text: str | None = None
) -> CorpusFeatures:
    """Features of a corpus's transcripts, by the options of `add_text_options`.

    Args:
        options: of the command line.
        corpus: with transcripts.
        kept: directory of features; a folder in it is theirs.
        text: the label that is the transcript, if not that of the options.
    """
    folder = features_folder(kept, options.text_model, corpus, pool=options.text_pool)
    return corpus_text_features(
        corpus,
        folder.with_name(f"{folder.name}-text-{model_slug(options.text_layers)}"),
        options.text_model,
        options.text_layers,
        text=options.text if text is None else text,
        pool=options.text_pool,
        device=options.device,
        dtype=options.dtype,
        quiet=options.quiet,
    )


def head_options_of(options: argparse.Namespace) -> dict[str, Any]:
    """What options say of the head, for `train_head`.

    Raises:
        ParameterError: if one is not of the form NAME=VALUE, or rates are to be tried for a head on embeddings.
    """
    found = settings_of(options)
    if options.sweep:
        if options.head not in FRAME_KINDS:
            raise ParameterError(f"--sweep is for heads on frames ({', '.join(FRAME_KINDS)}), not {options.head!r}")
        found["rates"] = RATES
    return found


def head_of(options: argparse.Namespace) -> HeadPlan:
    """The head that options name, and how it is trained."""
    return HeadPlan(options.head, options.layers, options.seed, head_options_of(options))


def command_line() -> str:
    """The command that is being run, as it could be given again."""
    return shlex.join(["python", *sys.argv])


def classification_of(
    options: argparse.Namespace, title: str, corpus: Corpus | None = None, **settings: Any
) -> Classification:
    """The experiment that options ask for.

    Args:
        options: of `classification_parser`.
        title: of the report.
        corpus: if it is not simply the one that options name.
        settings: further ones of `Classification`.
    """
    return Classification(
        title,
        corpus_of(options) if corpus is None else corpus,
        models=models_of(options),
        out=options.out,
        head=head_of(options),
        pool=options.pool,
        split=options.split,
        k=options.folds,
        metric=options.metric,
        copies=options.tta,
        shots=options.shots,
        features=options.features,
        allow_leaks=options.allow_leaks,
        seed=options.seed,
        extraction=extraction_of(options),
        command=command_line(),
        **settings,
    )
