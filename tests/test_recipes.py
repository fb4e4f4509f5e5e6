"""The recipes, as a user runs them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import speechfeat as sf
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.shared


def distil(shared: Path, out: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, str(REPOSITORY / "recipes" / "distill_encoder.py")),
        *(str(shared / "data" / f"common_voice_{part}.tsv") for part in ("en", "multi")),
        *("-o", str(out), "--teacher", str(shared / "models" / "whisper-tiny.en-encoder"), "--short-window"),
        *("--speaker-vectors", str(shared / "data" / "common_voice_speaker_embeddings.npz"), "--transcripts"),
        *("--limit", "40", "--held-out", "0.3", "--batch-seconds", "20", "--device", "cpu", *options),
    ]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "work" / "state.pt", weights_only=True)["student"]


def test_distilling_for_some_time_ends_with_a_checkpoint_a_picture_and_a_table(shared: Path, tmp_path: Path) -> None:
    result = subprocess.run(distil(shared, tmp_path, "--minutes", "0.2"), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "| block | cosine to teacher | cosine to speaker vector | speaker EER" in result.stdout
    assert "character error rate" in result.stdout
    assert (tmp_path / "losses.png").stat().st_size > 1000
    encoder = sf.load_encoder(tmp_path / "model", device="cpu")
    assert encoder.num_layers == 8


def test_a_killed_distillation_resumes_to_the_same_weights(shared: Path, tmp_path: Path) -> None:
    steps = ("--steps", "6", "--limit", "16", "--checkpoint-minutes", "0")
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(distil(shared, undisturbed, *steps), capture_output=True, check=True)
    command = distil(shared, killed, *steps)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
        until = time.monotonic() + 120
        while not (killed / "work" / "state.pt").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert torch.load(killed / "work" / "state.pt", weights_only=True)["step"] < 6
    subprocess.run(command, capture_output=True, check=True)
    expected, found = weights(undisturbed), weights(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--taps", "2-1"), "--taps '2-1' must be student block:teacher layer"),
        (("--speaker-blocks", "low"), "--speaker-blocks 'low' must be student blocks"),
        (("--held-out", "2"), "held_out=2.0 must be a share of the speakers"),
        (("--speaker-vectors", "nowhere.npz"), "speaker vectors 'nowhere.npz' cannot be read"),
        (("--taps", "9:1"), "the student has no block 9; its blocks are 1 to 8"),
    ],
)
def test_a_mistake_is_one_sentence(options: tuple[str, ...], message: str, shared: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        distil(shared, tmp_path, "--steps", "1", *options), capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert f"error: {message}" in result.stderr
    assert "Traceback" not in result.stderr
