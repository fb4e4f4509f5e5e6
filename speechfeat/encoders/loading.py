"""From a name, a path or a module to an `Encoder`."""

import importlib
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from speechfeat.encoders import catalog
from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.modules import own_copy
from speechfeat.encoders.options import CheckpointOptions
from speechfeat.errors import ModelError, ParameterError
from speechfeat.layers import Layers

# Modules of speechfeat.encoders for checkpoints: that for what is known here, and that for all that is of transformers,
# which takes seconds to import.
DIRECT, CHECKPOINT = "direct", "checkpoint"

# Sources that are no checkpoint of transformers: what is before their ":" -> module of speechfeat.encoders, whose
# `open_source(what is behind it, options)` gives the backbone.
PREFIXES: Mapping[str, str] = {"torchaudio": "bundles", "classical": "classical"}

# Models in memory that are none of transformers: the package of their class -> module of speechfeat.encoders, whose
# `wrap(model, feature_extractor)` gives the backbone.
PACKAGES: Mapping[str, str] = {"torchaudio": "bundles"}


def load_encoder(
    source: str | os.PathLike | nn.Module = catalog.DEFAULT_MODEL,
    layers: Layers = "penultimate",
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    short_window: bool = False,
    feature_extractor: object = None,
) -> Encoder:
    """Load an encoder.

    Args:
        source: a catalogue name, a hub id, a checkpoint directory, a bundle of torchaudio ("torchaudio:HUBERT_BASE"),
            or a model of transformers or torchaudio in memory, which is copied: the encoder takes its weights as they
            are now, and the model stays the caller's (delete it to have the memory back).
        layers: "penultimate", "last", "all", a number, or several; see `speechfeat.layers`.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 where the device is fast in it, else float32), "float32", "bfloat16", "float16".
        revision: branch, tag or commit on the hub.
        allow_pickle: take pickled weights where there are no safetensors.
        trust_remote_code: run the checkpoint's own Python code.
        short_window: run Whisper on the utterance's own length rather than on its 30 s window.
        feature_extractor: of a model in memory; for torchaudio's Conformer and RNN-T models, a front end with `grid`
            and `prepare` (see `encoders.torchaudio_models.FrontEnd`) in place of its log-mel.

    Raises:
        ModelError: if the source cannot serve as an encoder.
        ParameterError: for a layer, device or dtype that is not there.
    """
    options = CheckpointOptions(revision, allow_pickle, trust_remote_code, short_window)
    backbone, name = _open(os.fspath(source) if isinstance(source, os.PathLike) else source, options, feature_extractor)
    return Encoder(backbone, name=name, layers=layers, device=device, dtype=dtype)


def as_encoder(
    source: str | os.PathLike | nn.Module | Encoder,
    layers: Layers = "penultimate",
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    **options: Any,
) -> Encoder:
    """An encoder as it is, or what `load_encoder` makes of anything else.

    Raises:
        ParameterError: if an encoder is given other layers, device or dtype than its own.
    """
    if not isinstance(source, Encoder):
        return load_encoder(source, layers, device=device, dtype=dtype, **options)
    if options or (str(layers), str(device), dtype) != ("penultimate", "auto", "auto"):
        raise ParameterError(
            f"the encoder {source.name} is loaded with its layers, device, dtype and options already; "
            "give them to load_encoder instead"
        )
    return source


def _open(source: str | nn.Module, options: CheckpointOptions, feature_extractor: object) -> tuple[Backbone, str]:
    if isinstance(source, nn.Module):
        return _wrap(source, options, feature_extractor), type(source).__name__
    if feature_extractor is not None:
        raise ParameterError(f"{source!r} brings its own feature extractor; feature_extractor= is for models in memory")
    location = locate(source)
    prefix, _, name = location.partition(":")
    if name and prefix in PREFIXES:
        return _module(PREFIXES[prefix]).open_source(name, options), source
    backbone = _module(DIRECT).open_directly(location)
    return backbone or _module(CHECKPOINT).open_checkpoint(location, options), source


def locate(source: str) -> str:
    """What is behind a name of the catalogue; any other source as it is."""
    spec = catalog.find(source)
    return spec.source if spec else source


def is_checkpoint(source: str) -> bool:
    """Whether a source, if there is one, is a checkpoint of transformers, which can be written again."""
    prefix, _, name = locate(source).partition(":")
    return not (name and prefix in PREFIXES)


def _wrap(model: nn.Module, options: CheckpointOptions, feature_extractor: object) -> Backbone:
    for base in type(model).__mro__:
        package = base.__module__.partition(".")[0]
        if package in PACKAGES:
            return _module(PACKAGES[package]).wrap(own_copy(model), feature_extractor)
    if not hasattr(getattr(model, "config", None), "model_type"):
        raise ModelError(
            f"{type(model).__name__} is no model of transformers or torchaudio; "
            "name its blocks, hop, window and sample rate with speechfeat.wrap_module"
        )
    return _module(CHECKPOINT).wrap_model(own_copy(model), feature_extractor, options)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"speechfeat.encoders.{name}")
