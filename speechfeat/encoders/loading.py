"""From a name, a path or a module to an `Encoder`."""

from collections.abc import Mapping

import torch
from torch import nn

from speechfeat.encoders import catalog
from speechfeat.encoders.base import Backbone, Encoder
from speechfeat.encoders.checkpoint import CheckpointOptions, open_checkpoint, wrap_model
from speechfeat.errors import ModelError
from speechfeat.layers import Layers

# Sources that need no checkpoint of transformers: prefix -> module of speechfeat.encoders
PREFIXES: Mapping[str, str] = {}


def load_encoder(
    source: str | nn.Module,
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
        source: a catalogue name, a hub id, a checkpoint directory, or a model of transformers in memory.
        layers: "penultimate", "last", "all", a number, or several; see `speechfeat.layers`.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 where the device is fast in it, else float32), "float32", "bfloat16", "float16".
        revision: branch, tag or commit on the hub.
        allow_pickle: take pickled weights where there are no safetensors.
        trust_remote_code: run the checkpoint's own Python code.
        short_window: run Whisper on the utterance's own length rather than on its 30 s window.
        feature_extractor: of a model in memory.

    Raises:
        ModelError: if the source cannot serve as an encoder.
        ParameterError: for a layer, device or dtype that is not there.
    """
    options = CheckpointOptions(revision, allow_pickle, trust_remote_code, short_window)
    backbone, name = _open(source, options, feature_extractor)
    return Encoder(backbone, name=name, layers=layers, device=device, dtype=dtype)


def _open(source: str | nn.Module, options: CheckpointOptions, feature_extractor: object) -> tuple[Backbone, str]:
    if isinstance(source, nn.Module):
        if not hasattr(source, "config"):
            raise ModelError(
                f"{type(source).__name__} is no model of transformers; "
                "name its blocks, hop, window and sample rate with speechfeat.wrap_module"
            )
        return wrap_model(source, feature_extractor, options), type(source).__name__  # type: ignore[arg-type]
    spec = catalog.find(source)
    return open_checkpoint(spec.source if spec else source, options), source
