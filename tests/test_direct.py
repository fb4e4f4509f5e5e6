"""Checkpoints that are opened without transformers give what they give with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LasrFeatureExtractor, ParakeetCTCConfig, ParakeetEncoder, ParakeetForCTC, PreTrainedModel

from speechfeat.encoders import checkpoint, compiling
from speechfeat.encoders.catalog import EMBEDDED
from speechfeat.encoders.conformer_backbone import FastConformerBackbone
from speechfeat.encoders.direct import open_directly
from speechfeat.encoders.loading import load_encoder
from speechfeat.encoders.log_mel import mel_filters
from speechfeat.encoders.options import CheckpointOptions
from speechfeat.errors import ModelError
from tests.families.case import encode_together, speech_like

LENGTHS = (16000, 9000, 401, 23456)
SIZES = {
    **{"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "num_key_value_heads": 3},
    **{"intermediate_size": 40, "conv_kernel_size": 5, "num_mel_bins": 80},
    **{"subsampling_factor": 4, "subsampling_conv_channels": 8, "scale_input": False},
    **{"dropout": 0.0, "activation_dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0},
}
OTHER_SIZES = {"subsampling_factor": 8, "attention_bias": False, "convolution_bias": False, "conv_kernel_size": 9}


def random_model(**changes: object) -> ParakeetForCTC:
    """A recogniser whose weights, biases and statistics of batch norms are all random."""
    torch.manual_seed(0)
    model = ParakeetForCTC(ParakeetCTCConfig(vocab_size=6, encoder_config={**SIZES, **changes}))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.normal_(0, 0.2)
            if name.endswith(("running_var", "weight")) and value.ndim == 1:
                value.abs_().add_(0.5)
    return model


def save(model: PreTrainedModel, path: Path) -> Path:
    """A checkpoint with the extractor of the embedded encoder."""
    model.save_pretrained(path)
    LasrFeatureExtractor(feature_size=80).save_pretrained(path)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(random_model(), tmp_path / "saved")


def open_both(path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str = "float32") -> tuple:
    """The encoder of a checkpoint opened directly, and by transformers."""
    directly = load_encoder(path, "all", device="cpu", dtype=dtype)
    with monkeypatch.context() as patched:
        patched.setattr("speechfeat.encoders.direct.open_directly", lambda _source: None)
        stock = load_encoder(path, "all", device="cpu", dtype=dtype)
    assert isinstance(stock.backbone.module, ParakeetEncoder) and not isinstance(
        directly.backbone.module, ParakeetEncoder
    )
    return directly, stock


@pytest.mark.parametrize("way", ["as it is", "fused", "for a GPU"])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("changes", [{}, OTHER_SIZES], ids=["sizes", "other sizes"])
def test_the_same_features_weights_and_description(
    changes: dict, whole: bool, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speechfeat.encoders.conformer_backbone.prefers_onednn", lambda *_: way == "fused")
    if way == "for a GPU":
        monkeypatch.setattr(compiling, "_is_off", True)
        monkeypatch.setattr(FastConformerBackbone, "accelerate", lambda self, _device: self._compile())
    model = random_model(**changes)
    directly, stock = open_both(save(model if whole else model.encoder, tmp_path), monkeypatch)
    assert directly.weights == stock.weights and directly.describe() == stock.describe()
    clips = speech_like(*LENGTHS)
    for found, expected in zip(encode_together(directly, clips), encode_together(stock, clips), strict=True):
        assert np.abs(found - expected).max() < 1e-5


def test_the_embedded_encoder_is_the_one_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in ("float32", "bfloat16"):
        directly, stock = open_both(EMBEDDED / "conformer-s", monkeypatch, dtype)
        assert directly.weights == stock.weights and directly.describe() == stock.describe()
        clips = speech_like(*LENGTHS)
        for found, expected in zip(encode_together(directly, clips), encode_together(stock, clips), strict=True):
            assert np.abs(found - expected).max() < 1e-5


def test_gradients_are_the_same(saved: Path) -> None:
    stock, own = random_model().encoder.train(), open_directly(str(saved))
    assert own is not None
    module = own.module.train()
    inputs, mask = torch.randn(2, 60, 80), torch.ones(2, 60, dtype=torch.long)
    mask[1, 40:] = 0
    states = []
    for one in (module, stock):
        found = one(inputs, attention_mask=mask)
        states.append(getattr(found, "last_hidden_state", found)[:, :10])
        states[-1].square().sum().backward()
    assert torch.allclose(*states, atol=1e-5)
    expected = dict(stock.named_parameters())
    for name, value in module.named_parameters():
        assert torch.allclose(value.grad, expected[name].grad, rtol=1e-3, atol=1e-4), name


def test_filters_are_those_of_the_extractor() -> None:
    for bands in (64, 80, 128):
        expected = LasrFeatureExtractor(feature_size=bands).mel_filters.numpy()
        assert np.abs(mel_filters(bands, 512, 16000) - expected).max() < 1e-12


def _change(name: str, *, whole: bool = False, **values: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        config = json.loads((path / name).read_text())
        (config if whole else config.get("encoder_config", config)).update(values)
        (path / name).write_text(json.dumps(config))

    return change


def _drop_weight(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    del weights["encoder.layers.1.norm_out.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [
        _change("config.json", scale_input=True),
        _change("config.json", hidden_act="gelu"),
        _change("config.json", attention_dropout=0.1),
        _change("config.json", sliding_window=8),
        _change("preprocessor_config.json", feature_extractor_type="ParakeetFeatureExtractor"),
        _change("preprocessor_config.json", max_audio_clip_s=30),
        _change("config.json", whole=True, auto_map={"AutoModel": "code.Model"}),
        _drop_weight,
        lambda path: (path / "model.safetensors").write_bytes(b"torn"),
        lambda path: (path / "config.json").write_text("[]"),
        shutil.rmtree,
    ],
)
def test_what_is_not_known_is_left_to_transformers(change: Callable[[Path], None], saved: Path) -> None:
    assert open_directly(str(saved)) is not None
    change(saved)
    assert open_directly(str(saved)) is None


def test_a_torn_checkpoint_says_what_is_missing(saved: Path) -> None:
    _drop_weight(saved)
    with pytest.raises(ModelError, match=r"misses.*layers\.1\.norm_out\.weight"):
        load_encoder(saved)


def test_another_scale_of_inputs_is_heard(saved: Path) -> None:
    clip = speech_like(16000)[0]
    plain = load_encoder(saved, device="cpu", dtype="float32").encode([clip])[0].values
    _change("config.json", scale_input=True)(saved)
    scaled = load_encoder(saved, device="cpu", dtype="float32")
    assert isinstance(scaled.backbone.module, ParakeetEncoder)
    assert np.abs(scaled.encode([clip])[0].values - plain).max() > 0.01


def test_every_family_is_opened_by_transformers_when_it_is_asked(saved: Path) -> None:
    family, _, _ = checkpoint.read_checkpoint(str(saved), CheckpointOptions())
    assert family.__name__ == "speechfeat.encoders.parakeet"
