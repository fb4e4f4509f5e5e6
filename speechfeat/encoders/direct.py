"""Opening a checkpoint without transformers, where all that it asks for is here.

What comes with the package is, and what its recipes distil and tune of it. Of anything else nothing is said here:
`speechfeat.encoders.checkpoint` opens it, or says what is wrong with it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from speechfeat.encoders.conformer_backbone import FastConformerBackbone
from speechfeat.encoders.fast_conformer import FastConformer, Sizes
from speechfeat.encoders.log_mel import LasrLogMel

# What a configuration says where its model is not simply these weights.
ELSEWHERE = ("auto_map", "quantization_config")
# Model type of a configuration -> what the encoder's weights begin with, and where its own configuration stands.
PREFIXES = {"parakeet_encoder": ("", None), "parakeet_ctc": ("encoder.", "encoder_config")}
EXTRACTOR = "LasrFeatureExtractor"
EXTRACTOR_SIZES = ("sampling_rate", "n_fft", "win_length", "hop_length", "feature_size")
# What an extractor says beside: of batches, which are not made by it.
EXTRACTOR_UNUSED = (
    "feature_extractor_type",
    "processor_class",
    "return_attention_mask",
    "padding_side",
    "padding_value",
)


def open_directly(source: str) -> FastConformerBackbone | None:
    """The backbone of a checkpoint directory, or None if transformers has to open it."""
    directory = Path(source)
    try:
        config = json.loads((directory / "config.json").read_bytes())
        prefix, part = PREFIXES[config["model_type"]]
        sizes = Sizes.read(config[part] if part else config)
        log_mel = _read_log_mel(json.loads((directory / "preprocessor_config.json").read_bytes()))
        if sizes is None or log_mel is None or any(name in config for name in ELSEWHERE):
            return None
        weights = load_file(directory / "model.safetensors")
        encoder = _load(
            sizes, {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError):
        return None
    return FastConformerBackbone(encoder, log_mel, is_parakeet=True)


def _load(sizes: Sizes, weights: dict[str, torch.Tensor]) -> FastConformer:
    """An encoder of these weights, in float32, as all checkpoints are opened.

    Raises:
        RuntimeError: if some are missing, left over or of another shape.
    """
    with torch.device("meta"):
        encoder = FastConformer(sizes)
    floats = {name: one.float() if one.is_floating_point() else one for name, one in weights.items()}
    encoder.load_state_dict(floats, assign=True)
    return encoder


def _read_log_mel(config: dict[str, Any]) -> LasrLogMel | None:
    if config.get("feature_extractor_type") != EXTRACTOR or config.keys() - {*EXTRACTOR_SIZES, *EXTRACTOR_UNUSED}:
        return None
    return LasrLogMel(*(config[name] for name in EXTRACTOR_SIZES))
