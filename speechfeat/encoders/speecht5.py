"""SpeechT5's encoder behind its speech pre-net: wav2vec 2.0's convolutions, relative positions in the blocks."""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.speecht5.modeling_speecht5 import SpeechT5EncoderWithSpeechPrenet

from speechfeat.encoders.masking import MaskedGroupNorm, zero_padding_before
from speechfeat.encoders.wav2vec2 import NORMALIZE_EPS, SampleBackbone
from speechfeat.errors import ModelError
from speechfeat.units import FrameGrid, conv_stages

# Checkpoints of the whole model hold the encoder under one of these.
KEY_MAPPING = {r"^(speecht5\.)?encoder\.": ""}


class SpeechT5Backbone(SampleBackbone):
    """SpeechT5's encoder with its speech pre-net.

    Args:
        encoder: without a decoder.
        sample_rate: of its input, in Hz.
    """

    def __init__(self, encoder: SpeechT5EncoderWithSpeechPrenet, sample_rate: int) -> None:
        config, prenet = encoder.config, encoder.prenet
        stages = conv_stages(config.conv_kernel, config.conv_stride)
        # The encoder's own norm comes before its blocks.
        super().__init__(encoder, encoder.wrapped_encoder.layers, FrameGrid(sample_rate, stages))
        first = prenet.feature_encoder.conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            first.layer_norm = MaskedGroupNorm(first.layer_norm, self.padding, depth=1)
        zero_padding_before(prenet.pos_conv_embed.conv, self.padding)


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The encoder alone: the decoder is never loaded."""
    del config
    return SpeechT5EncoderWithSpeechPrenet


def backbone(model: PreTrainedModel, feature_extractor: object, options: object) -> SpeechT5Backbone:
    """Wrap the encoder of a model with the preprocessing of its checkpoint.

    Raises:
        ModelError: if it does not take speech.
    """
    del options
    modules = model.modules()
    encoder = next((module for module in modules if isinstance(module, SpeechT5EncoderWithSpeechPrenet)), None)
    if encoder is None:
        raise ModelError(
            f"{type(model).__name__} has no encoder of speech; give SpeechT5's speech-to-text or speech-to-speech model"
        )
    wrapped = SpeechT5Backbone(encoder, feature_extractor.sampling_rate)  # type: ignore[attr-defined]
    if getattr(feature_extractor, "do_normalize", False):
        wrapped.normalize_eps = NORMALIZE_EPS
    return wrapped
