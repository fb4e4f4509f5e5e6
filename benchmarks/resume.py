"""Kill the extract command at random moments, start it again, and compare with a run that nobody disturbed.

    python -m benchmarks.resume AUDIO_DIR -m MODEL [--kills 10] [further options of the command]
    python -m benchmarks.resume TEXTS -m MODEL --command extract_text [...]

The command is killed with SIGKILL, which no program can catch. Moments are drawn over the time that the undisturbed run
took from the line that tells what is to do. At the end every tensor, embedding and row must be equal to the bit, and so
must be the files.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import speechfeat as sf


def start(options: argparse.Namespace, out: Path, rest: list[str]) -> subprocess.Popen:
    command = [sys.executable, "-m", f"speechfeat.{options.command}", options.input, "-m", options.model]
    return subprocess.Popen([*command, "-o", str(out), "-q", *rest], stderr=subprocess.PIPE, text=True)


def await_begin(process: subprocess.Popen) -> None:
    """Wait until the command has told what is to do, or has ended."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("to do:"):
            return


def finish(process: subprocess.Popen) -> int:
    _, errors = process.communicate()
    print(errors.strip().splitlines()[-1], flush=True)
    return process.returncode


def differences(one: Path, other: Path) -> int:
    """Utterances that are not equal to the bit, or not in both."""
    first, second = sf.Store(one), sf.Store(other)
    count = len(set(first.ids) ^ set(second.ids))
    for key in set(first.ids) & set(second.ids) if first.config["store"]["frames"] else ():
        count += not np.array_equal(first.frames(key).values, second.frames(key).values)
    same_rows = first.table().equals(second.table()) and first.errors() == second.errors()
    return count + (not np.array_equal(first.embeddings()[1], second.embeddings()[1])) + (not same_rows)


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store that the run wrote for its inputs."""
    return {file.name: file.read_bytes() for file in [*(store / "shards").iterdir(), *store.glob("errors.jsonl")]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resume", description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--command", default="extract", choices=("extract", "extract_text"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options, rest = parser.parse_known_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        process = start(options, whole, rest)
        await_begin(process)
        began = time.perf_counter()
        code = finish(process)
        length = time.perf_counter() - began
        print(f"undisturbed: exit code {code}, {length:.0f} s", flush=True)
        for kill in range(options.kills):
            process = start(options, killed, rest)
            await_begin(process)
            # Most of what a run does must still lie ahead of the later kills.
            wait = moments.uniform(0.0, 2 * length / (options.kills + 1))
            time.sleep(wait)
            process.kill()
            process.communicate()
            held = len(sf.Store(killed)) if (killed / "store.json").exists() else 0
            print(f"kill {kill + 1} after {wait:.1f} s: the store holds {held} utterances", flush=True)
        code = finish(start(options, killed, rest))
        found = differences(whole, killed)
        same_files = contents(whole) == contents(killed)
        print(f"resumed: exit code {code}; {found} differences from the undisturbed store of {len(sf.Store(whole))} ")
        print(f"{len(contents(whole))} files {'equal to the byte' if same_files else 'differ'}")
    return 0 if same_files and not found else 1


if __name__ == "__main__":
    sys.exit(main())
