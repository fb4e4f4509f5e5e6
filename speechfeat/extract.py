"""`python -m speechfeat.extract audio_dir`: features of a directory, list or manifest of recordings, into a store."""

import argparse
import sys
from typing import Any

from speechfeat.arguments import (
    add_batches,
    add_channel,
    add_input,
    add_layers,
    add_loading,
    add_part,
    add_storing,
    add_telling,
    batch_options,
    check_input,
    loading_options,
    read_channel,
    storing_options,
)
from speechfeat.chunking import Chunking
from speechfeat.cli import EXIT_OK, main_with_errors
from speechfeat.config import ExtractConfig
from speechfeat.encoders.catalog import DEFAULT_MODEL, SPEECH
from speechfeat.memory import importing
from speechfeat.reporting import extract_found, find_inputs

EPILOG = """
exit codes: 0 all done; 3 done, but some inputs failed (see OUT/errors.jsonl); 2 a bad call; 1 the run could not go on;
130 interrupted. The same command goes on where a run was stopped, however it was stopped.

examples:
  python -m speechfeat.extract recordings -o features -m wavlm-base-plus
  python -m speechfeat.extract corpus.csv -o features -m ./checkpoint -l 0,4,8 --pool mean+std
  python -m speechfeat.extract recordings -o features -m facebook/hubert-base-ls960 --shard 1/8
"""


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="python -m speechfeat.extract",
        description="Frame-level features and pooled embeddings of recordings, exact in any batch.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_input(result)
    result.add_argument("-o", "--out", default="features", help="directory of the store (default: %(default)s)")
    _add_encoder(result)
    _add_output(result)
    _add_running(result)
    return result


def _add_encoder(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("encoder")
    group.add_argument(
        "-m",
        "--model",
        default=DEFAULT_MODEL,
        help="catalogue name, hub id (owner/name) or checkpoint directory (default: %(default)s)",
    )
    add_layers(group)
    add_loading(group)
    group.add_argument("--short-window", action="store_true", help="run Whisper on the clip's length, not on 30 s")


def _add_output(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("features")
    group.add_argument(
        "--pool", default="mean", help="mean, std, mean+std, max, first, last, none (default: %(default)s)"
    )
    add_storing(group)
    add_channel(group)
    group.add_argument("--chunk", type=float, default=30.0, help="seconds of a chunk of a long recording")
    group.add_argument("--overlap", type=float, default=4.0, help="seconds that neighbouring chunks share")
    group.add_argument("--chunk-above", type=float, help="recordings up to this are not cut (default: 60 s)")


def _add_running(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("running")
    add_batches(group)
    add_part(group)
    add_telling(group)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    command = parser()
    options = command.parse_args(arguments)
    if options.list_models:
        print("\n".join(SPEECH.lines()))
        return EXIT_OK
    if options.list_layers:
        return _list_layers(options)
    if options.input is None:
        command.error("give a directory, recording, list or manifest to extract from")
    return _extract(options)


def _list_layers(options: argparse.Namespace) -> int:
    from speechfeat.encoders.describing import describe_layers

    options.model, options.layers = options.list_layers, "all"
    print(describe_layers(_load(options)))
    return EXIT_OK


def _load(options: argparse.Namespace) -> Any:
    with importing():
        from speechfeat.encoders.loading import load_encoder

    return load_encoder(options.model, options.layers, short_window=options.short_window, **loading_options(options))


def _config(options: argparse.Namespace) -> ExtractConfig:
    above = max(Chunking.above, options.chunk) if options.chunk_above is None else options.chunk_above
    return ExtractConfig(
        pool=options.pool,
        channel=read_channel(options.channel),
        chunking=Chunking(options.chunk, options.overlap, above),
        **storing_options(options),
        **batch_options(options),
    )


def _extract(options: argparse.Namespace) -> int:
    config = _config(options)  # a bad option is told before anything is loaded
    check_input(options.input)
    with importing():
        from speechfeat.extraction import Extractor

    extractor = Extractor(_load(options), config)
    found = find_inputs(extractor, options)
    return extract_found(extractor, found, options)


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
