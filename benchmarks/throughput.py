"""The extract command beside what users run today, on the same recordings, with the limit of the machine.

    python -m benchmarks.throughput AUDIO_DIR -m MODEL [-m ...] [--mix utterances ...] [--format flac ...] [--hours 0.1]
        [--rounds 3] [--device cuda]

The clips of AUDIO_DIR are joined and cut to the lengths of a mix and compressed, for each mix in each format. Every way
reads these files and leaves the penultimate frames in float16 and their mean on disk, in a process of its own; what is
compared is the time from the first read to the last byte written, without loading the model and warming up. Rounds
alternate, so that a machine that is busy for a while is busy for all; the table shows medians, and medians of ratios.
The rivals are in `benchmarks.rivals`; those whose package is not installed (`pip install -e ".[bench]"`) or does not
know the model are left out. A way that is many times slower than another may be given less of the work
(`--rival-hours`).

MODEL is a checkpoint directory, or `random:wav2vec2-large` for random weights of its size, since speed does not depend
on their values (`benchmarks.random_weights`); or `logmel` or `mfcc`, whose operations are not counted.

encoding: real time while the device works (of a rival: inside its call of the model). limit: the operations of the
stock model up to that layer, in the audio of a second of encoding, over the rate of a large matrix product in the dtype
of the way (of int8, in that of auto). GFLOP/s: that rate, measured right before and after it, since it changes on a
machine that others use, too. idle: share of the time in which the device did not work. disk: bytes written over those
that the disk would have taken in that time. memory: the most resident. A way that fails, as for memory, says why.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

OURS = {f"speechfeat {dtype}": dtype for dtype in ("float32", "auto", "int8")}
# Long enough for the share of attention to be that of the mix.
OPERATION_SECONDS = 12.0
# Of so many recordings, and of so much of each, a dtype is compared with float32.
ERROR_CLIPS = 20
ERROR_SECONDS = 20.0


class Outcome(NamedTuple):
    """How a way did in a round.

    Attributes:
        speed: real time, end to end.
        encoding: real time, of encoding alone.
        idle: share of the time without encoding.
        written: bytes a second.
        memory: peak resident, in bytes.
        rate: operations a second in matrix products around it, in its dtype.
    """

    speed: float
    encoding: float
    idle: float
    written: float
    memory: float
    rate: float


class Failed(NamedTuple):
    """Why a way could not do it."""

    reason: str


Outcomes = dict[str, list[Outcome] | Failed]


def make_checkpoint(name: str, folder: Path) -> str:
    """A checkpoint directory of random weights."""
    from benchmarks.random_weights import random_model

    model, extractor = random_model(name)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


def measure(way: str, listing: Path, model: str, device: str, out: Path) -> Outcome | Failed:
    """Run one way in a process of its own."""
    from benchmarks.limits import matrix_rate

    rates = [matrix_rate(device, dtype_of(way, device))]
    if way in OURS:
        command = ["speechfeat.extract", str(listing), "-m", model, "--dtype", OURS[way], "-q", "--json"]
    else:
        command = ["benchmarks.rivals", way, str(listing), "-m", model]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--device", device, "-o", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told, errors = process.communicate()
    if process.returncode:
        if way in OURS:
            raise SystemExit(f"{way}: {errors}")
        return Failed(errors.strip().splitlines()[-1][:100] if errors.strip() else f"signal {-process.returncode}")
    rates.append(matrix_rate(device, dtype_of(way, device)))
    result = json.loads(told)
    audio = sum(soundfile.info(path).duration for path in listing.read_text().split("\n"))
    seconds, encoding = result["seconds"], result["encoding"]
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Outcome(
        audio / seconds,
        audio / encoding,
        1 - encoding / seconds,
        written / seconds,
        result["memory"],
        statistics.mean(rates),
    )


def relative_errors(listing: Path, model: str, device: str, dtypes: Sequence[str]) -> dict[str, str]:
    """Of each dtype, by its name: the root of the mean squared difference from float32, over the deviation."""
    import speechfeat as sf
    from benchmarks.workload import SAMPLE_RATE

    paths = listing.read_text().split("\n")[:ERROR_CLIPS]
    clips = [soundfile.read(path, round(ERROR_SECONDS * SAMPLE_RATE), dtype="float32")[0] for path in paths]
    exact = sf.load_encoder(model, dtype="float32", device=device).encode(clips, sample_rate=SAMPLE_RATE)
    errors = {}
    for dtype in dtypes:
        encoder = sf.load_encoder(model, dtype=dtype, device=device)
        pairs = zip(encoder.encode(clips, sample_rate=SAMPLE_RATE), exact, strict=True)
        squares = [np.square(one.values - other.values).mean() / other.values.var() for one, other in pairs]
        errors[encoder.dtype] = f"{np.sqrt(np.mean(squares)):.1e}"
    return errors


def ways_for(model_type: str, options: argparse.Namespace) -> list[str]:
    """Ours and the others', without those that cannot run a model here or are not wanted."""
    from benchmarks.rivals import CLASSICAL, available
    from speechfeat.encoders.precision import has_int8

    ours = [way for way in OURS if way != "speechfeat int8" or has_int8(torch.device(options.device))]
    if model_type in CLASSICAL:  # they have one precision
        ours = ["speechfeat auto"]
    return [way for way in [*available(model_type), *ours] if way not in options.without]


