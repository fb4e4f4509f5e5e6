"""Whether memory grows with the corpus: peak resident memory of the extract command for few and for many short clips.

    python -m benchmarks.memory [-m logmel] [--clips 1000 20000] [--jobs 2]

Clips of noise of half a second to a second and a half are made, and extracted in a process of its own each, into a
store with frames and embeddings.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.workload import SAMPLE_RATE


def make_clips(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(2 * SAMPLE_RATE)).astype(np.float32)
    for number in range(count):
        (folder / f"{number // 1000:03d}").mkdir(parents=True, exist_ok=True)
        length = int(rng.integers(SAMPLE_RATE // 2, 3 * SAMPLE_RATE // 2))
        soundfile.write(folder / f"{number // 1000:03d}/{number:06d}.wav", noise[:length], SAMPLE_RATE, "PCM_16")


# The child of a process that knows nothing else, so that its children's peak is that of the command.
COMMAND = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "speechfeat.extract", *sys.argv[1:], "-q"], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_mebibytes(arguments: list[str]) -> float:
    told = subprocess.run([sys.executable, "-c", COMMAND, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return int(told.stdout.split()[-1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="logmel")
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("-j", "--jobs", type=int, default=2)
    options = parser.parse_args()
    first = None
    with tempfile.TemporaryDirectory() as name:
        for count in options.clips:
            folder = Path(name) / str(count)
            make_clips(folder / "clips", count)
            arguments = [str(folder / "clips"), "-m", options.model, "-j", str(options.jobs)]
            peak = peak_mebibytes([*arguments, "-o", str(folder / "features")])
            first = first or peak
            print(f"{options.model}, {count:7,} clips: {peak:6.0f} MiB, {peak / first - 1:+.1%}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
