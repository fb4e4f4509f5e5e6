"""Conformers on Kaldi filter banks: w2v-BERT 2.0 and the speech encoder of SeamlessM4T (v1 and v2).

The front end is that of transformers' SeamlessM4TFeatureExtractor: 80 log mel bands per 10 ms, each band brought to
zero mean and unit variance over the utterance, two frames side by side. An odd last frame counts in the mean and
variance but is masked by the extractor; here it is no frame. The adapter of SeamlessM4T, and what else follows the
conformer's own final norm, is not part of the encoder.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.models.seamless_m4t.modeling_seamless_m4t import SeamlessM4TSpeechEncoder
from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2SpeechEncoder

from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.compiling import fuse_blocks
from speechfeat.encoders.fused_w2v_bert import fuse_w2v_bert
from speechfeat.encoders.modules import ask_positions_in_turn
from speechfeat.encoders.onednn import has_room
from speechfeat.encoders.precision import prefers_onednn
from speechfeat.encoders.time_major import TimeMajorConvolution
from speechfeat.units import FrameGrid, Stage

# What transformers' SeamlessM4TFeatureExtractor has as constants, after Kaldi.
WINDOW, HOP, FFT = 400, 160, 512
PREEMPHASIS = 0.97
MEL_FLOOR = 1.192092955078125e-07
VARIANCE_EPS = 1e-7

SPEECH_ENCODERS = {"seamless_m4t": SeamlessM4TSpeechEncoder, "seamless_m4t_v2": SeamlessM4Tv2SpeechEncoder}

# Frames whose spectra are held at a time: memory stays flat however long the utterance is.
BLOCK = 1000


class FilterBankBackbone(Backbone):
    """A conformer on stacked filter banks.

    Args:
        model: w2v-BERT's base model, or the speech encoder of SeamlessM4T.
        feature_extractor: the checkpoint's SeamlessM4TFeatureExtractor.
    """

    is_reentrant = True

    def __init__(self, model: PreTrainedModel, feature_extractor: object) -> None:
        self.stack: int = feature_extractor.stride  # type: ignore[attr-defined]
        self.window: np.ndarray = feature_extractor.window  # type: ignore[attr-defined]
        self.mel_filters: np.ndarray = feature_extractor.mel_filters  # type: ignore[attr-defined]
        # They follow the last block and are never reached.
        model.adapter = None
        model.intermediate_ffn = None
        grid = FrameGrid(
            feature_extractor.sampling_rate,  # type: ignore[attr-defined]
            (Stage(WINDOW, HOP), Stage(self.stack, self.stack)),
        )
        encoder = model.encoder
        super().__init__(model, encoder.layers, grid, final_norm=getattr(encoder, "layer_norm", None), input_stages=0)
        ask_positions_in_turn(encoder)
        for layer in encoder.layers:
            if hasattr(layer.self_attn, "distance_embedding"):
                layer.self_attn = RelativeKeyAttention(layer.self_attn)

    def accelerate(self, device: torch.device) -> None:
        """On a GPU convolutions on `[B, T, C]` and compiled blocks, on a CPU fused blocks, for w2v-BERT 2.0."""
        if self.module.config.model_type != "wav2vec2-bert":
            return
        if device.type == "cpu":
            has_keys = all(isinstance(block.self_attn, RelativeKeyAttention) for block in self.blocks)
            dtype = self.module.feature_projection.projection.weight.dtype
            if has_keys and prefers_onednn(device, dtype) and has_room(self.module, dtype):
                fuse_w2v_bert(self.blocks, self.padding)
                self.pads_fast = True
            return
        for block in self.blocks:
            convs: Any = block.conv_module
            block.conv_module = TimeMajorConvolution(
                convs, convs.depthwise_layer_norm, self.padding, before=convs.layer_norm
            )
        fuse_blocks(self.blocks)

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Normalised filter banks, frames stacked, `[N]` -> `[N', F]`.

        Computed here rather than by the extractor, whose loop over frames is several times slower and holds Python's
        lock, so that worker threads would wait for each other.
        """
        # Band by band in memory, as the extractor has them: float32 sums differ by the order of their terms.
        banks = np.asfortranarray(filter_banks(samples, self.window, self.mel_filters))
        scaled = (banks - banks.mean(0)) / np.sqrt(banks.var(0, ddof=1) + VARIANCE_EPS)
        whole = len(scaled) - len(scaled) % self.stack
        return scaled[:whole].reshape(whole // self.stack, -1)

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock model with its mask."""
        del sizes
        return self.module(inputs, attention_mask=self.mask(inputs))


class RelativeKeyAttention(nn.Module):
    """Self-attention with an embedding of each clamped distance (Shaw et al., arXiv:1803.02155).

    The same products as the stock module of w2v-BERT 2.0 and SeamlessM4T v2, which however lays out the embedding of
    every pair of frames, `[T, T, D]`: 2.3 GB for a minute of speech. Here queries meet each distance once and the
    result is gathered.

    Args:
        attention: the stock module.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_kwargs: object
    ) -> tuple[Tensor, None]:
        """States after attention, `[B, T, D]`, and None where the stock module gives its weights."""
        stock: Any = self.attention
        batch, length, _ = hidden_states.shape
        query, key, value = (
            project(hidden_states).view(batch, length, stock.num_heads, stock.head_size).transpose(1, 2)
            for project in (stock.linear_q, stock.linear_k, stock.linear_v)
        )
        scale = stock.head_size**-0.5
        to_distances = query @ stock.distance_embedding.weight.to(query.dtype).T * scale
        position = torch.arange(length, device=query.device)
        left, right = stock.left_max_position_embeddings, stock.right_max_position_embeddings
        distance = (position - position[:, None]).clamp(-left, right) + left
        bias = to_distances.gather(-1, distance.expand(batch, stock.num_heads, -1, -1))
        if attention_mask is not None:
            # A padded frame may have nothing to attend: with a finite minimum that gives no NaN.
            allowed = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
            bias = bias.masked_fill(~allowed, torch.finfo(bias.dtype).min)
        states = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
        return stock.linear_out(states.transpose(1, 2).flatten(2)), None


