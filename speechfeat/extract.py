"""`python -m speechfeat.extract audio_dir`: features of a directory, list or manifest of recordings, into a store."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechfeat.chunking import Chunking
from speechfeat.cli import EXIT_FAILED_INPUTS, EXIT_INTERRUPTED, EXIT_OK, main_with_errors, stopping, tell
from speechfeat.config import ExtractConfig
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.errors import ParameterError

if TYPE_CHECKING:
    from speechfeat.extraction import Extractor, Forecast, Summary
    from speechfeat.planning import Survey

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
    result.add_argument(
        "input",
        nargs="?",
        help="a directory (searched recursively), a recording, a text list, a CSV/TSV/JSONL manifest, a Kaldi wav.scp",
    )
    result.add_argument("-o", "--out", default="features", help="directory of the store (default: %(default)s)")
    result.add_argument("--root", help="directory that relative paths of a list or manifest start from")
    result.add_argument("--ext", help="suffixes taken from a directory, such as wav,flac (default: all known)")
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
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (default: %(default)s)")
    group.add_argument("--revision", help="branch, tag or commit on the hub")
    group.add_argument("--allow-pickle", action="store_true", help="take pickled weights (they can run code)")
    group.add_argument("--trust-remote-code", action="store_true", help="run the checkpoint's own Python code")
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
    group.add_argument("--channel", default="mean", help="mean, all, or a channel's number (default: %(default)s)")
    group.add_argument("--chunk", type=float, default=30.0, help="seconds of a chunk of a long recording")
    group.add_argument("--overlap", type=float, default=4.0, help="seconds that neighbouring chunks share")
    group.add_argument("--chunk-above", type=float, help="recordings up to this are not cut (default: 60 s)")
    group.add_argument("--overwrite", action="store_true", help="begin the store anew")


def _add_running(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("running")
    group.add_argument("--batch-seconds", type=float, help="padded audio in a batch (default: from the free memory)")
    group.add_argument("--batch-size", type=int, help="the most utterances in a batch")
    group.add_argument("-j", "--num-workers", type=int, help="threads that read and prepare (default: up to 4)")
    group.add_argument("--shard", metavar="I/N", help="do the I-th of N parts, to split a corpus over machines")
    group.add_argument("--max-errors", type=int, help="stop when more inputs than this failed (default: never)")
    group.add_argument("--dry-run", action="store_true", help="print what would be done and end")
    group.add_argument("--json", action="store_true", help="print the summary as JSON on standard output")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress bar")


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

    return load_encoder(
        options.model,
        options.layers,
        device=options.device,
        dtype=options.dtype,
        revision=options.revision,
        allow_pickle=options.allow_pickle,
        trust_remote_code=options.trust_remote_code,
        short_window=options.short_window,
    )


def _config(options: argparse.Namespace) -> ExtractConfig:
    above = max(Chunking.above, options.chunk) if options.chunk_above is None else options.chunk_above
    workers = {} if options.num_workers is None else {"num_workers": options.num_workers}
    return ExtractConfig(
        pool=options.pool,
        frames=not options.no_frames,
        store_dtype=options.store_dtype,
        channel=_channel(options.channel),
        chunking=Chunking(options.chunk, options.overlap, above),
        batch_seconds=options.batch_seconds,
        batch_size=options.batch_size,
        shard=options.shard,
        max_errors=options.max_errors,
        overwrite=options.overwrite,
        **workers,
    )


def _channel(channel: str) -> str | int:
    if channel in ("mean", "all"):
        return channel
    if not channel.isdecimal():
        raise ParameterError(f"--channel {channel!r} is not known; use mean, all, or a number from 0")
    return int(channel)


def _extract(options: argparse.Namespace) -> int:
    config = _config(options)  # a bad option is told before anything is loaded
    _check_input(options.input)
    from speechfeat.extraction import Extractor

    extractor = Extractor(_load(options), config)
    suffixes = options.ext.split(",") if options.ext else None
    utterances = extractor.discover(options.input, suffixes=suffixes, root=options.root)
    tell(f"{len(utterances)} utterances in {options.input}; reading their headers")
    found = extractor.survey(utterances)
    if options.dry_run:
        return _dry_run(extractor, found, options)
    with stopping(extractor.stop):
        summary = _run(extractor, found, options)
    return _report(summary, options)


def _check_input(source: str) -> None:
    try:
        Path(source).stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(
            f"no such input: {source!r} ({reason}); give a directory, a recording, a list or a manifest"
        ) from None


def _dry_run(extractor: "Extractor", found: "Survey", options: argparse.Namespace) -> int:
    forecast = extractor.forecast(found, options.out)
    seconds = extractor.expected_seconds(found)
    _tell_forecast(extractor, forecast, found, seconds)
    if options.json:
        print(json.dumps({**vars(forecast), "seconds": seconds}))
    return EXIT_FAILED_INPUTS if found.failures else EXIT_OK


def _tell_forecast(extractor: "Extractor", forecast: "Forecast", found: "Survey", seconds: float) -> None:
    encoder = extractor.encoder
    tell(
        f"{encoder.name}: layers {','.join(map(str, encoder.selection.indices))} of {encoder.num_layers}, "
        f"{encoder.dim} dimensions, {encoder.grid.frame_rate:g} frames/s, {encoder.dtype} on {encoder.device}, "
        f"batches of {extractor.batch_seconds:g} s, {extractor.config.num_workers} readers"
    )
    tell(
        f"to do: {forecast.utterances} utterances, {forecast.hours:.2f} h, about {forecast.bytes / 2**20:.0f} MiB "
        f"on disk ({forecast.free_bytes / 2**30:.0f} GiB free) and {_duration(seconds)}"
        + (f"; {len(found.failures)} inputs cannot be opened" if found.failures else "")
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _run(extractor: "Extractor", found: "Survey", options: argparse.Namespace) -> "Summary":
    from speechfeat.progress import Progress

    writer = extractor.open(options.out, found)
    try:
        forecast = extractor.forecast(found, options.out, writer.done)
        _tell_forecast(extractor, forecast, found, extractor.expected_seconds(found, writer.done))
    except BaseException:
        writer.abort()
        raise
    with Progress(forecast.hours, shown=not options.quiet) as progress:
        return extractor.run(found, writer, progress.update)


def _report(summary: "Summary", options: argparse.Namespace) -> int:
    known = f", {summary.already} were there already" if summary.already else ""
    failed = f", {summary.failed} failed (see {Path(options.out) / 'errors.jsonl'})" if summary.failed else ""
    tell(
        f"{summary.done} utterances done ({summary.hours:.2f} h in {_duration(summary.seconds)}, "
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
