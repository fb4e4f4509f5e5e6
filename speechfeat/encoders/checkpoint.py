"""Opening a checkpoint of transformers: which family, which weights, and whether all of them are there."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from speechfeat.encoders import catalog
from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.options import CheckpointOptions
from speechfeat.errors import ModelError

# A vector that pretraining puts in place of masked frames: old checkpoints lack it and nothing here reads it.
UNUSED_WEIGHTS = ("masked_spec_embed",)

# What old checkpoints hold and the models now compute: sinusoids, numbers of positions, frequencies of rotations,
# causal masks.
COMPUTED_WEIGHTS = (
    *("embed_positions.weights", "pos_sinusoidal_embed.weights", "position_ids", "rotary_emb.inv_freq"),
    *(".attn.bias", ".attn.masked_bias"),
)

# On top of text models, where nothing here reads: checkpoints of a language model lack it.
POOLERS = ("pooler", "pooler_activation")


def open_checkpoint(source: str, options: CheckpointOptions) -> Backbone:
    """Load the encoder of a hub id or a local directory.

    Raises:
        ModelError: if there is no such checkpoint, it is no speech encoder, or weights are missing or left over.
    """
    family, model, extractor = read_checkpoint(source, options)
    return family.backbone(model, extractor, options)


def read_checkpoint(source: str, options: CheckpointOptions) -> tuple[ModuleType, PreTrainedModel, Any]:
    """The family, the model and the feature extractor of a hub id or a local directory.

    Raises:
        ModelError: as of `open_checkpoint`.
    """
    check_source(source)
    config = load_part(source, "its configuration", AutoConfig, options)
    family = find_family(config, source)
    if hasattr(family, "encoder_config"):
        config = family.encoder_config(config)
    model = load_model(source, _model_class(family, config), config, options, getattr(family, "KEY_MAPPING", None))
    return family, model, load_part(source, "its preprocessor configuration", AutoFeatureExtractor, options)


def wrap_model(model: PreTrainedModel, feature_extractor: object, options: CheckpointOptions) -> Backbone:
    """Wrap a transformers model that is already in memory, with or without a head.

    Raises:
        ModelError: if it is no speech encoder, or its feature extractor is needed and missing.
    """
    family = find_family(model.config, type(model).__name__)
    if feature_extractor is None:
        raise ModelError(
            f"{type(model).__name__} needs its feature extractor to know how samples go in; "
            "pass feature_extractor=AutoFeatureExtractor.from_pretrained(...)"
        )
    return family.backbone(model.base_model, feature_extractor, options)


def find_family(config: PretrainedConfig, source: str) -> ModuleType:
    """The module of speechfeat.encoders that carries a configuration's model type."""
    name = catalog.FAMILIES.get(config.model_type)
    if name is None:
        raise ModelError(
            f"{source!r} is a {config.model_type!r} model, which is no speech encoder known here; known types: "
            f"{', '.join(sorted(catalog.FAMILIES))}; any other network can be tapped with speechfeat.wrap_module"
        )
    return importlib.import_module(f"speechfeat.encoders.{name}")


def audio_encoder(model: torch.nn.Module, kinds: tuple[type[torch.nn.Module], ...], takes: str) -> Any:
    """The encoder inside a whole model: its first module of one of the `kinds`.

    Raises:
        ModelError: if there is none; `takes` names the input of the models that have one.
    """
    encoder = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if encoder is None:
        raise ModelError(f"{type(model).__name__} has no audio encoder; give a model that takes {takes}")
    return encoder


def _model_class(family: ModuleType, config: PretrainedConfig) -> type[PreTrainedModel]:
    chosen = getattr(family, "model_class", None)
    return chosen(config) if chosen else AutoModel._model_mapping[type(config)]


def check_source(source: str, table: catalog.Table = catalog.SPEECH) -> None:
    """Refuse what cannot be a checkpoint, before anything is asked of the hub.

    Raises:
        ModelError: with what was probably meant, by a table of the catalogue.
    """
    path = Path(source)
    if not path.exists():
        if source.count("/") != 1 or source.startswith("."):
            raise ModelError(
                f"unknown encoder {source!r}{table.suggest(source)}: it is no catalogue name, no directory here and "
                f"no hub id (owner/name); list the catalogue: {table.command}"
            )
        return
    if not path.is_dir():
        raise ModelError(f"{source!r} is a file; give the checkpoint's directory, which holds config.json")
    if not (path / "config.json").is_file():
        held = "a tokenizer but no model" if (path / "tokenizer_config.json").is_file() else "no config.json"
        raise ModelError(f"{source!r} holds {held}; give a directory that save_pretrained has written")


def load_part(source: str, what: str, auto_class: Any, options: CheckpointOptions) -> Any:
    """A configuration, feature extractor or tokenizer of a checkpoint.

    Raises:
        ModelError: if it is not there or cannot be read; `what` names it.
    """
    try:
        return auto_class.from_pretrained(
            source, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(_why_unloadable(source, what, error)) from None


def _why_unloadable(source: str, what: str, error: Exception) -> str:
    reason = " ".join(str(error).split())
    if Path(source).is_dir():
        return f"{source!r}: {what} cannot be read ({reason[:300]}); save it beside the weights with save_pretrained"
    return (
        f"{source!r} is no directory here, and the hub did not give {what} ({reason[:200]}); check the id and the "
        "connection, or list the catalogue (--list-models)"
    )


def load_model(
    source: str,
    model_class: Any,
    config: PretrainedConfig,
    options: CheckpointOptions,
    key_mapping: dict[str, str] | None = None,
) -> PreTrainedModel:
    """The model of a checkpoint with all its weights, in float32.

    Raises:
        ModelError: if it cannot be read, or weights are missing or left over.
    """
    try:
        with _quiet():
            model, info = model_class.from_pretrained(
                source,
                config=config,
                key_mapping=key_mapping,
                revision=options.revision,
                trust_remote_code=options.trust_remote_code,
                dtype=torch.float32,
                use_safetensors=None if options.allow_pickle else True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, UnpicklingError) as error:
        if not options.allow_pickle and "safetensors" in str(error):
            raise ModelError(
                f"{source!r} has no safetensors weights; pickles run code when they are opened: convert it with "
                "save_pretrained, or pass --allow-pickle (allow_pickle=True) if you trust it"
            ) from None
        raise ModelError(_why_unloadable(source, "its weights", error)) from None
    check_weights(source, model, info)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bar and report of missing weights, which are an error here."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def check_weights(source: str, model: PreTrainedModel, info: dict) -> None:
    """Every weight of the encoder must come from the checkpoint; only a head may be left over.

    Raises:
        ModelError: naming the weights.
    """
    missing = [
        key for key in info["missing_keys"] if not key.endswith(UNUSED_WEIGHTS) and key.split(".")[0] not in POOLERS
    ]
    parts = tuple(f"{name}." for name, _ in model.named_children())
    prefix = f"{model.base_model_prefix}."
    unexpected = [
        key
        for key in info["unexpected_keys"]
        if key.removeprefix(prefix).startswith(parts) and not key.endswith(COMPUTED_WEIGHTS)
    ]
    mismatched = [str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"]]
    for keys, verb in (
        (missing, "misses"),
        (unexpected, "holds unexpected"),
        (mismatched, "has wrongly shaped"),
    ):
        if keys:
            raise ModelError(
                f"{source!r} {verb} weights of {type(model).__name__}: {', '.join(sorted(keys)[:4])}"
                f"{f' and {len(keys) - 4} more' if len(keys) > 4 else ''}; it is damaged or of another architecture"
            )
