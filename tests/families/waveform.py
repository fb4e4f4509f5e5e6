"""Tiny configurations of the encoders on waveforms."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers

from tests.families.case import Case, seeded

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
SEW = {**TINY, "conv_dim": (16,) * 13, "squeeze_factor": 2}


def make(model: str, config: dict, normalize: bool) -> tuple[Any, Any]:
    model_class = getattr(transformers, f"{model}Model")
    config_class = getattr(transformers, f"{model}Config")
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=True)
    return seeded(model_class, config_class(**config)), extractor


def run(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> Any:
    inputs = extractor(list(clips), sampling_rate=16000, return_tensors="pt", padding=True)
    with torch.no_grad():
        return model(**inputs, output_hidden_states=True)


def single(model: Any, extractor: Any, clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs = extractor(clip, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        result = model(inputs.input_values, output_hidden_states=True)
    # SEW's own output is upsampled again; its last layer is the last block.
    squeezed = hasattr(model.config, "squeeze_factor")
    last = result.hidden_states[-1] if squeezed else result.last_hidden_state
    return result.hidden_states[-2][0].numpy(), last[0].numpy()


def padded(model: Any, extractor: Any, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    states = run(model, extractor, clips).hidden_states[-2]
    lengths = [single(model, extractor, clip)[0].shape[0] for clip in clips]
    return [states[row, :length].numpy() for row, length in enumerate(lengths)]


def cases() -> Iterator[tuple[str, str, dict]]:
    for model in ("Wav2Vec2", "Hubert", "WavLM", "UniSpeech", "UniSpeechSat"):
        yield f"{model} group norm", model, {**TINY, "feat_extract_norm": "group"}
        yield f"{model} layer norm", model, {**TINY, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
    yield "Data2VecAudio", "Data2VecAudio", {**TINY, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}
    for position in ("relative", "rotary", None):
        for norm in ("group", "layer"):
            config = {**TINY, "position_embeddings_type": position, "feat_extract_norm": norm}
            yield f"Wav2Vec2Conformer {position} {norm} norm", "Wav2Vec2Conformer", config
    for norm in ("group", "layer"):
        yield f"SEW {norm} norm", "SEW", {**SEW, "feat_extract_norm": norm}
        buckets = {"position_buckets": 16, "max_position_embeddings": 32}
        yield f"SEWD {norm} norm", "SEWD", {**SEW, "feat_extract_norm": norm, **buckets}


CASES = [
    Case(name, partial(make, model, config, "layer" in name or "Data2Vec" in name), single, padded)
    for name, model, config in cases()
]
