"""From a name, a path or a model in memory to a `TextEncoder`."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import cached_file

from speechfeat.encoders import catalog
from speechfeat.encoders.checkpoint import check_source, load_model, load_part
from speechfeat.encoders.modules import own_copy
from speechfeat.encoders.options import CheckpointOptions
from speechfeat.encoders.text import TextBackbone, TextEncoder
from speechfeat.encoders.text_families import find_text_family, model_class, text_tower
from speechfeat.encoders.tokenizing import TextTokenizer
from speechfeat.errors import ModelError, ParameterError
from speechfeat.layers import Layers

# Of sentence-transformers: it holds the length that a model was trained on, which is often below its positions.
SENTENCE_CONFIG = "sentence_bert_config.json"


def load_text_encoder(
    source: str | os.PathLike | nn.Module,
    layers: Layers = "penultimate",
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    tokenizer: Any = None,
) -> TextEncoder:
    """Load an encoder of texts.

    Args:
        source: a name of the catalogue of text encoders, a hub id, a checkpoint directory, or a model of transformers
            in memory, with or without a head, which is copied.
        layers: "penultimate", "last", "all", a number, or several; see `speechfeat.layers`.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 where the device is fast in it, else float32), "float32", "bfloat16", "float16".
        revision: branch, tag or commit on the hub.
        allow_pickle: take pickled weights where there are no safetensors.
        trust_remote_code: run the checkpoint's own Python code.
        tokenizer: of a model in memory.

    Raises:
        ModelError: if the source cannot serve as an encoder of texts.
        ParameterError: for a layer, device or dtype that is not there.
    """
    options = CheckpointOptions(revision, allow_pickle, trust_remote_code)
    if isinstance(source, nn.Module):
        backbone, name = _wrap(source, tokenizer), type(source).__name__
    else:
        name = os.fspath(source)
        if tokenizer is not None:
            raise ParameterError(f"{name!r} brings its own tokenizer; tokenizer= is for models in memory")
        backbone = _open(name, options)
    return TextEncoder(backbone, name=name, layers=layers, device=device, dtype=dtype)


def as_text_encoder(
    source: str | os.PathLike | nn.Module | TextEncoder,
    layers: Layers = "penultimate",
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    **options: Any,
) -> TextEncoder:
    """An encoder of texts as it is, or what `load_text_encoder` makes of anything else.

    Raises:
        ParameterError: if an encoder is given other layers, device or dtype than its own.
    """
    if not isinstance(source, TextEncoder):
        return load_text_encoder(source, layers, device=device, dtype=dtype, **options)
    if options or (str(layers), str(device), dtype) != ("penultimate", "auto", "auto"):
        raise ParameterError(
            f"the encoder {source.name} is loaded with its layers, device, dtype and options already; "
            "give them to load_text_encoder instead"
        )
    return source


def _open(source: str, options: CheckpointOptions) -> TextBackbone:
    spec = catalog.TEXT.find(source)
    location = spec.source if spec else source
    check_source(location, catalog.TEXT)
    config = load_part(location, "its configuration", AutoConfig, options)
    family = find_text_family(config, source)
    if family.part:
        config = getattr(config, family.part)
    model = load_model(location, model_class(family, config), config, options, family.key_mapping)
    tokenizer = load_part(location, "its tokenizer", AutoTokenizer, options)
    return TextBackbone(model, family, TextTokenizer(tokenizer), _sentence_length(location, options))


def _sentence_length(location: str, options: CheckpointOptions) -> int | None:
    """Tokens of an input, special ones included, that sentence-transformers cuts a text to; None where it does not."""
    try:
        file = cached_file(location, SENTENCE_CONFIG, revision=options.revision)
    except OSError:  # most checkpoints have none
        return None
    try:
        length = json.loads(Path(str(file)).read_bytes()).get("max_seq_length")
    except (OSError, ValueError, AttributeError):
        raise ModelError(f"{location!r}: {SENTENCE_CONFIG} is no JSON object; mend it, or take it away") from None
    if length is not None and (not isinstance(length, int) or length < 1):
        raise ModelError(f"{location!r}: max_seq_length={length!r} in {SENTENCE_CONFIG} must be a number above 0")
    return length


def _wrap(model: nn.Module, tokenizer: Any) -> TextBackbone:
    config = getattr(model, "config", None)
    if not hasattr(config, "model_type"):
        raise ModelError(f"{type(model).__name__} is no model of transformers; give one, or a checkpoint's name")
    family = find_text_family(config, type(model).__name__)
    if tokenizer is None:
        raise ModelError(
            f"{type(model).__name__} needs its tokenizer to know what texts are to it; "
            "pass tokenizer=AutoTokenizer.from_pretrained(...)"
        )
    return TextBackbone(text_tower(own_copy(model), family), family, TextTokenizer(tokenizer))
