"""The Whisper encoder with its real weights, on real speech."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import load_encoder
from tests.families.case import encode_together
from tests.families.windowed import whisper_short_single, whisper_single

CHECKPOINT = "models/whisper-tiny.en-encoder"
TOLERANCE = 1e-5
# With these weights the library's own float32 is up to 1.3e-5 from float64; other kernels round otherwise.
LIBRARY_TOLERANCE = 3e-5

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def clips(shared: Path) -> list[np.ndarray]:
    paths = sorted((shared / "data" / "emodb").rglob("*.flac"))[::150][:3]
    samples = [soundfile.read(path, dtype="float32") for path in paths]
    assert {rate for _, rate in samples} == {16000}
    return [clip for clip, _ in samples]


@pytest.fixture(scope="module")
def stock(shared: Path) -> tuple[Any, Any]:
    model = WhisperEncoder.from_pretrained(shared / CHECKPOINT, dtype=torch.float32).eval()
    return model, transformers.WhisperFeatureExtractor.from_pretrained(shared / CHECKPOINT)


@pytest.fixture(scope="module", params=[False, True], ids=["window of 30 s", "short window"])
def encoder(shared: Path, request: pytest.FixtureRequest) -> Encoder:
    layers = ["penultimate", "last"]
    return load_encoder(str(shared / CHECKPOINT), layers, device="cpu", dtype="float32", short_window=request.param)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / expected.std())


def test_equals_transformers(encoder: Encoder, stock: tuple[Any, Any], clips: list[np.ndarray]) -> None:
    single = whisper_short_single if encoder.backbone.exact_frames else whisper_single
    for clip in clips:
        (found,) = encode_together(encoder, [clip])
        for layer, expected in enumerate(single(*stock, clip)):
            assert error(found[layer], expected) < LIBRARY_TOLERANCE


def test_alone_equals_batched(encoder: Encoder, clips: list[np.ndarray]) -> None:
    for clip, together in zip(clips, encode_together(encoder, clips), strict=True):
        (alone,) = encode_together(encoder, [clip])
        for layer in range(2):
            assert error(together[layer], alone[layer]) < TOLERANCE


def test_the_longest_window_and_the_shortest_utterance(encoder: Encoder, stock: tuple[Any, Any]) -> None:
    rng = np.random.default_rng(0)
    single = whisper_short_single if encoder.backbone.exact_frames else whisper_single
    for count in (1, 479_800, 479_999, 480_000):
        clip = (0.1 * rng.standard_normal(count)).astype(np.float32)
        (found,) = encode_together(encoder, [clip])
        # On noise the library's float32 of the last layer is up to 2.4e-3 from float64: there is nothing to equal.
        penultimate, last = single(*stock, clip)
        assert error(found[0], penultimate) < LIBRARY_TOLERANCE
        assert found[1].shape == last.shape
