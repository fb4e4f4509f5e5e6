"""What the commands tell of a run: what was found, what it will take, how far it is."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechfeat.cli import EXIT_FAILED_INPUTS, EXIT_INTERRUPTED, EXIT_OK, stopping, tell
from speechfeat.progress import Progress
from speechfeat.units import HOURS, Measure

if TYPE_CHECKING:
    from speechfeat.extracting import BaseExtractor, Forecast
    from speechfeat.extraction import Extractor
    from speechfeat.planning import Survey
    from speechfeat.running import Summary


def find_inputs(extractor: "Extractor", options: argparse.Namespace) -> "Survey":
    """The recordings that `arguments.add_input` was given, with their headers read.

    Raises:
        ParameterError: as `corpus.discover` and `planning.survey` do.
    """
    suffixes = options.ext.split(",") if options.ext else None
    utterances = extractor.discover(options.input, suffixes=suffixes, root=options.root)
    tell(f"{len(utterances)} utterances in {options.input}; reading their headers")
    return extractor.survey(utterances)


def extract_found(extractor: "BaseExtractor", found: "Survey", options: argparse.Namespace) -> int:
    """Extract what was found into `options.out`, or with `options.dry_run` say what it would take; the exit code.

    Raises:
        SpeechfeatError: as `Extractor.open` and `Extractor.run` do.
    """
    if options.dry_run:
        return _dry_run(extractor, found, options)
    with stopping(extractor.stop):
        summary = run_shown(extractor, found, options.out, quiet=options.quiet)
    return _report(summary, options, extractor.medium.measure)


def _dry_run(extractor: "BaseExtractor", found: "Survey", options: argparse.Namespace) -> int:
    extractor.choose_threads(found)
    forecast = extractor.forecast(found, options.out)
    seconds = extractor.expected_seconds(found)
    tell_forecast(extractor, forecast, found, seconds, extractor.num_readers(found))
    if options.json:
        print(json.dumps({**_in_measure(vars(forecast), extractor.medium.measure), "seconds": seconds}))
    return EXIT_FAILED_INPUTS if found.failures else EXIT_OK


def _report(summary: "Summary", options: argparse.Namespace, measure: Measure) -> int:
    known = f", {summary.already} were there already" if summary.already else ""
    failed = f", {summary.failed} failed (see {Path(options.out) / 'errors.jsonl'})" if summary.failed else ""
    done = summary.hours * HOURS.seconds
    tell(
        f"{summary.done} utterances done ({measure.amount(done)} in {duration_words(summary.seconds)}, "
        f"{measure.speed(done, summary.seconds)}){known}{failed}; store: {options.out}"
    )
    if options.json:
        rate = measure.rate.replace(" ", "_").replace("/s", "_per_second")
        content = {**_in_measure(vars(summary), measure), rate: summary.x_real_time, "store": str(options.out)}
        print(json.dumps(content))
    if summary.interrupted:
        tell("interrupted; what was done is kept, and the same command goes on from here")
        return EXIT_INTERRUPTED
    return EXIT_FAILED_INPUTS if summary.failed else EXIT_OK


def _in_measure(content: dict[str, Any], measure: Measure) -> dict[str, Any]:
    """The field `hours` in another measure, under its name."""
    if measure is HOURS:
        return content
    amount = round(content["hours"] * HOURS.seconds / measure.seconds)
    return {(measure.unit if name == "hours" else name): value for name, value in (content | {"hours": amount}).items()}


def run_shown(extractor: "BaseExtractor", found: "Survey", out: str | Path, *, quiet: bool) -> "Summary":
    """Run an extractor into a store, or go on there, with its forecast told and a progress bar.

    Raises:
        SpeechfeatError: as `Extractor.open` and `Extractor.run` do.
    """
    writer = extractor.open(out, found)
    try:
        forecast = extractor.forecast(found, out, writer.done)
        seconds, num_readers = extractor.expected_seconds(found, writer.done), extractor.num_readers(found, writer.done)
        tell_forecast(extractor, forecast, found, seconds, num_readers)
    except BaseException:
        writer.abort()
        raise
    with Progress(forecast.hours, shown=not quiet, measure=extractor.medium.measure) as progress:
        return extractor.run(found, writer, progress.update)


def tell_forecast(
    extractor: "BaseExtractor", forecast: "Forecast", found: "Survey", seconds: float, num_readers: int
) -> None:
    """Say what a run will take; `seconds` and `num_readers` as the extractor's methods of like names give them."""
    encoder, measure = extractor.encoder, extractor.medium.measure
    tell(
        f"{encoder.name}: layers {','.join(map(str, encoder.selection.indices))} of {encoder.num_layers}, "
        f"{encoder.dim} dimensions, {_grid_words(extractor, num_readers)}"
    )
    tell(
        f"to do: {forecast.utterances} utterances, {measure.amount(forecast.hours * HOURS.seconds)}, "
        f"about {forecast.bytes / 2**20:.0f} MiB "
        f"on disk ({forecast.free_bytes / 2**30:.0f} GiB free) and {duration_words(seconds)}"
        + (f"; {len(found.failures)} inputs cannot be opened" if found.failures else "")
    )


def _grid_words(extractor: "BaseExtractor", num_readers: int) -> str:
    encoder, batch = extractor.encoder, f"{extractor.batch_seconds:g}"
    count, streams = encoder.num_threads, encoder.num_streams
    side_by_side = f" for each of {streams} utterances" if streams > 1 else ""
    threads = "" if count is None else f" ({count} thread{'s' * (count > 1)}{side_by_side})"
    device = f"{encoder.dtype} on {encoder.device}{threads}"
    if extractor.medium.measure is not HOURS:
        chunking = extractor.medium.chunking
        return f"{device}, windows of {chunking.length:g} tokens, batches of {batch} tokens"
    return f"{encoder.grid.frame_rate:g} frames/s, {device}, batches of {batch} s, {num_readers} readers"


def duration_words(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
