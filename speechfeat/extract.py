"""`python -m speechfeat.extract audio_dir`: features of a directory, list or manifest of recordings, into a store."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechfeat.arguments import (
    add_batches,
    add_channel,
    add_input,
    add_loading,
    add_telling,
    batch_options,
    check_input,
    loading_options,
    read_channel,
)
from speechfeat.chunking import Chunking
from speechfeat.cli import EXIT_FAILED_INPUTS, EXIT_INTERRUPTED, EXIT_OK, main_with_errors, stopping, tell
from speechfeat.config import ExtractConfig
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.reporting import duration_words, find_inputs, run_shown, tell_forecast

if TYPE_CHECKING:
    from speechfeat.extraction import Extractor
    from speechfeat.planning import Survey
    from speechfeat.running import Summary

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
    group.add_argument(
        "-l", "--layers", "--layer", default="penultimate", help="penultimate, last, all, 7, -2, or 0,4,8"
    )
    add_loading(group)
    group.add_argument("--short-window", action="store_true", help="run Whisper on the clip's length, not on 30 s")
    group.add_argument("--list-models", action="store_true", help="print the catalogue and end")
    group.add_argument("--list-layers", metavar="MODEL", help="print a model's layers and frame grid and end")


def _add_output(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("features")
    group.add_argument(
        "--pool", default="mean", help="mean, std, mean+std, max, first, last, none (default: %(default)s)"
    )
    group.add_argument("--no-frames", action="store_true", help="store embeddings only")
    group.add_argument("--store-dtype", default="float16", choices=("float16", "float32"), help="of stored frames")
    add_channel(group)
    group.add_argument("--chunk", type=float, default=30.0, help="seconds of a chunk of a long recording")
    group.add_argument("--overlap", type=float, default=4.0, help="seconds that neighbouring chunks share")
    group.add_argument("--chunk-above", type=float, help="recordings up to this are not cut (default: 60 s)")
    group.add_argument("--overwrite", action="store_true", help="begin the store anew")


def _add_running(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("running")
    add_batches(group)
    group.add_argument("--shard", metavar="I/N", help="do the I-th of N parts, to split a corpus over machines")
    group.add_argument("--dry-run", action="store_true", help="print what would be done and end")
    add_telling(group)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    command = parser()
    options = command.parse_args(arguments)
    if options.list_models:
        return _list_models()
    if options.list_layers:
        return _list_layers(options)
    if options.input is None:
        command.error("give a directory, recording, list or manifest to extract from")
    return _extract(options)


def _list_models() -> int:
    from speechfeat.encoders.catalog import CATALOG, EMBEDDED

    width = max(len(spec.name) for spec in CATALOG)
    for spec in CATALOG:
        size = f"{spec.parameters:g} M" if spec.parameters else "-"
        source = spec.source.replace(str(EMBEDDED), "(in this package)")
        print(f"{spec.name:{width}}  {size:>7}  {spec.licence:16}  {source}")
    return EXIT_OK


def _list_layers(options: argparse.Namespace) -> int:
    from speechfeat.encoders.describing import describe_layers

    options.model, options.layers = options.list_layers, "all"
    print(describe_layers(_load(options)))
    return EXIT_OK


def _load(options: argparse.Namespace) -> Any:
    from speechfeat.encoders.loading import load_encoder

    return load_encoder(options.model, options.layers, short_window=options.short_window, **loading_options(options))


def _config(options: argparse.Namespace) -> ExtractConfig:
    above = max(Chunking.above, options.chunk) if options.chunk_above is None else options.chunk_above
    return ExtractConfig(
        pool=options.pool,
        frames=not options.no_frames,
        store_dtype=options.store_dtype,
        channel=read_channel(options.channel),
        chunking=Chunking(options.chunk, options.overlap, above),
        shard=options.shard,
        overwrite=options.overwrite,
        **batch_options(options),
    )


def _extract(options: argparse.Namespace) -> int:
    config = _config(options)  # a bad option is told before anything is loaded
    check_input(options.input)
    from speechfeat.extraction import Extractor

    extractor = Extractor(_load(options), config)
    found = find_inputs(extractor, options)
    if options.dry_run:
        return _dry_run(extractor, found, options)
    with stopping(extractor.stop):
        summary = run_shown(extractor, found, options.out, quiet=options.quiet)
    return _report(summary, options)


def _dry_run(extractor: "Extractor", found: "Survey", options: argparse.Namespace) -> int:
    forecast = extractor.forecast(found, options.out)
    seconds = extractor.expected_seconds(found)
    tell_forecast(extractor, forecast, found, seconds)
    if options.json:
        print(json.dumps({**vars(forecast), "seconds": seconds}))
    return EXIT_FAILED_INPUTS if found.failures else EXIT_OK


def _report(summary: "Summary", options: argparse.Namespace) -> int:
    known = f", {summary.already} were there already" if summary.already else ""
    failed = f", {summary.failed} failed (see {Path(options.out) / 'errors.jsonl'})" if summary.failed else ""
    tell(
        f"{summary.done} utterances done ({summary.hours:.2f} h in {duration_words(summary.seconds)}, "
        f"{summary.x_real_time:.1f} x real time){known}{failed}; store: {options.out}"
    )
    if options.json:
        print(json.dumps({**vars(summary), "x_real_time": summary.x_real_time, "store": str(options.out)}))
    if summary.interrupted:
        tell("interrupted; what was done is kept, and the same command goes on from here")
        return EXIT_INTERRUPTED
    return EXIT_FAILED_INPUTS if summary.failed else EXIT_OK


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
