"""torchaudio's bundles by name, without a download."""

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from torch import nn
from torchaudio import models, pipelines

from speechfeat.encoders.bundles import convert, wrap
from speechfeat.encoders.loading import load_encoder
from speechfeat.encoders.torchaudio_models import MelFrontEnd
from speechfeat.errors import ModelError
from tests.families.case import encode_together, speech_like
from tests.families.torchaudio_family import make_emformer, make_waveform, single_waveform, waveform_model

load = partial(load_encoder, device="cpu", dtype="float32")


def encode(encoder: Any, clip: np.ndarray) -> np.ndarray:
    return encoder.encode_prepared([encoder.prepare(clip)], [len(clip)])[0]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / expected.std())


def offline(*_args: Any, **_options: Any) -> None:
    raise OSError("no network here")


@pytest.mark.parametrize("normalize", [False, True])
def test_a_bundle_is_what_torchaudio_makes_of_it(monkeypatch: pytest.MonkeyPatch, normalize: bool) -> None:
    asked = {}

    def get_model(_bundle: Any, *, dl_kwargs: dict) -> nn.Module:
        asked.update(dl_kwargs)
        return make_waveform("wav2vec2", True, normalize)[0]

    monkeypatch.setattr(pipelines.Wav2Vec2Bundle, "get_model", get_model)
    encoder = load("torchaudio:WAV2VEC2_BASE")
    (clip,) = speech_like(16000)
    expected, _ = single_waveform(make_waveform("wav2vec2", True, normalize)[0], None, clip)
    assert error(encode(encoder, clip)[0], expected) < 1e-5
    assert encoder.name == "torchaudio:WAV2VEC2_BASE"
    assert asked["weights_only"], "a pickle must not run code"


def test_the_rnnt_bundle_brings_its_own_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    stats = tmp_path / "stats.json"
    stats.write_text(json.dumps({"mean": [10.0] * 80, "invstddev": [0.25] * 80}))
    monkeypatch.setattr(torchaudio.utils, "_download_asset", lambda *_args, **_options: stats)
    decoder = SimpleNamespace(model=make_emformer()[0])
    monkeypatch.setattr(pipelines.RNNTBundle, "get_decoder", lambda _bundle: decoder)
    encoder = load("torchaudio:EMFORMER_RNNT_BASE_LIBRISPEECH", "last")

    (clip,) = speech_like(16000)
    transcriber = make_emformer()[0].transcriber
    states = []
    transcriber.transformer.register_forward_hook(lambda _module, _args, output: states.append(output[0]))
    features, length = pipelines.EMFORMER_RNNT_BASE_LIBRISPEECH.get_feature_extractor()(torch.from_numpy(clip))
    with torch.no_grad():
        transcriber(features[None], length)
    assert error(encode(encoder, clip)[0], states[0][0].numpy()) < 1e-5


@pytest.mark.parametrize("asset", ["get_model", "get_decoder"])
def test_a_failing_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch, asset: str) -> None:
    monkeypatch.setattr(torchaudio.utils, "_download_asset", offline)
    monkeypatch.setattr(pipelines.Wav2Vec2Bundle, "get_model", offline)
    name = "HUBERT_BASE" if asset == "get_model" else "EMFORMER_RNNT_BASE_LIBRISPEECH"
    with pytest.raises(ModelError, match=rf"weights of torchaudio's {name} .*no network here.*connection"):
        load(f"torchaudio:{name}")


def test_an_unknown_bundle_names_those_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.Wav2Vec2Bundle, "get_model", offline)
    with pytest.raises(ModelError, match=r"did you mean 'torchaudio:WAVLM_BASE_PLUS'.*HUBERT_BASE"):
        load("torchaudio:wavlm_base_pls")


@pytest.mark.parametrize("head", ["ctc", "pretraining"])
def test_a_head_is_left_behind(head: str) -> None:
    torch.manual_seed(0)
    model = waveform_model("wav2vec2", True)
    expected = convert(model).state_dict()
    if head == "ctc":
        model.aux = nn.Linear(32, 5)
        wrapped = wrap(model, None)
    else:
        wrapped = wrap(models.HuBERTPretrainModel(model, nn.Identity(), nn.Identity(), None), None)
    found = wrapped.module.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_log_mel_is_that_of_torchaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    stats = tmp_path / "stats.json"
    stats.write_text(json.dumps({"mean": [0.0] * 80, "invstddev": [1.0] * 80}))
    monkeypatch.setattr(torchaudio.utils, "_download_asset", lambda *_args, **_options: stats)
    extract = pipelines.EMFORMER_RNNT_BASE_LIBRISPEECH.get_streaming_feature_extractor()
    for clip in speech_like(201, 4321):
        clip[:100] *= 1e-6
        expected = extract(torch.from_numpy(clip))[0].numpy()
        np.testing.assert_allclose(MelFrontEnd().prepare(clip), expected, rtol=1e-5, atol=1e-5)


def test_another_model_of_torchaudio_is_refused() -> None:
    with pytest.raises(ModelError, match="Wav2Letter of torchaudio is no encoder known here"):
        load(models.Wav2Letter())


def test_a_front_end_of_ones_own() -> None:
    class Doubled:
        def __init__(self) -> None:
            self.grid = load("logmel").grid

        def prepare(self, samples: np.ndarray) -> np.ndarray:
            return np.full((self.grid.num_frames(len(samples)), 16), samples.mean(), np.float32)

    encoder = load(models.Conformer(16, 4, 32, 2, 7), feature_extractor=Doubled())
    (clip,) = speech_like(8000)
    assert encode(encoder, clip).shape == (1, encoder.grid.num_frames(8000), 16)


@pytest.mark.parametrize("make", [make_emformer, partial(make_waveform, "wavlm", False, False)])
def test_half_precision_runs(make: Any) -> None:
    encoder = load_encoder(make()[0], "all", device="cpu", dtype="bfloat16")
    clips = speech_like(16000, 9000)
    found = encode_together(encoder, clips)
    assert all(np.isfinite(values).all() for values in found)
