"""Embeddings of texts by speechfeat against sentence-transformers and the loop that users write, side by side.

    python -m benchmarks.text_throughput TEXTS -m MODEL [--limit 2000] [--rounds 3] [--device cuda]

All take the last layer, the mean over all tokens, special ones included, from the same texts (anything that
`speechfeat.extract_text` reads), and leave the vectors on disk. sentence-transformers runs its own batches of 32; it is
left out where it does not import. The plain loop is transformers with a batch of one. Each way runs in a process of its
own; what is compared is the time from the first text to the last byte written, tokenizing included, without loading the
model. Rounds alternate, so that a machine that is busy for a while is busy for all; the table shows medians, and the
smallest cosine with the vectors of sentence-transformers (of the plain loop, where that is missing).
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

WAYS = ("sentence-transformers", "plain loop", "speechfeat float32", "speechfeat auto")


def read(source: Path, limit: int) -> list[str]:
    """Texts drawn from the whole source."""
    from speechfeat.text_corpus import discover_texts

    texts = [one.text for one in discover_texts(source, skip_empty=True)]
    chosen = sorted(np.random.default_rng(0).permutation(len(texts))[:limit])
    return [" ".join((texts[index] or "").split()) for index in chosen]


def sentence_transformers(lines: Path, model: str, device: str, out: Path) -> Callable[[], None]:
    """Their `encode`, in float32."""
    from sentence_transformers import SentenceTransformer

    # A directory without its settings gets their default: the mean over all tokens.
    encoder = SentenceTransformer(model, device=device).float()
    texts = lines.read_text().split("\n")
    return lambda: np.save(out, encoder.encode(texts, batch_size=32, show_progress_bar=False))


def plain_loop(lines: Path, model: str, device: str, out: Path) -> Callable[[], None]:
    """What users write without a library."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    encoder = transformers.AutoModel.from_pretrained(model, dtype=torch.float32).eval().to(device)
    texts = lines.read_text().split("\n")

    def run() -> None:
        vectors = []
        with torch.no_grad():
            for text in texts:
                inputs = tokenizer(text, return_tensors="pt", truncation=True).to(device)
                vectors.append(encoder(**inputs).last_hidden_state[0].mean(dim=0).cpu().numpy())
        np.save(out, np.stack(vectors))

    return run


def speechfeat(lines: Path, model: str, device: str, out: Path, dtype: str) -> Callable[[], None]:
    """The whole path of the command, with its store."""
    import speechfeat as sf

    encoder = sf.load_text_encoder(model, "last", device=device, dtype=dtype)
    config = sf.TextConfig(frames=False, keep_special=True, truncate=True)

    def run() -> None:
        extractor = sf.TextExtractor(encoder, config)
        extractor.run(extractor.survey(extractor.discover(lines)), out.with_suffix(""))
        np.save(out, sf.Store(out.with_suffix("")).embeddings()[1])

    return run


def prepare(way: str, lines: Path, model: str, device: str, out: Path) -> Callable[[], None]:
    """Load the model of one way; what is returned is timed."""
    if way == "sentence-transformers":
        return sentence_transformers(lines, model, device, out)
    if way == "plain loop":
        return plain_loop(lines, model, device, out)
    return speechfeat(lines, model, device, out, way.split()[1])


def measure(way: str, lines: Path, options: argparse.Namespace, out: Path) -> float:
    """Seconds of one way, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.text_throughput", str(lines), "-m", options.model]
    command += ["--device", options.device, "--way", way, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def cosine(found: Path, expected: Path) -> float:
    """The smallest between the rows of two files."""
    one, other = np.load(found).astype(np.float64), np.load(expected).astype(np.float64)
    products = (one * other).sum(axis=1)
    return float((products / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_throughput", description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.way:
        run = prepare(options.way, options.texts, options.model, options.device, options.out)
        began = time.perf_counter()
        run()
        print(json.dumps({"seconds": time.perf_counter() - began}))
        return 0
    ways = [way for way in WAYS if way != WAYS[0] or importlib.util.find_spec("sentence_transformers")]
    texts = read(options.texts, options.limit)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "texts.txt").write_text("\n".join(texts))
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds):
            for way, measured in times.items():
                out = folder / f"{way} {turn}.npy"
                measured.append(measure(way, folder / "texts.txt", options, out))
                print(f"round {turn + 1}: {way}: {len(texts) / measured[-1]:.0f} texts/s", file=sys.stderr)
        cosines = {way: cosine(folder / f"{way} 0.npy", folder / f"{ways[0]} 0.npy") for way in ways}
    print(f"{options.model} on {options.device}: {len(texts)} texts, {options.rounds} rounds")
    print(f"{'':22}  texts/s  against {ways[0]}  smallest cosine")
    for way, measured in times.items():
        ratio = statistics.median(one / other for one, other in zip(times[ways[0]], measured, strict=True))
        rate = len(texts) / statistics.median(measured)
        print(f"{way:22}  {rate:7.0f}  {ratio:{8 + len(ways[0])}.2f}  {cosines[way]:.7f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
