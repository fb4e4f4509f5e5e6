"""Speech2Text's encoder: Kaldi's filter bank normalised over the utterance, convolutions, sinusoidal positions."""

import copy
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, Speech2TextFeatureExtractor
from transformers.models.speech_to_text.modeling_speech_to_text import Speech2TextEncoder

from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.checkpoint import audio_encoder
from speechfeat.encoders.masking import zero_padding_before
from speechfeat.errors import ModelError
from speechfeat.units import FrameGrid, Stage

# Checkpoints of the whole model hold the encoder under one of these.
KEY_MAPPING = {r"^(model\.)?encoder\.": ""}

# Kaldi's filter bank, which the feature extractor takes as it is: windows of 25 ms every 10 ms.
WINDOW_SECONDS = 0.025
HOP_SECONDS = 0.010


class SpeechToTextBackbone(Backbone):
    """Speech2Text's encoder with its filter bank.

    Args:
        encoder: without a decoder.
        extractor: that of the checkpoint.
    """

    def __init__(self, encoder: Speech2TextEncoder, extractor: Speech2TextFeatureExtractor) -> None:
        rate, convs = extractor.sampling_rate, encoder.conv.conv_layers
        filters = Stage(round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate))
        stages = [Stage(conv.kernel_size[0], conv.stride[0], conv.padding[0], conv.padding[0]) for conv in convs]
        super().__init__(
            encoder,
            encoder.layers,
            FrameGrid(rate, (filters, *stages)),
            final_norm=encoder.layer_norm,
            input_stages=len(stages),
        )
        self.extractor = copy.copy(extractor)
        # Dither is random noise: with it, no two runs would agree.
        self.extractor.dither = 0.0
        for depth, conv in enumerate(convs):
            if depth > 0:
                zero_padding_before(conv, self.padding, depth=depth)

    def definition(self) -> dict[str, object]:
        """How the filter bank is normalised."""
        names = ("do_ceptral_normalize", "normalize_means", "normalize_vars")
        return {name: getattr(self.extractor, name) for name in names}

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """The extractor's filter bank, `[N]` -> `[N', F]`."""
        # A band that never changes, as in digital silence, has no deviation to divide by: it stays at its mean, 0.
        with np.errstate(divide="ignore", invalid="ignore"):
            features = self.extractor(samples, sampling_rate=self.extractor.sampling_rate)
        return np.nan_to_num(features.input_features[0], nan=0.0, posinf=0.0, neginf=0.0)

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock model with its mask."""
        del sizes
        return self.module(inputs, attention_mask=self.mask(inputs))


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The encoder alone: the decoder is never loaded."""
    del config
    return Speech2TextEncoder


def backbone(model: PreTrainedModel, feature_extractor: object, options: object) -> SpeechToTextBackbone:
    """Wrap the encoder of a model with the preprocessing of its checkpoint.

    Raises:
        ModelError: if there is no encoder in it, or the preprocessing is of another model.
    """
    del options
    encoder = audio_encoder(model, (Speech2TextEncoder,), "input_features")
    if not isinstance(feature_extractor, Speech2TextFeatureExtractor):
        raise ModelError(f"Speech2Text needs a Speech2TextFeatureExtractor, not a {type(feature_extractor).__name__}")
    return SpeechToTextBackbone(encoder, feature_extractor)
