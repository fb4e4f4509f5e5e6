"""Encoders on waveforms: a stack of convolutions, a positional convolution, blocks.

wav2vec 2.0, HuBERT, WavLM, data2vec-audio, UniSpeech, UniSpeech-SAT, SEW, SEW-D and Wav2Vec2-Conformer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask

from speechfeat.encoders.attention_functions import attend_in_blocks
from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.biased_attention import ConformerAttention, GatedBiasAttention
from speechfeat.encoders.channels_last import to_channels_last
from speechfeat.encoders.compiling import fuse_blocks
from speechfeat.encoders.fused_conformer import fuse_waveform_conformer
from speechfeat.encoders.fused_wav2vec2 import fuse_waveform
from speechfeat.encoders.masking import MaskedGroupNorm, zero_padding_before
from speechfeat.encoders.modules import ask_positions_in_turn, change_class
from speechfeat.encoders.onednn import has_room
from speechfeat.encoders.packing import Packing, pack_blocks
from speechfeat.encoders.pair_bias import UnweightedGatedAttention
from speechfeat.encoders.precision import has_onednn, has_slow_mkl, prefers_onednn
from speechfeat.encoders.shapes import writes_code
from speechfeat.encoders.stretches import run_in_stretches
from speechfeat.encoders.time_major import BlockedGroupConv, TimeMajorConvolution, TimeMajorFrontEnd
from speechfeat.units import FrameGrid, Stage, conv_stages

# As transformers' Wav2Vec2FeatureExtractor has it.
NORMALIZE_EPS = 1e-7

# Model types whose blocks are attention without positions and feed-forward layers.
PACKED = ("wav2vec2", "hubert", "unispeech", "unispeech-sat", "data2vec-audio")


class SampleBackbone(Backbone):
    """A transformers model that takes samples and a mask.

    Attributes:
        normalize_eps: added to the variance when a recording is brought to zero mean and unit variance; None where
            the checkpoint takes samples as they are.
    """

    normalize_eps: float | None = None

    def normalize(self, samples: np.ndarray) -> np.ndarray:
        """Zero mean and unit variance over the whole recording, if the checkpoint was trained so."""
        if self.normalize_eps is None:
            return samples
        deviation = np.sqrt(samples.var() + self.normalize_eps)
        normalized = samples - samples.mean()
        normalized /= deviation  # in place: a recording of hours would not fit a third time
        return normalized

    def definition(self) -> dict[str, object]:
        """How samples are normalised."""
        return {"normalize_eps": self.normalize_eps}

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock model with its mask."""
        del sizes
        return self.module(inputs, attention_mask=self.mask(inputs))


