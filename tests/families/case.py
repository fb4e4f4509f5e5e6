"""One tiny random-weight encoder and what its own library says of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel

from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import load_encoder


@dataclass(frozen=True)
class Case:
    """A tiny configuration of a family.

    Attributes:
        name: of the family and its variant.
        make: a seeded model in eval mode, and its feature extractor (or None).
        single: the stock library's penultimate and last layer of one utterance, `[T, D]` each.
        padded: the stock library's penultimate layer of every utterance of one padded batch, with its right mask;
            None where it has no batched form.
        options: further arguments of `load_encoder`.
        load: another way to make the encoder.
    """

    name: str
    make: Callable[[], tuple[Any, Any]]
    single: Callable[[Any, Any, np.ndarray], tuple[np.ndarray, np.ndarray]]
    padded: Callable[[Any, Any, Sequence[np.ndarray]], list[np.ndarray]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    load: Callable[..., Encoder] = load_encoder

    def encoder(self, layers: Any = "penultimate", **overrides: Any) -> Encoder:
        model, extractor = self.make()
        arguments = {"device": "cpu", "dtype": "float32", **self.options, **overrides}
        if extractor is not None:
            arguments["feature_extractor"] = extractor
        return self.load(model, layers, **arguments)


def seeded(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """A model with the same random weights every time."""
    torch.manual_seed(0)
    return model_class(config).eval()


def speech_like(*num_samples: int) -> list[np.ndarray]:
    """Noise of changing loudness, `[N]` float32 each: lengths chosen so that padding would show."""
    rng = np.random.default_rng(0)
    clips = []
    for count in num_samples:
        envelope = 0.05 + 0.1 * np.abs(np.sin(np.arange(count) / 1500))
        clips.append((envelope * rng.standard_normal(count)).astype(np.float32))
    return clips


def encode_together(encoder: Encoder, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Features `[L, T, D]` of clips padded into one batch, also on a device that would run them one by one."""
    encode = encoder.encode_padded if encoder.backbone.pads else encoder.encode_prepared
    return encode([encoder.prepare(clip) for clip in clips], [len(clip) for clip in clips])
