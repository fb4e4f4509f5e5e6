"""Checkpoints with heads and decoders load as the encoder inside them."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import transformers

from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import load_encoder
from speechfeat.encoders.w2v_bert import BLOCK, HOP, filter_banks
from speechfeat.errors import ModelError
from tests.families.case import speech_like
from tests.families.spectral import ROWS, Row, make

WITH_HEAD = [row for row in ROWS if row.encoder]


@pytest.fixture(params=WITH_HEAD, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


def save(row: Row, path: Path) -> None:
    model, extractor = make(row)
    model.save_pretrained(path)
    extractor.save_pretrained(path)


def encode(encoder: Encoder) -> np.ndarray:
    (clip,) = speech_like(20000)
    return encoder.encode_prepared([encoder.prepare(clip)], [len(clip)])[0]


def test_a_saved_model_with_head_gives_the_features_of_the_one_in_memory(row: Row, tmp_path: Path) -> None:
    save(row, tmp_path)
    model, extractor = make(row)
    saved = load_encoder(str(tmp_path), "all", device="cpu", dtype="float32")
    memory = load_encoder(model, "all", device="cpu", dtype="float32", feature_extractor=extractor)
    assert saved.weights == memory.weights
    assert np.array_equal(encode(saved), encode(memory))
    names = [name for name, _ in saved.backbone.module.named_parameters()]
    assert not any("decoder" in name or "head" in name or "adapter" in name for name in names)


def test_a_missing_weight_of_the_encoder_is_an_error(row: Row, tmp_path: Path) -> None:
    save(row, tmp_path)
    path = tmp_path / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    lost = next(name for name in weights if "layers.1." in name and "conv" in name and "encoder" in name)
    del weights[lost]
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="misses weights"):
        load_encoder(str(tmp_path), device="cpu")


def test_half_precision_stays_near(row: Row) -> None:
    model, extractor = make(row)
    exact = encode(load_encoder(model, "last", device="cpu", dtype="float32", feature_extractor=extractor))
    model, extractor = make(row)
    half = encode(load_encoder(model, "last", device="cpu", dtype="bfloat16", feature_extractor=extractor))
    assert np.abs(half - exact).mean() / exact.std() < 0.1


def test_filter_banks_are_those_of_the_extractor_across_blocks() -> None:
    extractor = transformers.SeamlessM4TFeatureExtractor()
    (clip,) = speech_like(HOP * (BLOCK + 50) + 7)
    found = filter_banks(clip, extractor.window, extractor.mel_filters)
    assert np.abs(found - extractor._extract_fbank_features(clip)).max() < 1e-5
