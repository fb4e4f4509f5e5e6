"""The extract command beside what users run today, on the same recordings, with the limit of the machine.

    python -m benchmarks.throughput AUDIO_DIR -m MODEL [-m ...] [--mix utterances] [--hours 0.1] [--rounds 3]
        [--device cuda] [--format flac]

The clips of AUDIO_DIR are joined and cut to the lengths of a mix and compressed. Every way reads these files and leaves
the penultimate frames in float16 and their mean on disk, in a process of its own; what is compared is the time from the
first read to the last byte written, without loading the model and warming up. Rounds alternate, so that a machine that
is busy for a while is busy for all; the table shows medians, and medians of ratios. The rivals are in
`benchmarks.rivals`; those whose package is not installed (`pip install -e ".[bench]"`) or does not know the model are
left out. A way that is many times slower than another may be given less of the work (`--rival-hours`).

MODEL is a checkpoint directory, or `random:wav2vec2-large` for random weights of its size, since speed does not depend
on their values (`benchmarks.random_weights`).

encoding: real time while the device works (of a rival: inside its call of the model). limit: the operations of the
stock model up to that layer, in the audio of a second of encoding, over the rate of a large matrix product in the dtype
of the way (of int8, in that of auto), measured here before. idle: share of the time in which the device did not work.
disk: bytes written over those that the disk would have taken in that time. memory: the most resident. A way that fails,
as for memory, says why.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch

OURS = {f"speechfeat {dtype}": dtype for dtype in ("float32", "auto", "int8")}
# Long enough for the share of attention to be that of the mix.
OPERATION_SECONDS = 12.0


class Outcome(NamedTuple):
    """How a way did in a round.

    Attributes:
        speed: real time, end to end.
        encoding: real time, of encoding alone.
        idle: share of the time without encoding.
        written: bytes a second.
        memory: peak resident, in bytes.
    """

    speed: float
    encoding: float
    idle: float
    written: float
    memory: int


class Failed(NamedTuple):
    """Why a way could not do it."""

    reason: str


def make_checkpoint(name: str, folder: Path) -> str:
    """A checkpoint directory of random weights."""
    from benchmarks.random_weights import random_model

    model, extractor = random_model(name)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder)


def measure(way: str, listing: Path, model: str, device: str, out: Path) -> Outcome | Failed:
    """Run one way in a process of its own."""
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
    result = json.loads(told)
    audio = sum(soundfile.info(path).duration for path in listing.read_text().split("\n"))
    seconds, encoding = result["seconds"], result["encoding"]
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return Outcome(audio / seconds, audio / encoding, 1 - encoding / seconds, written / seconds, result["memory"])


def relative_errors(listing: Path, model: str, device: str, dtypes: Sequence[str]) -> dict[str, str]:
    """Of each dtype, by its name: the root of the mean squared difference from float32, over the deviation."""
    import speechfeat as sf

    paths = listing.read_text().split("\n")[:20]
    exact = sf.load_encoder(model, dtype="float32", device=device).encode(paths)
    errors = {}
    for dtype in dtypes:
        encoder = sf.load_encoder(model, dtype=dtype, device=device)
        pairs = zip(encoder.encode(paths), exact, strict=True)
        squares = [np.square(one.values - other.values).mean() / other.values.var() for one, other in pairs]
        errors[encoder.dtype] = f"{np.sqrt(np.mean(squares)):.1e}"
    return errors


def compare(name: str, options: argparse.Namespace, folder: Path, rates: dict[str, float], disk: float) -> None:
    """Measure all ways with one model and print its table; `rates` of products by dtype, `disk` in bytes a second."""
    from benchmarks.limits import operations
    from benchmarks.rivals import available
    from speechfeat.encoders.precision import has_fast_bfloat16, has_int8

    model = name
    if name.startswith("random:"):
        model = make_checkpoint(name.removeprefix("random:"), folder / "model")
    listings = {"ours": folder.parent / "list.txt", "rivals": folder.parent / "rivals.txt"}
    model_type = json.loads((Path(model) / "config.json").read_text())["model_type"]
    device = torch.device(options.device)
    skipped = [*options.without, *([] if has_int8(device) else ["speechfeat int8"])]
    ways = [way for way in [*available(model_type), *OURS] if way not in skipped]
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    failed: dict[str, Failed] = {}
    for turn in range(options.rounds):
        for way in ways:
            if way in failed:
                continue
            listing = listings["ours" if way in OURS else "rivals"]
            outcome = measure(way, listing, model, options.device, folder / f"{way} {turn}")
            told = outcome.reason if isinstance(outcome, Failed) else f"{outcome.speed:.1f}"
            print(f"{name}, round {turn + 1}: {way}: {told}", file=sys.stderr, flush=True)
            if isinstance(outcome, Failed):
                failed[way] = outcome
            else:
                outcomes[way].append(outcome)
    dtypes = [OURS[way] for way in ways if way in OURS and OURS[way] != "float32"]
    errors = relative_errors(listings["ours"], model, options.device, dtypes)
    fast = "bfloat16" if has_fast_bfloat16(device) else "float32"
    per_second = operations(model, OPERATION_SECONDS) / OPERATION_SECONDS
    far = ", ".join(f"{dtype} is {error} from float32" for dtype, error in errors.items())
    print(f"\n{name}: {per_second / 1e9:.1f} GFLOP for a second of audio; {far}")
    print(f"{'':30} x real time  against the loop  encoding  limit   idle   disk  memory")
    for way in ways:
        if way in failed:
            print(f"{way:30} failed: {failed[way].reason}")
            continue
        found = outcomes[way]
        pairs = zip(found, outcomes.get(ways[0]) or found, strict=True)
        used = "bfloat16" if "bfloat16" in way else "float32" if OURS.get(way, "float32") == "float32" else fast
        encoding = statistics.median(one.encoding for one in found)
        print(
            f"{way:30} {statistics.median(one.speed for one in found):11.1f}  "
            f"{statistics.median(one.speed / other.speed for one, other in pairs):15.2f}x {encoding:9.1f} "
            f"{encoding * per_second / rates[used]:6.0%} {statistics.median(one.idle for one in found):6.0%} "
            f"{statistics.median(one.written for one in found) / disk:6.1%} "
            f"{max(one.memory for one in found) / 2**20:5.0f} MiB"
        )


def arguments() -> argparse.Namespace:
    from benchmarks.workload import FORMATS, MIXES

    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.splitlines()[0])
    parser.add_argument("audio", type=Path)
    parser.add_argument("-m", "--model", action="append", help="by default random:wav2vec2-base")
    parser.add_argument("--mix", choices=MIXES, default="utterances")
    parser.add_argument("--hours", type=float, default=0.1, help="of audio, for speechfeat")
    parser.add_argument("--rival-hours", type=float, help="of the same audio, for the others; by default all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--format", choices=FORMATS, default="flac")
    parser.add_argument("--without", action="append", default=[], help="a way to leave out")
    return parser.parse_args()


def main() -> int:
    from benchmarks.limits import DTYPES, disk_rate, matrix_rate
    from benchmarks.rivals import missing_packages
    from benchmarks.workload import MIXES, make

    options = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make(options.audio, folder / "audio", options.mix, options.hours, options.format)
        share = min(1.0, (options.rival_hours or options.hours) / options.hours)
        # Drawn from the whole list: a padded batch holds recordings of any length.
        fewer = sorted(np.random.default_rng(0).permutation(files)[: max(1, round(len(files) * share))].tolist())
        (folder / "list.txt").write_text("\n".join(files))
        (folder / "rivals.txt").write_text("\n".join(fewer))
        rates = {dtype: matrix_rate(options.device, dtype) for dtype in DTYPES}
        disk = disk_rate(folder)
        seconds = sum(soundfile.info(file).duration for file in files)
        print(
            f"{options.device}, {os.cpu_count()} cores: {len(files)} recordings of {MIXES[options.mix].describe} "
            f"({seconds / 3600:.2f} h, {options.format}; {len(fewer)} for the rivals), {options.rounds} rounds; matrix "
            + ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items())
            + f"; disk {disk / 1e6:.0f} MB/s"
        )
        if missing := missing_packages():
            print(f"left out, not installed: {', '.join(missing)}")
        for number, model in enumerate(options.model or ["random:wav2vec2-base"]):
            (folder / str(number)).mkdir()
            compare(model, options, folder / str(number), rates, disk)
    return 0


if __name__ == "__main__":
    sys.exit(main())