class WaveformBackbone(SampleBackbone):
    """A transformers model of the wav2vec 2.0 design.

    Args:
        model: the base model, without a head.
        sample_rate: of its input, in Hz.
        normalize_eps: added to the variance when a recording is brought to zero mean and unit variance; None where
            the checkpoint takes samples as they are.
    """

    def __init__(self, model: PreTrainedModel, sample_rate: int, normalize_eps: float | None) -> None:
        config = model.config
        stages = conv_stages(config.conv_kernel, config.conv_stride)
        squeeze = getattr(config, "squeeze_factor", 1)
        if squeeze > 1:
            stages = (*stages, Stage(squeeze, squeeze))
        encoder = model.encoder
        blocks = encoder.encoder.layer if hasattr(encoder, "encoder") else encoder.layers
        super().__init__(
            model,
            blocks,
            FrameGrid(sample_rate, stages),
            final_norm=encoder.layer_norm if _norm_is_last(model) else None,
        )
        self.normalize_eps = normalize_eps
        # SEW and SEW-D were not tried in several threads.
        self.is_reentrant = config.model_type in (*PACKED, "wavlm", "wav2vec2-conformer")
        ask_positions_in_turn(encoder)
        self._close_leaks(model, num_convs=len(config.conv_kernel), squeezed=squeeze > 1)

    def _close_leaks(self, model: PreTrainedModel, num_convs: int, squeezed: bool) -> None:
        first = model.feature_extractor.conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            first.layer_norm = MaskedGroupNorm(first.layer_norm, self.padding, depth=1)
        for name, layer in model.encoder.named_modules():
            leaks = name.endswith("depthwise_conv") or ("pos_conv_embed" in name and isinstance(layer, nn.Conv1d))
            if leaks:
                zero_padding_before(layer, self.padding, depth=num_convs)
        if squeezed:
            self._mask_squeezed_frames(model)

    def accelerate(self, device: torch.device) -> None:
        """Convolutions in the layout that a device multiplies best; faster attention; on a GPU compiled blocks."""
        if device.type == "cpu":
            self._accelerate_on_cpu(device)
            return
        model = self.module
        self._multiply_position_convs()
        model.feature_extractor = TimeMajorFrontEnd(model.feature_extractor, self.padding)
        kind = model.config.model_type
        if kind == "wav2vec2-conformer":
            for block in self.blocks:
                self._accelerate_conformer(block)
        elif kind == "wavlm":
            for block in self.blocks:
                block.attention = GatedBiasAttention(block.attention, self.padding)
        elif kind in PACKED:
            packing = Packing(self.padding)
            pack_blocks(self.blocks, packing)
            self.layout = packing.unpack
        fuse_blocks(self.blocks)

    def _accelerate_on_cpu(self, device: torch.device) -> None:
        model = self.module
        layers = model.feature_extractor.conv_layers
        dtype = layers[0].conv.weight.dtype
        if not has_onednn(device, dtype):
            return
        for layer in (*layers, *(embedding.conv for embedding in self._position_embeddings())):
            to_channels_last(layer)
        run_in_stretches(model.feature_extractor)
        kind = model.config.model_type
        self.pads_fast = kind in (*PACKED, "wavlm")
        if kind == "wavlm":
            for block in model.encoder.layers:
                change_class(block.attention, UnweightedGatedAttention)
        if self.pads_fast and writes_code(device, dtype) and has_room(model, dtype):
            fuse_waveform(self.blocks, self.padding, is_pre_norm=_is_pre_norm(model))
        elif kind in PACKED and has_slow_mkl(device):
            attend_in_blocks(model)
        elif self._is_relative() and prefers_onednn(device, dtype) and has_room(model, dtype):
            fuse_waveform_conformer(self.blocks, model.config.hidden_size, self.padding)
            self.pads_fast = True

    def _position_embeddings(self) -> list[Any]:
        """Those that are convolutions and keep the number of frames."""
        named = [one for one in self.module.encoder.modules() if "PositionalConv" in type(one).__name__]
        convs = [(one, getattr(one, "conv", None)) for one in named]
        return [one for one, conv in convs if isinstance(conv, nn.Conv1d) and conv.stride == (1,)]

    def _multiply_position_convs(self) -> None:
        for embedding in self._position_embeddings():
            embedding.conv = BlockedGroupConv(embedding.conv)
            zero_padding_before(embedding.conv, self.padding, depth=len(self.module.config.conv_kernel))

    def _accelerate_conformer(self, block: Any) -> None:
        convs = block.conv_module
        block.conv_module = TimeMajorConvolution(convs, convs.batch_norm, self.padding, before=convs.layer_norm)
        if self._is_relative():
            block.self_attn = ConformerAttention(block.self_attn, self.padding)

    def _is_relative(self) -> bool:
        """Whether blocks are a Wav2Vec2-Conformer's with relative positions."""
        config = self.module.config
        return config.model_type == "wav2vec2-conformer" and config.position_embeddings_type == "relative"

    def _mask_squeezed_frames(self, model: PreTrainedModel) -> None:
        """Give the blocks of SEW the mask of the squeezed frames that an utterance has alone.

        The stock mask keeps a last squeezed frame of which only half is valid; alone it does not exist.
        """

        def sew_hook(_layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            if self.padding.padded:
                states = args[0]
                mask = self.padding.mask(states.shape[1], states.device)
                kwargs["attention_mask"] = create_bidirectional_mask(
                    config=model.config, inputs_embeds=states, attention_mask=mask
                )
            return args, kwargs

        def sew_d_hook(_encoder: nn.Module, args: tuple) -> tuple:
            if not self.padding.padded:
                return args
            return (args[0], self.padding.mask(args[0].shape[1], args[0].device).long(), *args[2:])

        if hasattr(model.encoder, "encoder"):
            model.encoder.encoder.register_forward_pre_hook(sew_d_hook)
        else:
            for layer in model.encoder.layers:
                layer.register_forward_pre_hook(sew_hook, with_kwargs=True)


def _norm_is_last(model: PreTrainedModel) -> bool:
    """Whether `encoder.layer_norm` follows the blocks; in post-norm models it comes before them."""
    if model.config.model_type == "wav2vec2-conformer":
        return True
    return _is_pre_norm(model) and hasattr(model.encoder, "layer_norm")


def _is_pre_norm(model: PreTrainedModel) -> bool:
    """Whether norms are before attention and feed-forward layers, not behind them."""
    return bool(getattr(model.config, "do_stable_layer_norm", False))


def backbone(model: PreTrainedModel, feature_extractor: Any, options: object) -> WaveformBackbone:
    """Wrap a base model with the preprocessing of its checkpoint."""
    del options
    normalize = getattr(feature_extractor, "do_normalize", True)
    return WaveformBackbone(
        model,
        feature_extractor.sampling_rate,
        NORMALIZE_EPS if normalize else None,
    )
