"""The benchmarks run, for a tiny checkpoint and through their command lines, and count operations right."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechfeat as sf
from benchmarks.limits import operations
from benchmarks.rivals import WAYS, available, missing_packages
from benchmarks.throughput import OURS

REPOSITORY = Path(__file__).resolve().parents[1]


def run(*arguments: object) -> str:
    command = [sys.executable, "-m", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("way", ["plain loop", "padded batches of 8"])
def test_a_rival_leaves_frames_and_their_mean(checkpoint: Path, corpus: Path, tmp_path: Path, way: str) -> None:
    files = sorted(corpus.rglob("*.flac"))[:3]
    (tmp_path / "list.txt").write_text("\n".join(map(str, files)))
    told = json.loads(run("benchmarks.rivals", way, tmp_path / "list.txt", "-m", checkpoint, "-o", tmp_path / "out"))
    assert 0 < told["encoding"] <= told["seconds"] and told["memory"] > 0
    for file in files:
        found = np.load(tmp_path / "out" / f"{file.stem}.npz")
        assert found["frames"].shape[1:] == found["embedding"].shape == (32,)
        np.testing.assert_allclose(found["frames"].mean(axis=0, dtype=np.float32), found["embedding"], atol=1e-2)


def test_each_format_has_a_table_with_a_row_for_each_way(checkpoint: Path, corpus: Path) -> None:
    shown = ("plain loop", "speechfeat float32", "speechfeat auto")
    without = [way for way in (*available("wav2vec2"), *OURS) if way not in shown]
    options = [part for way in without for part in ("--without", way)]
    amount = ("--hours", 0.001, "--rounds", 1, "--mix", "keywords", "--format", "flac", "--format", "opus")
    told = run("benchmarks.throughput", corpus, "-m", checkpoint, *amount, *options)
    for way in shown:
        rows = [line for line in told.splitlines() if line.startswith(way)]
        assert len(rows) == 2
        assert all(float(row.removeprefix(way).split()[0]) > 0 for row in rows)
    for package in missing_packages():
        assert package in told


@pytest.mark.parametrize("name", ["logmel", "mfcc"])
def test_classical_rivals_give_the_same_features(name: str, corpus: Path, tmp_path: Path) -> None:
    files = sorted(corpus.rglob("*.flac"))[:2]
    samples = [soundfile.read(file, dtype="float32")[0] for file in files]
    expected = sf.load_encoder(name).encode(samples)
    for way, tolerance in (("librosa loop", 1e-3), ("torchaudio transforms", None)):
        encode, size = WAYS[way].make(name, "cpu")
        assert size == 1 and way in available(name) and way not in available("wav2vec2")
        for one, frames in zip(samples, expected, strict=True):
            (found,) = encode([one])
            assert found.shape == frames.values.shape
            # torchaudio's filters are others.
            assert tolerance is None or np.abs(found - frames.values).max() < tolerance


def test_operations_are_those_counted_by_hand(checkpoint: Path) -> None:
    length, channels, convolutions = 16000, 1, 0
    for kernel, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        length = (length - kernel) // stride + 1
        convolutions += 2 * length * 16 * channels * kernel
        channels = 16
    frames, dim, wide = length, 32, 64
    projection = 2 * frames * 16 * dim
    # 16 taps in 4 groups, and one frame that is cut off again.
    positions = 2 * (frames + 1) * dim * (dim // 4) * 16
    block = 4 * 2 * frames * dim * dim + 2 * 2 * frames * dim * wide + 2 * 2 * frames * frames * dim
    # Three blocks; the last is not needed for the penultimate layer.
    assert operations(str(checkpoint), 1.0) == convolutions + projection + positions + 2 * block