def run_rounds(name: str, model: str, ways: list[str], options: argparse.Namespace, folder: Path) -> Outcomes:
    """What all rounds gave, by way; a way that failed is not tried again."""
    listings = {"ours": folder.parent / "list.txt", "rivals": folder.parent / "rivals.txt"}
    found: Outcomes = {way: [] for way in ways}
    for turn in range(options.rounds):
        for way in ways:
            if isinstance(found[way], Failed):
                continue
            listing = listings["ours" if way in OURS else "rivals"]
            outcome = measure(way, listing, model, options.device, folder / f"{way} {turn}")
            told = outcome.reason if isinstance(outcome, Failed) else f"{outcome.speed:.1f}"
            print(f"{name}, round {turn + 1}: {way}: {told}", file=sys.stderr, flush=True)
            found[way] = outcome if isinstance(outcome, Failed) else [*found[way], outcome]
    return found


def compare(name: str, options: argparse.Namespace, folder: Path, disk: float) -> None:
    """Measure all ways with one model and print its table; `disk` in bytes a second."""
    from benchmarks.limits import operations
    from benchmarks.rivals import CLASSICAL

    model, title, per_second = name, name, math.nan
    if name.startswith("random:"):
        model = make_checkpoint(name.removeprefix("random:"), folder / "model")
    is_classical = name in CLASSICAL
    model_type = name if is_classical else json.loads((Path(model) / "config.json").read_text())["model_type"]
    ways = ways_for(model_type, options)
    outcomes = run_rounds(name, model, ways, options, folder)
    if not is_classical:
        dtypes = [OURS[way] for way in ways if OURS.get(way, "float32") != "float32"]
        errors = relative_errors(folder.parent / "list.txt", model, options.device, dtypes)
        per_second = operations(model, OPERATION_SECONDS) / OPERATION_SECONDS
        far = "".join(f"; {dtype} is {error} from float32" for dtype, error in errors.items())
        title = f"{name}: {per_second / 1e9:.1f} GFLOP for a second of audio{far}"
    print(f"\n{title}")
    print_table(outcomes, per_second, disk)


def dtype_of(way: str, device: str) -> str:
    """Of the products of a way."""
    from speechfeat.encoders.precision import has_fast_bfloat16

    if way in OURS:
        return "bfloat16" if OURS[way] != "float32" and has_fast_bfloat16(torch.device(device)) else "float32"
    return "bfloat16" if "bfloat16" in way else "float32"


def print_table(outcomes: Outcomes, per_second: float, disk: float) -> None:
    """Print a row for every way, of a model with so many operations in a second of audio; bytes a second to disk."""
    first = next((found for found in outcomes.values() if not isinstance(found, Failed)), [])
    print(f"{'':30} x real time  against the first  encoding  limit  GFLOP/s   idle   disk  memory")
    for way, found in outcomes.items():
        if isinstance(found, Failed):
            print(f"{way:30} failed: {found.reason}")
            continue
        ratio = statistics.median(one.speed / other.speed for one, other in zip(found, first, strict=True))
        share = statistics.median(one.encoding * per_second / one.rate for one in found)
        limit = "-" if math.isnan(share) else f"{share:.0%}"
        middle = Outcome(*(statistics.median(values) for values in zip(*found, strict=True)))
        print(
            f"{way:30} {middle.speed:11.1f} {ratio:17.2f}x {middle.encoding:9.1f} {limit:>6} "
            f"{middle.rate / 1e9:8.0f} {middle.idle:6.0%} {middle.written / disk:6.1%} "
            f"{max(one.memory for one in found) / 2**20:5.0f} MiB"
        )


def arguments() -> argparse.Namespace:
    from benchmarks.workload import FORMATS, MIXES

    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.splitlines()[0])
    parser.add_argument("audio", type=Path)
    parser.add_argument("-m", "--model", action="append", help="by default random:wav2vec2-base")
    parser.add_argument("--mix", choices=MIXES, action="append", help="by default utterances")
    parser.add_argument("--hours", type=float, default=0.1, help="of audio, for speechfeat")
    parser.add_argument("--rival-hours", type=float, help="of the same audio, for the others; by default all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--format", choices=FORMATS, action="append", help="by default flac")
    parser.add_argument("--without", action="append", default=[], help="a way to leave out")
    return parser.parse_args()


def compare_all(mix: str, form: str, options: argparse.Namespace, folder: Path) -> None:
    """Measure all models on a mix in a format and print their tables."""
    from benchmarks.limits import disk_rate
    from benchmarks.workload import MIXES, make

    files = make(options.audio, folder / "audio", mix, options.hours, form)
    share = min(1.0, (options.rival_hours or options.hours) / options.hours)
    # Drawn from the whole list: a padded batch holds recordings of any length.
    fewer = sorted(np.random.default_rng(0).permutation(files)[: max(1, round(len(files) * share))].tolist())
    (folder / "list.txt").write_text("\n".join(files))
    (folder / "rivals.txt").write_text("\n".join(fewer))
    disk = disk_rate(folder)
    seconds = sum(soundfile.info(file).duration for file in files)
    print(
        f"\n{options.device}, {os.cpu_count()} cores: {len(files)} recordings of {MIXES[mix].describe} "
        f"({seconds / 3600:.2f} h, {form}; {len(fewer)} for the rivals), {options.rounds} rounds; "
        f"disk {disk / 1e6:.0f} MB/s"
    )
    for number, model in enumerate(options.model or ["random:wav2vec2-base"]):
        (folder / str(number)).mkdir()
        compare(model, options, folder / str(number), disk)


def main() -> int:
    from benchmarks.rivals import missing_packages

    options = arguments()
    if missing := missing_packages():
        print(f"left out, not installed: {', '.join(missing)}")
    for mix, form in product(options.mix or ["utterances"], options.format or ["flac"]):
        with tempfile.TemporaryDirectory() as name:
            compare_all(mix, form, options, Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
