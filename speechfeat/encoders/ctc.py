"""Encoders with the CTC head that they were trained with: recognisers, whose classes a tokenizer names."""

import copy
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer, PretrainedConfig

from speechfeat.encoders import catalog
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.checkpoint import check_source, load_model, load_part, wrap_model
from speechfeat.encoders.modules import own_copy
from speechfeat.encoders.options import CheckpointOptions
from speechfeat.errors import ModelError, ParameterError

# What transformers calls the head, by architecture.
HEADS = ("ctc_head", "lm_head")
# Their heads take the states after these have been brought back to the frame rate before the blocks.
SQUEEZED = ("sew", "sew-d")


@dataclass(frozen=True)
class Recogniser:
    """An encoder and its CTC head.

    Attributes:
        encoder: that gives its last layer, which the head takes.
        head: `[1, T, D]` -> `[1, T, C]`, on the CPU in float32.
        tokenizer: of transformers, that names the classes.
        blank: the class that stands for nothing.
    """

    encoder: Encoder
    head: nn.Module
    tokenizer: Any
    blank: int

    @torch.inference_mode()
    def emissions(self, states: np.ndarray) -> Tensor:
        """Log probabilities of the classes, `[T, C]` float32.

        Args:
            states: of the last layer, `[T, D]`.
        """
        return self.head(torch.from_numpy(states)[None]).log_softmax(dim=-1)[0]


def load_recogniser(
    source: str | os.PathLike | nn.Module = catalog.DEFAULT_MODEL,
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    feature_extractor: object = None,
    tokenizer: Any = None,
) -> Recogniser:
    """Load an encoder with its CTC head.

    Args:
        source: a catalogue name, a hub id, a checkpoint directory, or a model of transformers in memory with its head,
            which is copied.
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.
        revision: as for `load_encoder`.
        allow_pickle: as for `load_encoder`.
        trust_remote_code: as for `load_encoder`.
        feature_extractor: of a model in memory.
        tokenizer: of a model in memory.

    Raises:
        ModelError: if the source has no CTC head, or one that takes something else than the last layer.
        ParameterError: for a device or dtype that is not there.
    """
    options = CheckpointOptions(revision, allow_pickle, trust_remote_code)
    if isinstance(source, nn.Module):
        name = type(source).__name__
        _check(getattr(source, "config", None), name)
        if tokenizer is None:
            raise ModelError(f"{name} needs its tokenizer to know what its classes are; pass tokenizer=")
        model: Any = own_copy(source)
    else:
        name = os.fspath(source)
        if feature_extractor is not None or tokenizer is not None:
            raise ParameterError(
                f"{name!r} brings its own feature extractor and tokenizer; give them for models in memory"
            )
        model, feature_extractor, tokenizer = _read(name, options)
    head = next((getattr(model, part) for part in HEADS if hasattr(model, part)), None)
    if head is None:
        raise ModelError(f"{name} has no CTC head ({' or '.join(HEADS)}); give one that was trained with CTC")
    # Before the encoder converts what it wraps to its device and dtype.
    head = copy.deepcopy(head).eval().requires_grad_(False).to("cpu", torch.float32)
    backbone = wrap_model(model, feature_extractor, options)
    encoder = Encoder(backbone, name=name, layers="last", device=device, dtype=dtype)
    return Recogniser(encoder, head, tokenizer, model.config.pad_token_id)


def _read(name: str, options: CheckpointOptions) -> tuple[Any, Any, Any]:
    """Model, feature extractor and tokenizer of a checkpoint."""
    spec = catalog.find(name)
    location = spec.source if spec else name
    check_source(location)
    config = load_part(location, "its configuration", AutoConfig, options)
    _check(config, name)
    return (
        load_model(location, AutoModelForCTC._model_mapping[type(config)], config, options),
        load_part(location, "its preprocessor configuration", AutoFeatureExtractor, options),
        load_part(location, "its tokenizer", AutoTokenizer, options),
    )


def _check(config: PretrainedConfig | None, name: str) -> None:
    """Refuse what has no head, before its weights are read.

    Raises:
        ModelError: that says what it is.
    """
    if config is None or not hasattr(config, "model_type"):
        raise ModelError(f"{name} is no model of transformers; give one with a CTC head, or a checkpoint's name")
    made = list(getattr(config, "architectures", None) or [])
    if type(config) not in AutoModelForCTC._model_mapping or (made and not any("ForCTC" in one for one in made)):
        what = made[0] if made else f"{config.model_type!r} model"
        raise ModelError(
            f"{name!r} is a {what}, which has no CTC head; give a checkpoint that was trained with CTC, such as "
            f"{catalog.DEFAULT_MODEL!r}, a Wav2Vec2ForCTC or a ParakeetForCTC"
        )
    if config.model_type in SQUEEZED or getattr(config, "add_adapter", False):
        raise ModelError(
            f"the CTC head of {name!r} ({config.model_type}) takes other frames than those of its last layer; give one "
            "without adapter and squeezing"
        )
