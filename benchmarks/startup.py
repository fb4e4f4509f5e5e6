"""How long one waits before anything is done: the help of the command, the import, the encoder that comes along.

    python -m benchmarks.startup [--rounds 9]

Each is a new Python process, timed from its start to what was asked for (a line that it prints) and to its end, in
turns with a process that does nothing; medians. The command extracts four recordings of a second, by `conformer-s` and
without any model.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

READY = "ready"
CALLS = {
    "python alone": "",
    "import speechfeat": "import speechfeat",
    "load_encoder() and 1 s encoded": (
        "import numpy, speechfeat; speechfeat.load_encoder().encode([numpy.ones(16000, 'f4')])"
    ),
}


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Until the process says that it is ready, or else ends, and until it ends."""
    began = time.perf_counter()
    ready = None
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        for line in process.stdout:
            if line.strip() == READY.encode():
                ready = time.perf_counter() - began
        _, errors = process.communicate()
    ended = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} failed: {errors.decode()[-500:]}")
    return ready or ended, ended


def ways(folder: Path) -> dict[str, list[str]]:
    """What is timed, as arguments of Python."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000)
    (folder / "audio").mkdir()
    for number in range(4):
        soundfile.write(folder / "audio" / f"{number}.wav", noise, 16000)
    command = ["-m", "speechfeat.extract", str(folder / "audio"), "-o", str(folder / "store"), "--overwrite"]
    return {
        **{name: ["-c", f"{call}\nprint({READY!r}, flush=True)"] for name, call in CALLS.items()},
        "speechfeat.extract --help": ["-m", "speechfeat.extract", "--help"],
        "speechfeat.extract of 4 recordings": command,
        "the same, -m logmel": [*command, "-m", "logmel"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        timed = ways(Path(name))
        found: dict[str, list[tuple[float, float]]] = {one: [] for one in timed}
        for _ in range(options.rounds):
            for one, arguments in timed.items():
                found[one].append(seconds(arguments))
    print(f"{'':36}    ready   (least)     ended")
    for one, times in found.items():
        ready, ended = zip(*times, strict=True)
        print(f"{one:36} {statistics.median(ready):6.2f} s {min(ready):7.2f} s {statistics.median(ended):7.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