def filter_banks(samples: np.ndarray, window: np.ndarray, mel_filters: np.ndarray) -> np.ndarray:
    """Log mel energies as Kaldi has them, equal to those of transformers' SeamlessM4TFeatureExtractor.

    Args:
        samples: at least one window of them.
        window: the analysis window.
        mel_filters: weight of each frequency bin in each band.

    Shape:
        samples `[N]`, window `[400]`, mel_filters `[257, F]` -> `[(N - 400) // 160 + 1, F]` float32
    """
    # Kaldi's scale of 16-bit integers; float64 because weak bands lie far below the strong ones.
    scaled = samples.astype(np.float64) * 2**15
    windows = np.lib.stride_tricks.sliding_window_view(scaled, WINDOW)[::HOP]
    blocks = [windows[start : start + BLOCK] for start in range(0, len(windows), BLOCK)]
    return np.concatenate([_log_mel(block, window, mel_filters) for block in blocks])


def _log_mel(windows: np.ndarray, window: np.ndarray, mel_filters: np.ndarray) -> np.ndarray:
    centred = windows - windows.mean(1, keepdims=True)
    # Before its first sample a window is taken to be constant.
    before = np.concatenate([centred[:, :1], centred[:, :-1]], axis=1)
    # The extractor keeps spectra in single precision; rounding elsewhere would move features by a few 1e-6.
    spectra = np.fft.rfft((centred - PREEMPHASIS * before) * window, n=FFT).astype(np.complex64)
    power = spectra.real.astype(np.float64) ** 2 + spectra.imag.astype(np.float64) ** 2
    return np.log(np.maximum(power @ mel_filters, MEL_FLOOR)).astype(np.float32)


class SeamlessSpeechEncoder(PreTrainedModel):
    """The speech encoder of a SeamlessM4T checkpoint, under its name there; text and vocoder weights stay on disk."""

    base_model_prefix = "model"
    _supports_sdpa = True

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.speech_encoder = SPEECH_ENCODERS[config.model_type](config)
        self.post_init()


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class that loads the encoder of a checkpoint and nothing else."""
    return SeamlessSpeechEncoder if config.model_type in SPEECH_ENCODERS else AutoModel._model_mapping[type(config)]


def backbone(model: PreTrainedModel, feature_extractor: object, options: object) -> FilterBankBackbone:
    """Wrap a base model, or the speech encoder inside it, with the preprocessing of its checkpoint."""
    del options
    return FilterBankBackbone(getattr(model, "speech_encoder", model), feature_extractor)
