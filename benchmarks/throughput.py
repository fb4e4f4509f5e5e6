"""The whole command against the loop that users write today, side by side in one run.

    python -m benchmarks.throughput AUDIO_DIR -m MODEL [--hours 0.25] [--rounds 3] [--device cuda]

Both read the same compressed files and end with the penultimate frames in float16 and their mean on disk. The plain
loop is transformers with a batch of one, `output_hidden_states=True` and `hidden_states[-2]`, soundfile and one file
of numpy arrays a recording. Rounds alternate, so that a machine that is busy for a while is busy for both; the table
shows medians. MODEL is a checkpoint directory, or `random:wav2vec2-base` for random weights of its size, since speed
does not depend on their values.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers

import speechfeat as sf

RANDOM = {
    "wav2vec2-base": (transformers.Wav2Vec2Model, transformers.Wav2Vec2Config()),
    "wavlm-base": (transformers.WavLMModel, transformers.WavLMConfig()),
    "hubert-large": (
        transformers.HubertModel,
        transformers.HubertConfig(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            feat_extract_norm="layer",
            do_stable_layer_norm=True,
        ),
    ),
}


def checkpoint(model: str, folder: Path) -> str:
    """A checkpoint directory, made with random weights if asked for."""
    if not model.startswith("random:"):
        return model
    model_class, config = RANDOM[model.removeprefix("random:")]
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)


def choose(audio: Path, hours: float) -> list[Path]:
    """Recordings of about so many hours, spread evenly over the directory."""
    files = sorted(path for path in audio.rglob("*") if path.suffix in (".opus", ".flac", ".wav", ".ogg", ".mp3"))
    order = np.random.default_rng(0).permutation(len(files))
    chosen, seconds = [], 0.0
    for index in order:
        if seconds >= hours * 3600:
            break
        seconds += soundfile.info(files[index]).duration
        chosen.append(files[index])
    return sorted(chosen)


class PlainLoop:
    """What users write today."""

    def __init__(self, model: str, device: str) -> None:
        self.extractor = transformers.AutoFeatureExtractor.from_pretrained(model)
        loaded = transformers.AutoModel.from_pretrained(model) if not _is_encoder(model) else _encoder(model)
        self.model = loaded.float().eval().to(device)
        self.device = device

    @torch.no_grad()
    def run(self, files: list[Path], out: Path) -> None:
        """Features of every file, one by one."""
        out.mkdir(parents=True)
        rate = self.extractor.sampling_rate
        for number, file in enumerate(files):
            samples, source_rate = soundfile.read(file, dtype="float32")
            assert source_rate == rate, "choose recordings at the model's rate: the loop does not resample"
            inputs = self.extractor(samples, sampling_rate=rate, return_tensors="pt").to(self.device)
            states = self.model(**inputs, output_hidden_states=True).hidden_states[-2][0].cpu().numpy()
            np.savez(out / f"{number}.npz", frames=states.astype(np.float16), embedding=states.mean(axis=0))


def _is_encoder(model: str) -> bool:
    return "WhisperEncoder" in (Path(model) / "config.json").read_text()


def _encoder(model: str) -> transformers.PreTrainedModel:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder.from_pretrained(model)


def ours(encoder: sf.Encoder, files: list[Path], out: Path, listing: Path) -> None:
    """The path of the extract command, without loading the model."""
    listing.write_text("".join(f"{file.resolve()}\n" for file in files))
    extractor = sf.Extractor(encoder)
    extractor.run(extractor.survey(extractor.discover(listing)), out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.splitlines()[0])
    parser.add_argument("audio", type=Path)
    parser.add_argument("-m", "--model", default="random:wav2vec2-base")
    parser.add_argument("--hours", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    files = choose(options.audio, options.hours)
    seconds = sum(soundfile.info(file).duration for file in files)
    with tempfile.TemporaryDirectory() as folder:
        model = checkpoint(options.model, Path(folder) / "model")
        plain = PlainLoop(model, options.device)
        encoders = {
            "speechfeat float32": sf.load_encoder(model, dtype="float32", device=options.device),
            "speechfeat auto": sf.load_encoder(model, device=options.device),
        }
        ways = {"plain loop": lambda out: plain.run(files, out)}
        for name, encoder in encoders.items():
            ways[name] = lambda out, encoder=encoder: ours(encoder, files, out, Path(folder) / "list.txt")
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(options.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                way(Path(folder) / f"{name} {turn}")
                times[name].append(time.perf_counter() - began)
                print(f"round {turn + 1}: {name}: {seconds / times[name][-1]:.1f} x real time", file=sys.stderr)
        errors = relative_errors(encoders, files[:20])
    print(
        f"{options.model} on {options.device}, {len(files)} recordings, {seconds / 3600:.2f} h, {options.rounds} rounds"
    )
    print(f"{'':20}  x real time  against the loop  relative error")
    for name, measured in times.items():
        middle = statistics.median(measured)
        ratio = statistics.median(one / other for one, other in zip(times["plain loop"], measured, strict=True))
        dtype = f" ({encoders[name].dtype})" if name.endswith("auto") else ""
        print(f"{name:20}  {seconds / middle:11.1f}  {ratio:15.2f}x  {errors.get(name, '-')}{dtype}")
    return 0


def relative_errors(encoders: dict[str, sf.Encoder], files: list[Path]) -> dict[str, str]:
    """Root of the mean squared difference from float32, over the standard deviation."""
    paths = [str(file) for file in files]
    exact = encoders["speechfeat float32"].encode(paths)
    found = encoders["speechfeat auto"].encode(paths)
    squares = [
        np.square(one.values - other.values).mean() / other.values.var()
        for one, other in zip(found, exact, strict=True)
    ]
    return {"speechfeat auto": f"{np.sqrt(np.mean(squares)):.1e}"}


if __name__ == "__main__":
    sys.exit(main())
