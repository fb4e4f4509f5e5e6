"""Tiny configurations of the encoders with a fixed window, and of the encoders of sequence-to-sequence models."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder
from transformers.models.moonshine_streaming.modeling_moonshine_streaming import MoonshineStreamingEncoder
from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextEncoder
from transformers.models.speecht5.modeling_speecht5 import SpeechT5EncoderWithSpeechPrenet
from transformers.models.voxtral.modeling_voxtral import VoxtralEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tests.families.case import Case, seeded

RATE = 16000
Pair = tuple[np.ndarray, np.ndarray]

# A window of 3 s in place of 30 s: the longest clip of the contract has 2.5 s.
SECONDS = 3
WHISPER = {
    # Wide weights, or the positions would drown what is said.
    "init_std": 0.1,
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "max_source_positions": 50 * SECONDS,
}


def whisper_extractor(num_mel_bins: int = 80) -> Any:
    return transformers.WhisperFeatureExtractor(feature_size=num_mel_bins, chunk_length=SECONDS)


def make_whisper(num_mel_bins: int = 80) -> tuple[Any, Any]:
    config = transformers.WhisperConfig(**WHISPER, num_mel_bins=num_mel_bins)
    return seeded(WhisperEncoder, config), whisper_extractor(num_mel_bins)


VOXTRAL = {
    "initializer_range": 0.1,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_source_positions": 50 * SECONDS,
}


def make_voxtral() -> tuple[Any, Any]:
    return seeded(VoxtralEncoder, transformers.VoxtralEncoderConfig(**VOXTRAL)), whisper_extractor(128)


def whisper_padded(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [states[0] for states in whisper_batch(model, extractor, clips)]


def whisper_single(model: Any, extractor: Any, clip: np.ndarray) -> Pair:
    return whisper_batch(model, extractor, [clip])[0]


def whisper_batch(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> list[Pair]:
    """The stock model on its window, cut to the frames that start within each clip."""
    inputs = extractor(list(clips), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        result = model(inputs.input_features, output_hidden_states=True)
    states = (result.hidden_states[-2], result.last_hidden_state)
    return [
        tuple(state[row, : -(-len(clip) // 320)].numpy() for state in states)  # type: ignore[misc]
        for row, clip in enumerate(clips)
    ]


@torch.no_grad()
def whisper_short_single(model: Any, extractor: Any, clip: np.ndarray) -> Pair:
    """The stock modules on the frames of the clip alone."""
    mel = extractor(clip, sampling_rate=RATE, return_tensors="pt").input_features
    states = torch.nn.functional.gelu(model.conv1(mel[:, :, : -(-len(clip) // 160)]))
    states = torch.nn.functional.gelu(model.conv2(states)).mT
    states = states + model.embed_positions(torch.arange(states.shape[1]))
    for layer in model.layers:
        penultimate, states = states, layer(states, None)
    return penultimate[0].numpy(), model.layer_norm(states)[0].numpy()


MOONSHINE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "encoder_num_hidden_layers": 3,
    "encoder_num_attention_heads": 4,
    "decoder_num_attention_heads": 4,
}


def make_moonshine(**config: Any) -> tuple[Any, Any]:
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    return seeded(MoonshineEncoder, transformers.MoonshineConfig(**MOONSHINE, **config)), extractor


STREAMING = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "sliding_windows": ((16, 4), (16, 4), (16, 0), (4, 4)),
}


def make_moonshine_streaming() -> tuple[Any, Any]:
    # transformers keeps the configuration of the encoder out of its own top level.
    config_class = transformers.MoonshineStreamingConfig().encoder_config.__class__
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    return seeded(MoonshineStreamingEncoder, config_class(**STREAMING)), extractor


def moonshine_streaming_batch(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> Any:
    inputs = extractor(list(clips), sampling_rate=RATE, return_tensors="pt", padding=True, pad_to_multiple_of=80)
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True)


def moonshine_streaming_single(model: Any, extractor: Any, clip: np.ndarray) -> Pair:
    result = moonshine_streaming_batch(model, extractor, [clip])
    return result.hidden_states[-2][0].numpy(), result.last_hidden_state[0].numpy()


def moonshine_streaming_padded(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    states = moonshine_streaming_batch(model, extractor, clips).hidden_states[-2]
    lengths = [len(moonshine_streaming_single(model, extractor, clip)[0]) for clip in clips]
    return [states[row, :length].numpy() for row, length in enumerate(lengths)]


SPEECHT5 = {
    "hidden_size": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "encoder_max_relative_position": 20,
}


def make_speecht5(norm: str) -> tuple[Any, Any]:
    config = transformers.SpeechT5Config(**SPEECHT5, feat_extract_norm=norm)
    extractor = transformers.SpeechT5FeatureExtractor(do_normalize=norm == "layer")
    return seeded(SpeechT5EncoderWithSpeechPrenet, config), extractor


SPEECH_TO_TEXT = {
    "init_std": 0.1,
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "conv_channels": 48,
}


def make_speech_to_text(**config: Any) -> tuple[Any, Any]:
    config = transformers.Speech2TextConfig(**SPEECH_TO_TEXT, **config)
    return seeded(Speech2TextEncoder, config), transformers.Speech2TextFeatureExtractor()


def speech_to_text_single(model: Any, extractor: Any, clip: np.ndarray) -> Pair:
    return waveform_single(model, extractor, clip, "input_features")


def waveform_single(model: Any, extractor: Any, clip: np.ndarray, name: str = "input_values") -> Pair:
    inputs = extractor(clip, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        result = model(inputs[name], output_hidden_states=True)
    return result.hidden_states[-2][0].numpy(), result.last_hidden_state[0].numpy()


def padded(single: Callable[..., Pair], name: str = "input_values") -> Callable[..., list[np.ndarray]]:
    """The stock model on a padded batch with its mask, cut to the frames that each clip has alone."""

    def run(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        inputs = extractor(
            list(clips), sampling_rate=RATE, return_tensors="pt", padding=True, return_attention_mask=True
        )
        with torch.no_grad():
            result = model(inputs[name], attention_mask=inputs.attention_mask, output_hidden_states=True)
        lengths = [len(single(model, extractor, clip)[0]) for clip in clips]
        return [result.hidden_states[-2][row, :length].numpy() for row, length in enumerate(lengths)]

    return run


AST = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_length": 256,
    "num_mel_bins": 64,
}


def make_spectrogram_transformer() -> tuple[Any, Any]:
    model = seeded(transformers.ASTModel, transformers.ASTConfig(**AST))
    # Stock weights start with all positions at zero, which would hide a mix-up of patches.
    torch.nn.init.normal_(model.embeddings.position_embeddings)
    return model, transformers.ASTFeatureExtractor(num_mel_bins=64, max_length=256)


def spectrogram_transformer_single(model: Any, extractor: Any, clip: np.ndarray) -> Pair:
    return spectrogram_transformer_batch(model, extractor, [clip])[0]


def spectrogram_transformer_padded(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [states[0] for states in spectrogram_transformer_batch(model, extractor, clips)]


def spectrogram_transformer_batch(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> list[Pair]:
    """Mean over frequency of the stock patch states, of the times whose patches lie within each clip."""

    def frames(states: Tensor, clip: np.ndarray) -> np.ndarray:
        by_frequency = [chunk.numpy() for chunk in states[2:].chunk((64 - 16) // 10 + 1)]
        num_filters = 1 + (len(clip) - 400) // 160
        return np.mean(by_frequency, axis=0)[: 1 + (num_filters - 16) // 10]

    # A clip below one patch is lengthened to it, as every encoder's shortest input is.
    clips = [np.pad(clip, (0, max(0, 2800 - len(clip)))) for clip in clips]
    inputs = extractor(list(clips), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        result = model(inputs.input_values, output_hidden_states=True)
    # Its hidden states end before the norm.
    states = (result.hidden_states[-2], result.last_hidden_state)
    return [
        tuple(frames(state[row], clip) for state in states)  # type: ignore[misc]
        for row, clip in enumerate(clips)
    ]


CASES = [
    Case("Whisper", make_whisper, whisper_single, whisper_padded),
    Case("Whisper 128 bands", partial(make_whisper, 128), whisper_single, whisper_padded),
    Case("Whisper short window", make_whisper, whisper_short_single, options={"short_window": True}),
    Case("Voxtral", make_voxtral, whisper_single, whisper_padded),
    Case("Voxtral short window", make_voxtral, whisper_short_single, options={"short_window": True}),
    Case("Moonshine", make_moonshine, waveform_single, padded(waveform_single)),
    Case(
        "Moonshine padded heads",
        partial(make_moonshine, pad_head_dim_to_multiple_of=16),
        waveform_single,
        padded(waveform_single),
    ),
    Case("MoonshineStreaming", make_moonshine_streaming, moonshine_streaming_single, moonshine_streaming_padded),
    Case("SpeechT5 group norm", partial(make_speecht5, "group"), waveform_single, padded(waveform_single)),
    Case("SpeechT5 layer norm", partial(make_speecht5, "layer"), waveform_single, padded(waveform_single)),
    Case(
        "Speech2Text",
        make_speech_to_text,
        speech_to_text_single,
        padded(speech_to_text_single, "input_features"),
    ),
    Case(
        "Speech2Text three convolutions",
        partial(make_speech_to_text, num_conv_layers=3, conv_kernel_sizes=(5, 3, 5)),
        speech_to_text_single,
        padded(speech_to_text_single, "input_features"),
    ),
    Case(
        "AudioSpectrogramTransformer",
        make_spectrogram_transformer,
        spectrogram_transformer_single,
        spectrogram_transformer_padded,
    ),
]
