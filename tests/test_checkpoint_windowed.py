"""Whole sequence-to-sequence models and classifiers load as their encoder, from a directory and from memory."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from speechfeat.encoders.loading import load_encoder
from speechfeat.errors import ModelError
from tests.families import windowed
from tests.families.case import encode_together, seeded, speech_like

DECODER = {"vocab_size": 20, "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 16}
TOKENS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
SAMPLES = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)


def whisper(name: str) -> tuple[Any, Any]:
    config = transformers.WhisperConfig(**windowed.WHISPER, **DECODER, **TOKENS)
    return seeded(getattr(transformers, name), config), windowed.whisper_extractor()


def voxtral() -> tuple[Any, Any]:
    text = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 20}
    config = transformers.VoxtralConfig(
        audio_config=windowed.VOXTRAL | {"model_type": "voxtral_encoder"}, text_config=text, audio_token_id=4
    )
    return seeded(transformers.VoxtralForConditionalGeneration, config), windowed.whisper_extractor(128)


def moonshine() -> tuple[Any, Any]:
    config = transformers.MoonshineConfig(**windowed.MOONSHINE, decoder_num_hidden_layers=1, vocab_size=20)
    return seeded(transformers.MoonshineForConditionalGeneration, config), SAMPLES


def moonshine_streaming() -> tuple[Any, Any]:
    config = transformers.MoonshineStreamingConfig(
        encoder_config=windowed.STREAMING | {"model_type": "moonshine_streaming_encoder"},
        vocab_size=20,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    return seeded(transformers.MoonshineStreamingForConditionalGeneration, config), SAMPLES


def speech_to_text() -> tuple[Any, Any]:
    config = transformers.Speech2TextConfig(**windowed.SPEECH_TO_TEXT, **DECODER, **TOKENS)
    return seeded(transformers.Speech2TextForConditionalGeneration, config), transformers.Speech2TextFeatureExtractor()


def speecht5() -> tuple[Any, Any]:
    config = transformers.SpeechT5Config(**windowed.SPEECHT5, **DECODER, **TOKENS)
    return seeded(transformers.SpeechT5ForSpeechToText, config), transformers.SpeechT5FeatureExtractor()


def spectrogram_transformer() -> tuple[Any, Any]:
    model = seeded(transformers.ASTForAudioClassification, transformers.ASTConfig(**windowed.AST, num_labels=4))
    return model, transformers.ASTFeatureExtractor(num_mel_bins=64, max_length=256)


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "Whisper": lambda: whisper("WhisperModel"),
    "Whisper generation": lambda: whisper("WhisperForConditionalGeneration"),
    "Whisper classification": lambda: whisper("WhisperForAudioClassification"),
    "Voxtral": voxtral,
    "Moonshine": moonshine,
    "Moonshine streaming": moonshine_streaming,
    "Speech2Text": speech_to_text,
    "SpeechT5": speecht5,
    "AST classification": spectrogram_transformer,
}


@pytest.fixture(params=MODELS)
def make(request: pytest.FixtureRequest) -> Callable[[], tuple[Any, Any]]:
    return MODELS[request.param]


def save(make: Callable[[], tuple[Any, Any]], folder: Path) -> Path:
    for part in make():
        part.save_pretrained(folder)
    return folder


def features(source: Any, **options: Any) -> np.ndarray:
    encoder = load_encoder(source, ["penultimate", "last"], device="cpu", dtype="float32", **options)
    (clip,) = speech_like(9000)
    return encoder.encode_prepared([encoder.prepare(clip)], [len(clip)])[0]


def test_a_directory_gives_what_memory_gives(make: Callable, tmp_path: Path) -> None:
    model, extractor = make()
    from_memory = features(model, feature_extractor=extractor)
    np.testing.assert_allclose(features(str(save(make, tmp_path))), from_memory, atol=1e-6)


def test_the_decoder_does_not_stay(make: Callable, tmp_path: Path) -> None:
    encoder = load_encoder(str(save(make, tmp_path)), "last", device="cpu", dtype="float32")
    names = [name for name, _ in encoder.backbone.module.named_parameters()]
    assert not [name for name in names if "decoder" in name or "language" in name or "classifier" in name]


def test_silence_gives_numbers(make: Callable) -> None:
    model, extractor = make()
    encoder = load_encoder(model, "last", device="cpu", dtype="float32", feature_extractor=extractor)
    clips = [np.zeros(9000, np.float32), *speech_like(12000)]
    for values in encode_together(encoder, clips):
        assert np.isfinite(values).all()


def test_a_missing_weight_is_an_error(make: Callable, tmp_path: Path) -> None:
    path = save(make, tmp_path) / "model.safetensors"
    weights = load_file(path)
    # Saved under "layer" by some and "layers" by others, whatever the module is called.
    lost = next(name for name in sorted(weights) if re.search(r"layers?\.1\.", name) and "decoder" not in name)
    del weights[lost]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="misses weights"):
        features(str(tmp_path))


def test_preprocessing_of_another_model_is_an_error(tmp_path: Path) -> None:
    model, _ = windowed.make_whisper(80)
    with pytest.raises(ModelError, match="different checkpoints"):
        features(model, feature_extractor=windowed.whisper_extractor(128))
    with pytest.raises(ModelError, match="needs a WhisperFeatureExtractor"):
        features(model, feature_extractor=SAMPLES)


def test_a_decoder_alone_is_an_error() -> None:
    model, extractor = whisper("WhisperForCausalLM")
    with pytest.raises(ModelError, match="no audio encoder"):
        features(model, feature_extractor=extractor)
