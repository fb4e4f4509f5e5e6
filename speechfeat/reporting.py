"""What the commands tell of a run: what was found, what it will take, how far it is."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from speechfeat.cli import tell
from speechfeat.progress import Progress

if TYPE_CHECKING:
    from speechfeat.extraction import Extractor, Forecast
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


def run_shown(extractor: "Extractor", found: "Survey", out: str | Path, *, quiet: bool) -> "Summary":
    """Run an extractor into a store, or go on there, with its forecast told and a progress bar.

    Raises:
        SpeechfeatError: as `Extractor.open` and `Extractor.run` do.
    """
    writer = extractor.open(out, found)
    try:
        forecast = extractor.forecast(found, out, writer.done)
        tell_forecast(extractor, forecast, found, extractor.expected_seconds(found, writer.done))
    except BaseException:
        writer.abort()
        raise
    with Progress(forecast.hours, shown=not quiet) as progress:
        return extractor.run(found, writer, progress.update)


def tell_forecast(extractor: "Extractor", forecast: "Forecast", found: "Survey", seconds: float) -> None:
    """Say what a run will take; `seconds` as of `Extractor.expected_seconds`."""
    encoder = extractor.encoder
    tell(
        f"{encoder.name}: layers {','.join(map(str, encoder.selection.indices))} of {encoder.num_layers}, "
        f"{encoder.dim} dimensions, {encoder.grid.frame_rate:g} frames/s, {encoder.dtype} on {encoder.device}, "
        f"batches of {extractor.batch_seconds:g} s, {extractor.config.num_workers} readers"
    )
    tell(
        f"to do: {forecast.utterances} utterances, {forecast.hours:.2f} h, about {forecast.bytes / 2**20:.0f} MiB "
        f"on disk ({forecast.free_bytes / 2**30:.0f} GiB free) and {duration_words(seconds)}"
        + (f"; {len(found.failures)} inputs cannot be opened" if found.failures else "")
    )


def duration_words(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
