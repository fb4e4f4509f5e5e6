"""Models with random weights: what an architecture costs or gives without training."""

from typing import Any

import torch
import transformers
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechfeat.encoders.catalog import find

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

# name -> model_type, what differs from its default configuration, and from its feature extractor's
SIZES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "wav2vec2-base": ("wav2vec2", {}, {}),
    "wav2vec2-large": ("wav2vec2", LARGE | LAYER_NORM, {"return_attention_mask": True}),
    "wavlm-base": ("wavlm", {}, {}),
    "hubert-large": ("hubert", LARGE | LAYER_NORM, {"return_attention_mask": True}),
    "wav2vec2-conformer-large": (
        "wav2vec2-conformer",
        LARGE | {"position_embeddings_type": "relative", "feat_extract_norm": "layer", "conv_bias": True},
        {"return_attention_mask": True},
    ),
    "w2v-bert-2.0": ("wav2vec2-bert", {}, {}),
    "parakeet-0.6b": ("parakeet_encoder", {}, {}),
    "parakeet-1.1b": ("parakeet_encoder", {"num_hidden_layers": 42}, {}),
    "whisper-tiny": ("whisper", {}, {}),
    "whisper-base": (
        "whisper",
        {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048},
        {},
    ),
    "whisper-large-v3": (
        "whisper",
        {
            "d_model": 1280,
            "encoder_layers": 32,
            "encoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "num_mel_bins": 128,
        },
        {"feature_size": 128},
    ),
}
EXTRACTORS = {
    "wav2vec2-bert": transformers.SeamlessM4TFeatureExtractor,
    "parakeet_encoder": transformers.ParakeetFeatureExtractor,
    "whisper": transformers.WhisperFeatureExtractor,
}


def empty_model(config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    """The encoder of a configuration in float32, with new weights."""
    if config.model_type == "whisper":
        return WhisperEncoder(config).float()
    # A checkpoint in half precision says so in its configuration.
    return transformers.AutoModel.from_config(config, dtype=torch.float32)


def random_model(name: str) -> tuple[transformers.PreTrainedModel, object]:
    """A model with random weights (seed 0) and its feature extractor.

    Args:
        name: one of `SIZES`, a name of the catalogue, or a checkpoint directory, whose weights are not read.
    """
    if name in SIZES:
        model_type, changes, options = SIZES[name]
        config = transformers.AutoConfig.for_model(model_type, **changes)
        extractor: object = EXTRACTORS.get(model_type, transformers.Wav2Vec2FeatureExtractor)(**options)
    else:
        spec = find(name)
        source = spec.source if spec else name
        config = transformers.AutoConfig.from_pretrained(source)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source)
    torch.manual_seed(0)
    return empty_model(config), extractor
