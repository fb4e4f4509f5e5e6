"""The extract command against the loop that users write today, side by side in one run.

    python -m benchmarks.throughput AUDIO_DIR -m MODEL [--hours 0.1] [--rounds 3] [--device cuda]

Both read the same compressed files and leave the penultimate frames in float16 and their mean on disk. The plain loop
is soundfile and transformers with a batch of one, `output_hidden_states=True`, `hidden_states[-2]` and one file of
numpy arrays a recording. Each runs in a process of its own; what is compared is the time from the first read to the
last byte written, without loading the model. Rounds alternate, so that a machine that is busy for a while is busy for
both; the table shows medians. MODEL is a checkpoint directory, or `random:wav2vec2-base` for random weights of its
size, since speed does not depend on their values.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

WAYS = {"plain loop": None, "speechfeat float32": "float32", "speechfeat auto": "auto"}


def make_random(name: str, folder: Path) -> None:
    """A checkpoint directory of random weights."""
    from benchmarks.random_weights import random_model

    model, extractor = random_model(name)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)


def choose(audio: Path, hours: float) -> list[str]:
    """Recordings of about so many hours, drawn from the whole directory."""
    files = sorted(path for path in audio.rglob("*") if path.suffix in (".opus", ".flac", ".wav", ".ogg", ".mp3"))
    chosen, seconds = [], 0.0
    for index in np.random.default_rng(0).permutation(len(files)):
        if seconds >= hours * 3600:
            break
        seconds += soundfile.info(files[index]).duration
        chosen.append(str(files[index].resolve()))
    return sorted(chosen)


def plain_loop(files: list[str], model: str, device: str, out: Path) -> float:
    """What users write today; the seconds it took."""
    import torch
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    extractor = transformers.AutoFeatureExtractor.from_pretrained(model)
    is_whisper = isinstance(extractor, transformers.WhisperFeatureExtractor)
    model_class = WhisperEncoder if is_whisper else transformers.AutoModel
    encoder = model_class.from_pretrained(model, dtype=torch.float32).eval().to(device)
    out.mkdir()
    began = time.perf_counter()
    with torch.no_grad():
        for number, file in enumerate(files):
            samples, rate = soundfile.read(file, dtype="float32")
            inputs = extractor(samples, sampling_rate=rate, return_tensors="pt").to(device)
            states = encoder(**inputs, output_hidden_states=True).hidden_states[-2][0].cpu().numpy()
            np.savez(out / f"{number}.npz", frames=states.astype(np.float16), embedding=states.mean(axis=0))
    return time.perf_counter() - began


def measure(way: str, listing: Path, model: str, device: str, out: Path) -> float:
    """Seconds of one way, in a process of its own."""
    dtype = WAYS[way]
    if dtype is None:
        command = ["benchmarks.throughput", str(listing), "-m", model, "--device", device, "--plain", str(out)]
    else:
        command = ["speechfeat.extract", str(listing), "-m", model, "--device", device, "--dtype", dtype]
        command += ["-o", str(out), "-q", "--json"]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(json.loads(done.stdout)["seconds"])


def relative_error(listing: Path, model: str, device: str) -> str:
    """Of auto dtype: root of the mean squared difference from float32, over the standard deviation."""
    import speechfeat as sf

    paths = listing.read_text().split("\n")[:20]
    exact = sf.load_encoder(model, dtype="float32", device=device).encode(paths)
    encoder = sf.load_encoder(model, device=device)
    pairs = zip(encoder.encode(paths), exact, strict=True)
    squares = [np.square(one.values - other.values).mean() / other.values.var() for one, other in pairs]
    return f"{np.sqrt(np.mean(squares)):.1e} ({encoder.dtype})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.splitlines()[0])
    parser.add_argument("audio", type=Path)
    parser.add_argument("-m", "--model", default="random:wav2vec2-base")
    parser.add_argument("--hours", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.plain:
        files = options.audio.read_text().split()
        print(json.dumps({"seconds": plain_loop(files, options.model, options.device, options.plain)}))
        return 0
    files = choose(options.audio, options.hours)
    seconds = sum(soundfile.info(file).duration for file in files)
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), options.model
        (folder / "list.txt").write_text("\n".join(files))
        if model.startswith("random:"):
            make_random(model.removeprefix("random:"), folder / "model")
            model = str(folder / "model")
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(options.rounds):
            for way, measured in times.items():
                measured.append(measure(way, folder / "list.txt", model, options.device, folder / f"{way} {turn}"))
                print(f"round {turn + 1}: {way}: {seconds / measured[-1]:.1f} x real time", file=sys.stderr)
        error = relative_error(folder / "list.txt", model, options.device)
    print(
        f"{options.model} on {options.device}: {len(files)} recordings, {seconds / 3600:.2f} h, {options.rounds} rounds"
    )
    print(f"{'':18}  x real time  against the loop  relative error")
    for way, measured in times.items():
        ratio = statistics.median(one / other for one, other in zip(times["plain loop"], measured, strict=True))
        shown = error if way == "speechfeat auto" else "-"
        print(f"{way:18}  {seconds / statistics.median(measured):11.1f}  {ratio:15.2f}x  {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
