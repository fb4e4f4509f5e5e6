"""`python -m speechfeat.doctor MODEL`: layers, frame grid, and what batches, dtypes and chunks do to the features.

With `--text` the model is an encoder of texts, and its tokens stand where the frames stood.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from speechfeat.cli import EXIT_FAILED_INPUTS, EXIT_OK, main_with_errors
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.errors import ParameterError
from speechfeat.memory import importing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from speechfeat.diagnosis import Deviation
    from speechfeat.encoders.base import BaseEncoder

LIMIT = 1e-5


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(
        prog="python -m speechfeat.doctor",
        description="Measure how far an encoder's features can be trusted on this machine.",
        epilog="Errors are differences over the standard deviation of the features. Exit code 3: the features of an "
        f"utterance change by more than {LIMIT:g} when it is padded into a batch.",
        allow_abbrev=False,
    )
    result.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        help="catalogue name, hub id or checkpoint directory (default: %(default)s)",
    )
    result.add_argument("-l", "--layers", default="penultimate", help="which layers to measure")
    result.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    result.add_argument("--text", action="store_true", help="the model is an encoder of texts")
    result.add_argument("--audio", nargs="+", help="recordings to measure with (default: made noise)")
    result.add_argument("--chunk", type=float, default=30.0, help="seconds of a chunk")
    result.add_argument("--overlap", type=float, default=4.0, help="seconds that neighbouring chunks share")
    result.add_argument("--allow-pickle", action="store_true", help="take pickled weights (they can run code)")
    result.add_argument("--short-window", action="store_true", help="run Whisper on the clip's length, not on 30 s")
    result.add_argument("--json", action="store_true", help="print JSON")
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = parser().parse_args(arguments)
    if options.text and (options.audio or options.short_window):
        raise ParameterError("--audio and --short-window are for encoders of recordings; drop them, or --text")
    results, lines = _measure_texts(options) if options.text else _measure_recordings(options)
    print(json.dumps(results) if options.json else "\n".join(lines))
    return EXIT_OK if results["invariance"]["worst"] < LIMIT else EXIT_FAILED_INPUTS


def _measure_recordings(options: argparse.Namespace) -> tuple[dict, list[str]]:
    with importing():
        from speechfeat import diagnosis
        from speechfeat.audio import read_audio
        from speechfeat.chunking import Chunking
        from speechfeat.encoders.base import Encoder
        from speechfeat.encoders.describing import describe_layers
        from speechfeat.encoders.loading import load_encoder

    def make(dtype: str) -> Encoder:
        return load_encoder(
            options.model,
            options.layers,
            device=options.device,
            dtype=dtype,
            allow_pickle=options.allow_pickle,
            short_window=options.short_window,
        )

    exact, auto = make("float32"), make("auto")
    rate = exact.sample_rate
    chunking = Chunking(options.chunk, options.overlap, options.chunk)
    seam_seconds = max(diagnosis.SEAM_SECONDS, 2.5 * options.chunk)
    clips = diagnosis.test_clips(rate)
    (long,) = diagnosis.test_clips(rate, [seam_seconds])
    if options.audio:
        clips = [read_audio(path, rate).samples for path in options.audio]
        long = _repeat(clips, round(seam_seconds * rate))
        # Halves too, so that a batch of one recording is padded as well.
        clips += [clip[: len(clip) // 2 + 1] for clip in clips]
    # No longer than a run would encode them whole.
    longest = min(exact.grid.samples(options.chunk), exact.backbone.max_samples or len(long))
    clips = [clip[:longest] for clip in clips]
    alone = diagnosis.encode_alone(exact, clips)
    measured = {
        "invariance": diagnosis.invariance(exact, clips),
        "dtype": diagnosis.deviation(diagnosis.encode_alone(auto, clips), alone),
        "seam": diagnosis.seam(exact, long, chunking),
    }
    seam = _line(f"chunks of {options.chunk:g} s, overlap {options.overlap:g} s", measured["seam"])
    results, lines = _results(exact, auto, measured, "x real time", seam)
    return results, [describe_layers(exact), *lines]


def _measure_texts(options: argparse.Namespace) -> tuple[dict, list[str]]:
    with importing():
        from speechfeat import diagnosis
        from speechfeat.encoders.describing import describe_text_layers
        from speechfeat.encoders.text_loading import load_text_encoder

    exact, auto = (
        load_text_encoder(
            options.model, options.layers, device=options.device, dtype=dtype, allow_pickle=options.allow_pickle
        )
        for dtype in ("float32", "auto")
    )
    texts = diagnosis.test_texts(exact)
    alone = diagnosis.encode_alone(exact, texts)
    measured = {
        "invariance": diagnosis.invariance(exact, texts),
        "dtype": diagnosis.deviation(diagnosis.encode_alone(auto, texts), alone),
    }
    results, lines = _results(exact, auto, measured, "tokens/s")
    return results, [describe_text_layers(exact), *lines]


def _results(
    exact: "BaseEncoder", auto: "BaseEncoder", measured: "Mapping[str, Deviation | None]", unit: str, *further: str
) -> tuple[dict, list[str]]:
    """What was measured as JSON values and as lines; `further` lines go before the speeds, which are in `unit`."""
    speeds = {encoder.dtype: encoder.measure_speed() for encoder in (exact, auto)}
    lines = [
        f"measured on layers {','.join(map(str, exact.selection.indices))}, {exact.dim} dimensions, {exact.device}:",
        _line("padded into a batch, float32", measured["invariance"]),
        _line(f"{auto.dtype} against float32", measured["dtype"]),
        *further,
        *(f"  {dtype}: {speed:.1f} {unit}" for dtype, speed in speeds.items()),
    ]
    values = {name: one._asdict() if one else None for name, one in measured.items()}
    rate = unit.replace(" ", "_").replace("/s", "_per_second")
    return {**values, "dtype_name": auto.dtype, rate: speeds}, lines


def _repeat(clips: list, num_samples: int):
    import numpy as np

    whole = np.concatenate(clips)
    return np.tile(whole, -(-num_samples // len(whole)))[:num_samples]


def _line(name: str, found: "Deviation | None") -> str:
    if found is None:
        return f"  {name}: the model takes no longer input, so there is nothing to compare with"
    return f"  {name}: worst {found.worst:.1e}, typical {found.typical:.1e}, cosine of embeddings {found.cosine:.6f}"


if __name__ == "__main__":
    sys.exit(main_with_errors(main))
