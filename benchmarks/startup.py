"""How long one waits before anything is done: the help of the command, the import, the encoder that comes along.

    python -m benchmarks.startup [--rounds 9]

Each is a new Python process, timed from its start to its end, in turns with a process that does nothing; medians.
"""

import argparse
import statistics
import subprocess
import sys
import time

WAYS = {
    "python alone": ["-c", ""],
    "import speechfeat": ["-c", "import speechfeat"],
    "speechfeat.extract --help": ["-m", "speechfeat.extract", "--help"],
    "load_encoder() and 1 s encoded": [
        "-c",
        "import numpy, speechfeat; speechfeat.load_encoder().encode([numpy.ones(16000, 'f4')])",
    ],
}


def seconds(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, arguments in WAYS.items():
            found[name].append(seconds(arguments))
    print(f"{'':32}  median  smallest")
    for name, times in found.items():
        print(f"{name:32} {statistics.median(times):5.2f} s  {min(times):6.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
