"""Moonshine's encoders: on the waveform, with a group norm over the utterance, or streaming over frames of 5 ms."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder
from transformers.models.moonshine_streaming.modeling_moonshine_streaming import MoonshineStreamingEncoder

from speechfeat.encoders.checkpoint import audio_encoder
from speechfeat.encoders.masking import MaskedGroupNorm, attend_somewhere
from speechfeat.encoders.wav2vec2 import NORMALIZE_EPS, SampleBackbone
from speechfeat.units import FrameGrid, Stage, conv_stages

# Checkpoints of the whole model hold the encoder under one of these.
KEY_MAPPING = {r"^(model\.)?encoder\.": ""}

ENCODERS = (MoonshineEncoder, MoonshineStreamingEncoder)


class MoonshineBackbone(SampleBackbone):
    """Moonshine's encoder.

    Args:
        encoder: without a decoder.
        sample_rate: of its input, in Hz.
    """

    def __init__(self, encoder: MoonshineEncoder, sample_rate: int) -> None:
        convs = (encoder.conv1, encoder.conv2, encoder.conv3)
        stages = conv_stages([conv.kernel_size[0] for conv in convs], [conv.stride[0] for conv in convs])
        super().__init__(encoder, encoder.layers, FrameGrid(sample_rate, stages), final_norm=encoder.layer_norm)
        encoder.groupnorm = MaskedGroupNorm(encoder.groupnorm, self.padding, depth=1)

    def mask(self, inputs: Tensor) -> Tensor | None:
        """Attention mask `[B, N]` whose every hop-th entry tells whether a frame is valid.

        The stock model takes just those of the mask, from the start on. Of a plain mask over the samples they would
        keep frames whose window starts within an utterance and ends in its padding.
        """
        if not self.padding.padded:
            return None
        width = inputs.shape[1]
        num_frames = self.grid.num_frames(width)
        frame = torch.arange(width, device=inputs.device) // self.grid.hop
        return self.padding.mask(num_frames, inputs.device)[:, frame.clamp(max=num_frames - 1)].long()


class MoonshineStreamingBackbone(SampleBackbone):
    """Moonshine's streaming encoder: its first blocks and its last ones look ahead by some frames, the others do not.

    As its processor does, an utterance is filled up with zeros to whole frames of 5 ms. The frame that is filled up
    is one that the model itself takes for silence.

    Args:
        encoder: without a decoder.
    """

    def __init__(self, encoder: MoonshineStreamingEncoder) -> None:
        embedder = encoder.embedder
        self.frame_len = embedder.frame_len
        convs = (embedder.conv1, embedder.conv2)
        stages = (
            Stage(self.frame_len, self.frame_len, 0, self.frame_len - 1),
            *(Stage(conv.kernel_size[0], conv.stride[0], conv.left_pad) for conv in convs),
        )
        grid = FrameGrid(encoder.config.sample_rate, stages)
        super().__init__(encoder, encoder.layers, grid, final_norm=encoder.final_norm)
        for depth, conv in enumerate(convs, start=2):
            self._end_with_the_utterance(conv, depth)
        attend_somewhere(encoder.layers, self.padding)

    def _end_with_the_utterance(self, conv: nn.Module, depth: int) -> None:
        """Cut the mask that a convolution hands on to the frames that an utterance has alone.

        The stock mask keeps every frame whose window touches a valid one, and thus frames beyond the end.
        """

        def hook(_conv: nn.Module, _args: tuple, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor] | None:
            if not self.padding.padded:
                return None
            states, mask = output
            mask = mask & self.padding.mask(states.shape[-1], states.device, depth)
            return states * mask[:, None], mask

        conv.register_forward_hook(hook)

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock model on whole frames, always with its mask: without one it drops its attention windows."""
        inputs = nn.functional.pad(inputs, (0, -inputs.shape[1] % self.frame_len))
        # An utterance shorter than a frame would be all mask.
        lengths = torch.tensor([max(size, self.frame_len) for size in sizes], device=inputs.device)
        mask = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
        return self.module(inputs, attention_mask=mask.long())


def encoder_config(config: PretrainedConfig) -> PretrainedConfig:
    """The streaming encoder's own part of a configuration."""
    return getattr(config, "encoder_config", config)


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The encoder alone: the decoder is never loaded."""
    return MoonshineEncoder if config.model_type == "moonshine" else MoonshineStreamingEncoder


def backbone(model: PreTrainedModel, feature_extractor: object, options: object) -> SampleBackbone:
    """Wrap the encoder of a model with the preprocessing of its checkpoint.

    Raises:
        ModelError: if there is no encoder in it.
    """
    del options
    encoder = audio_encoder(model, ENCODERS, "input_values")
    wrapped: SampleBackbone
    if isinstance(encoder, MoonshineStreamingEncoder):
        wrapped = MoonshineStreamingBackbone(encoder)
    else:
        wrapped = MoonshineBackbone(encoder, feature_extractor.sampling_rate)  # type: ignore[attr-defined]
    if getattr(feature_extractor, "do_normalize", False):
        wrapped.normalize_eps = NORMALIZE_EPS
    return wrapped
