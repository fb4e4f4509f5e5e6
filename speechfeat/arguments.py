"""Arguments that the commands share: which recordings, how the encoder is loaded, how a run goes."""

import argparse
import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speechfeat.errors import ParameterError

INPUT = "a directory (searched recursively), a recording, a text list, a CSV/TSV/JSONL manifest, a Kaldi wav.scp"


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add `input` and how it is read."""
    parser.add_argument("input", nargs="?", help=INPUT)
    parser.add_argument("--root", help="directory that relative paths of a list or manifest start from")
    parser.add_argument("--ext", help="suffixes taken from a directory, such as wav,flac (default: all known)")


def add_layers(group: argparse._ArgumentGroup) -> None:
    """Add which layers are extracted, and how they are listed."""
    group.add_argument(
        "-l", "--layers", "--layer", default="penultimate", help="penultimate, last, all, 7, -2, or 0,4,8"
    )
    group.add_argument("--list-models", action="store_true", help="print the catalogue and end")
    group.add_argument("--list-layers", metavar="MODEL", help="print a model's layers and frames and end")


def add_loading(group: argparse._ArgumentGroup) -> None:
    """Add how an encoder is loaded; which one is another matter."""
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16, int8 (default: %(default)s)")
    group.add_argument("--revision", help="branch, tag or commit on the hub")
    group.add_argument("--allow-pickle", action="store_true", help="take pickled weights (they can run code)")
    group.add_argument("--trust-remote-code", action="store_true", help="run the checkpoint's own Python code")


def loading_options(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_loading` was given, as arguments of `load_encoder`."""
    names = ("device", "dtype", "revision", "allow_pickle", "trust_remote_code")
    return {name: getattr(options, name) for name in names}


def add_channel(group: argparse._ArgumentGroup) -> None:
    """Add which channel is taken."""
    group.add_argument("--channel", default="mean", help="mean, all, or a channel's number (default: %(default)s)")


def read_channel(channel: str) -> str | int:
    """What `add_channel` was given, as `ExtractConfig` takes it.

    Raises:
        ParameterError: if it is neither a word that is known nor a number.
    """
    if channel in ("mean", "all"):
        return channel
    if not channel.isdecimal():
        raise ParameterError(f"--channel {channel!r} is not known; use mean, all, or a number from 0")
    return int(channel)


def add_storing(group: argparse._ArgumentGroup) -> None:
    """Add what is stored."""
    group.add_argument("--no-frames", action="store_true", help="store embeddings only")
    group.add_argument("--store-dtype", default="float16", choices=("float16", "float32"), help="of stored frames")
    group.add_argument("--overwrite", action="store_true", help="begin the store anew")


def add_part(group: argparse._ArgumentGroup) -> None:
    """Add which part of a run is done."""
    group.add_argument("--shard", metavar="I/N", help="do the I-th of N parts, to split a corpus over machines")
    group.add_argument("--dry-run", action="store_true", help="print what would be done and end")


def storing_options(options: argparse.Namespace) -> dict[str, Any]:
    """What `add_storing` and `add_part` were given, as fields of `RunConfig`."""
    names = ("store_dtype", "overwrite", "shard")
    return {"frames": not options.no_frames} | {name: getattr(options, name) for name in names}


def add_batches(group: argparse._ArgumentGroup, unit: str = "seconds", what: str = "audio") -> None:
    """Add how batches are made and read; `unit` of `what` is their measure."""
    group.add_argument(f"--batch-{unit}", type=float, help=f"padded {what} in a batch (default: from the free memory)")
    group.add_argument("--batch-size", type=int, help="the most utterances in a batch")
    group.add_argument(
        "-j", "--num-workers", type=int, help="threads that read (default: one a core, measured in long runs)"
    )
    group.add_argument("--threads", type=int, help="for an utterance on a CPU (default: few, for several at a time)")
    group.add_argument("--max-errors", type=int, help="stop when more inputs than this failed (default: never)")


def batch_options(options: argparse.Namespace, unit: str = "seconds") -> dict[str, Any]:
    """What `add_batches` was given, as fields of `RunConfig`."""
    names = (f"batch_{unit}", "batch_size", "num_workers", "max_errors")
    return {name: getattr(options, name) for name in names} | {"num_threads": options.threads}


def add_telling(group: argparse._ArgumentGroup) -> None:
    """Add what is printed."""
    group.add_argument("--json", action="store_true", help="print the summary as JSON on standard output")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


def read_settings(texts: Iterable[str], option: str, example: str) -> dict[str, Any]:
    """What an option that is given as NAME=VALUE, again and again, was given; numbers and lists as Python has them.

    Args:
        texts: as given.
        option: that they were given with, for the error.
        example: of one, likewise.

    Raises:
        ParameterError: if one is not of that form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ParameterError(f"{option} {text!r} must be NAME=VALUE, as in {example}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a name, such as balanced
            found[name] = value
    return found


def check_input(source: str, allowed: str = "a directory, a recording, a list or a manifest") -> None:
    """Refuse what is not there, before an encoder is loaded; `allowed` says what may be given.

    Raises:
        ParameterError: with the reason of the operating system.
    """
    try:
        Path(source).stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(f"no such input: {source!r} ({reason}); give {allowed}") from None
