"""Embeddings of texts by speechfeat against sentence-transformers and the loop that users write, side by side.

    python -m benchmarks.text_throughput TEXTS ... -m MODEL [--limit 2000] [--rounds 5] [--device cuda] [--ways A,B]

All take the last layer, the mean over all tokens, special ones included, from the same texts (anything that
`speechfeat.extract_text` reads). sentence-transformers runs batches of 32, its default, and of 16; it is left out where
it does not import. The plain loop is transformers with a batch of one. `embed` gives vectors in memory, as they do;
`command` is the whole path into a store and back. Each way has a process of its own, with its model loaded; what is
compared is the time from the first text to the last vector, tokenizing included. Rounds alternate, so that a machine
that is busy for a while is busy for all. The table shows medians, of texts a second, of how many times faster than the
first way in the same round (by the clock, and by the time of all processors together, which other work on the machine
changes less), and the smallest cosine with the vectors of the first way. On a machine that others use, set
OMP_WAIT_POLICY=PASSIVE: threads of torch that spin while another waits for a core slow all ways by any factor.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

PEER = "sentence-transformers"
WAYS = (
    f"{PEER} 32",
    f"{PEER} 16",
    "loop",
    "embed float32",
    "embed auto",
    "command float32",
    "command auto",
)


class Spent(NamedTuple):
    """Seconds of one pass over the texts: by the clock, and of processors."""

    clock: float
    processors: float


def read(sources: Sequence[Path], limit: int | None) -> list[str]:
    """Texts drawn from all sources, without what is no text."""
    from speechfeat.text_corpus import discover_texts

    texts = [one.text for source in sources for one in discover_texts(source, skip_empty=True)]
    chosen = sorted(np.random.default_rng(0).permutation(len(texts))[:limit])
    return [" ".join((texts[index] or "").split()) for index in chosen]


def peer(texts: list[str], model: str, device: str, batch_size: int) -> Callable[[], np.ndarray]:
    """`encode` of sentence-transformers, in float32."""
    from sentence_transformers import SentenceTransformer

    # A directory without its settings gets their default: the mean over all tokens.
    encoder = SentenceTransformer(model, device=device).float()
    return lambda: encoder.encode(texts, batch_size=batch_size, show_progress_bar=False)


def loop(texts: list[str], model: str, device: str) -> Callable[[], np.ndarray]:
    """What users write without a library."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    encoder = transformers.AutoModel.from_pretrained(model, dtype=torch.float32).eval().to(device)

    def run() -> np.ndarray:
        vectors = []
        with torch.no_grad():
            for text in texts:
                inputs = tokenizer(text, return_tensors="pt", truncation=True).to(device)
                vectors.append(encoder(**inputs).last_hidden_state[0].mean(dim=0).cpu().numpy())
        return np.stack(vectors)

    return run


def embed(texts: list[str], model: str, device: str, dtype: str) -> Callable[[], np.ndarray]:
    """Vectors in memory."""
    import speechfeat as sf

    encoder = sf.load_text_encoder(model, "last", device=device, dtype=dtype)
    return lambda: encoder.embed(texts, keep_special=True, truncate=True)


def command(lines: Path, model: str, device: str, dtype: str) -> Callable[[], np.ndarray]:
    """The whole path of `speechfeat.extract_text`, with its store, and the vectors read from it."""
    import speechfeat as sf

    encoder = sf.load_text_encoder(model, "last", device=device, dtype=dtype)

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as out:
            options = {"frames": False, "keep_special": True, "truncate": True}
            return sf.extract_text_features(lines, out, encoder, **options).embeddings()[1]

    return run


def prepare(way: str, lines: Path, model: str, device: str) -> Callable[[], np.ndarray]:
    """Load the model of one way; what is returned is timed."""
    texts, (name, _, kind) = lines.read_text().split("\n"), way.partition(" ")
    if name == PEER:
        return peer(texts, model, device, int(kind))
    if name == "loop":
        return loop(texts, model, device)
    return embed(texts, model, device, kind) if name == "embed" else command(lines, model, device, kind)


def work(options: argparse.Namespace) -> None:
    """One way in this process: a pass over the texts for every line of standard input."""
    run = prepare(options.way, options.texts[0], options.model, options.device)
    for _ in sys.stdin:
        clock, processors = time.perf_counter(), time.process_time()
        vectors = run()
        spent = Spent(time.perf_counter() - clock, time.process_time() - processors)
        np.save(options.out, vectors)
        print(json.dumps(spent), flush=True)


def start(way: str, lines: Path, options: argparse.Namespace, out: Path) -> subprocess.Popen[str]:
    """The process of one way."""
    arguments = [sys.executable, "-m", "benchmarks.text_throughput", str(lines), "-m", options.model]
    arguments += ["--device", options.device, "--way", way, "--out", str(out)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def measure(process: subprocess.Popen[str]) -> Spent:
    """One pass over the texts."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a way ended before its time")
    return Spent(*json.loads(line))


def compare(texts: list[str], ways: Sequence[str], options: argparse.Namespace) -> tuple[dict[str, list[Spent]], dict]:
    """What every way spent in every round, and its smallest cosine with the first."""
    spent: dict[str, list[Spent]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        lines = Path(name) / "texts.txt"
        lines.write_text("\n".join(texts))
        outs = {way: Path(name) / f"{way}.npy" for way in ways}
        processes = {way: start(way, lines, options, outs[way]) for way in ways}
        try:
            for turn in range(options.rounds):
                for way in ways:
                    spent[way].append(measure(processes[way]))
                    rate = len(texts) / spent[way][-1].clock
                    print(f"round {turn + 1}: {way}: {rate:.0f} texts/s", file=sys.stderr, flush=True)
        finally:
            for process in processes.values():
                process.kill()
                process.communicate()
        return spent, {way: cosine(outs[way], outs[ways[0]]) for way in ways}


def cosine(found: Path, expected: Path) -> float:
    """The smallest between the rows of two files."""
    one, other = np.load(found).astype(np.float64), np.load(expected).astype(np.float64)
    products = (one * other).sum(axis=1)
    return float((products / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_throughput", description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--limit", type=int, help="texts, drawn from all (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", default=",".join(WAYS), help="what to compare, with the first (default: %(default)s)")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.way:
        work(options)
        return 0
    ways = [
        way for way in options.ways.split(",") if PEER not in way or importlib.util.find_spec(PEER.replace("-", "_"))
    ]
    texts = read(options.texts, options.limit)
    spent, cosines = compare(texts, ways, options)
    print(f"{options.model} on {options.device}: {len(texts)} texts, {options.rounds} rounds; against {ways[0]}:")
    print(f"{'':24}  texts/s  by the clock  by processors  smallest cosine")
    for way, measured in spent.items():
        clock, processors = (
            statistics.median(first[kind] / own[kind] for first, own in zip(spent[ways[0]], measured, strict=True))
            for kind in range(2)
        )
        rate = len(texts) / statistics.median(one.clock for one in measured)
        print(f"{way:24}  {rate:7.0f}  {clock:11.2f}x  {processors:12.2f}x  {cosines[way]:.7f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
