"""FastConformers of transformers: Parakeet and what is made like it, and LASR.

Parakeet (CTC, RNN-T, TDT), Canary, Cohere ASR, Nemotron's streaming recognisers, MedASR. Log mel frames, convolutions
that join 8 (LASR: 4) of them, conformer blocks. The checkpoint's own feature extractor computes the log mel frames of
one utterance at a time; a last frame that it masks is no frame.
"""

from typing import Any

import numpy as np
import torch
from transformers import AutoModel, LasrFeatureExtractor, ParakeetEncoder, PretrainedConfig, PreTrainedModel

from speechfeat.encoders.conformer_backbone import FastConformerBackbone
from speechfeat.encoders.log_mel import LasrLogMel, LogMel
from speechfeat.units import Stage


class ExtractedLogMel:
    """The log mel frames of a checkpoint's own extractor, normalised over the utterance if it does so."""

    def __init__(self, extractor: Any) -> None:
        self.extractor = extractor
        self.sample_rate = extractor.sampling_rate
        window, hop = extractor.win_length, extractor.hop_length
        # Centred on multiples of the hop; of the N // hop + 1 frames the last is masked.
        self.stage = Stage(window, hop, window // 2, window - window // 2 - hop)
        # The longest input that the extractor does not cut up by itself.
        seconds = getattr(extractor, "max_audio_clip_s", None)
        self.max_samples = None if seconds is None else round(seconds * self.sample_rate)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Frames, `[N]` -> `[N', F]`."""
        inputs = self.extractor(samples, sampling_rate=self.sample_rate, return_tensors="pt")
        count = self.stage.count(len(samples))
        frames = inputs["input_features"][0, :count]
        # A single frame has no variance over time, and the extractor divides by the number of frames less one.
        return (frames if count > 1 else torch.nan_to_num(frames)).numpy()


def log_mel_of(extractor: Any) -> LogMel:
    """The front end of a checkpoint; any of them can stand before any of the encoders."""
    if not isinstance(extractor, LasrFeatureExtractor):
        return ExtractedLogMel(extractor)
    sizes = ("sampling_rate", "n_fft", "win_length", "hop_length", "feature_size")
    return LasrLogMel(*(getattr(extractor, name) for name in sizes))


class RecogniserEncoder(PreTrainedModel):
    """The encoder of a recogniser, under its name there, so that decoder weights stay on disk."""

    base_model_prefix = "model"
    _supports_sdpa = True

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.encoder = AutoModel.from_config(config.encoder_config)
        self.post_init()


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class that loads the encoder of a checkpoint, and nothing else where that can be helped."""
    # Cohere's weights have names of their own, which transformers translates for its own classes only.
    whole = config.model_type == "cohere_asr" or not hasattr(config, "encoder_config")
    return AutoModel._model_mapping[type(config)] if whole else RecogniserEncoder


def backbone(model: PreTrainedModel, feature_extractor: object, options: object) -> FastConformerBackbone:
    """Wrap an encoder, or the encoder inside a recogniser, with the feature extractor of its checkpoint."""
    del options
    encoder = getattr(model, "encoder", model)
    lookahead = getattr(encoder.config, "default_num_lookahead_tokens", None)
    return FastConformerBackbone(
        encoder,
        log_mel_of(feature_extractor),
        is_parakeet=isinstance(encoder, ParakeetEncoder),
        options=None if lookahead is None else {"num_lookahead_tokens": lookahead},
    )
