"""FastConformers: Parakeet (CTC, RNN-T, TDT), Canary, Cohere ASR, Nemotron's streaming recognisers, and LASR (MedASR).

Log mel frames, convolutions that join 8 (LASR: 4) of them, conformer blocks. The checkpoint's own feature extractor
computes the log mel frames of one utterance at a time; a last frame that it masks is no frame.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from transformers import AutoModel, LasrFeatureExtractor, ParakeetEncoder, PretrainedConfig, PreTrainedModel

from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.biased_attention import ParakeetAttention
from speechfeat.encoders.compiling import fuse_blocks
from speechfeat.encoders.fused_conformer import fuse_conformer
from speechfeat.encoders.masking import attend_somewhere
from speechfeat.encoders.onednn import has_room
from speechfeat.encoders.precision import prefers_onednn
from speechfeat.encoders.time_major import TimeMajorConvolution
from speechfeat.units import FrameGrid, Stage

# As LasrFeatureExtractor has it.
LEAST_ENERGY = np.float32(1e-5)


class FastConformerBackbone(Backbone):
    """A FastConformer on log mel frames.

    Args:
        encoder: the conformer, without decoder or head.
        feature_extractor: of its checkpoint.
    """

    def __init__(self, encoder: PreTrainedModel, feature_extractor: object) -> None:
        self.feature_extractor = feature_extractor
        is_lasr = isinstance(feature_extractor, LasrFeatureExtractor)
        self._lasr = LasrLogMel(feature_extractor) if is_lasr else None
        self.is_reentrant = isinstance(encoder, ParakeetEncoder)
        mel = _mel_stage(feature_extractor)
        subsampling = _subsampling_stages(encoder)
        super().__init__(
            encoder,
            encoder.layers,
            FrameGrid(feature_extractor.sampling_rate, (mel, *subsampling)),  # type: ignore[attr-defined]
            final_norm=getattr(encoder, "out_norm", None),
            max_samples=_max_samples(feature_extractor),
            input_stages=len(subsampling),
        )
        lookahead = getattr(encoder.config, "default_num_lookahead_tokens", None)
        self.options = {} if lookahead is None else {"num_lookahead_tokens": lookahead}
        attend_somewhere(encoder.layers, self.padding)

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Log mel frames of the checkpoint's extractor, normalised over the utterance if it does so, `[N', F]`."""
        if self._lasr is not None:
            return self._lasr(samples)
        inputs = self.feature_extractor(  # type: ignore[operator]
            samples, sampling_rate=self.grid.sample_rate, return_tensors="pt"
        )
        count = self.grid.stages[0].count(len(samples))
        frames = inputs["input_features"][0, :count]
        # A single frame has no variance over time, and the extractor divides by the number of frames less one.
        return (frames if count > 1 else torch.nan_to_num(frames)).numpy()

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock encoder with its mask."""
        del sizes
        return self.module(inputs, attention_mask=self.mask(inputs), **self.options)

    def accelerate(self, device: torch.device) -> None:
        """Convolutions on `[B, T, C]` and faster attention, on a GPU compiled blocks; for Parakeet's own."""
        if not isinstance(self.module, ParakeetEncoder):
            return
        if device.type == "cpu":
            dtype = self.module.subsampling.linear.weight.dtype
            if prefers_onednn(device, dtype) and has_room(self.module, dtype):
                fuse_conformer(self.module, self.padding)
                self.pads_fast = True
            return
        for block in self.blocks:
            convs: Any = block.conv
            block.conv = TimeMajorConvolution(convs, convs.norm, self.padding)
            block.self_attn = ParakeetAttention(block.self_attn, self.padding)
        fuse_blocks(self.blocks)


class LasrLogMel:
    """What `LasrFeatureExtractor` computes, without its complex absolute values and the zeros of its filters.

    Args:
        extractor: whose sizes and filters to take.
    """

    def __init__(self, extractor: Any) -> None:
        self.n_fft, self.hop = extractor.n_fft, extractor.hop_length
        self.window = torch.hann_window(extractor.win_length, periodic=False, dtype=torch.float64)
        # For squares of real and imaginary parts, which lie side by side.
        self.filters = csr_array(np.repeat(np.asarray(extractor.mel_filters, np.float32).T, 2, axis=1))

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Log mel frames, `[N]` -> `[N', F]`; spectra in float64, as there, since quiet bands lie beside loud ones."""
        frames = torch.from_numpy(samples).double().unfold(0, len(self.window), self.hop) * self.window
        squares = torch.view_as_real(torch.fft.rfft(frames, n=self.n_fft)).flatten(1).square_().float()
        return np.log(np.maximum((self.filters @ squares.numpy().T).T, LEAST_ENERGY, order="C"))


def _mel_stage(feature_extractor: object) -> Stage:
    """The short-time Fourier transform as a stage."""
    window, hop = feature_extractor.win_length, feature_extractor.hop_length  # type: ignore[attr-defined]
    # Any of the extractors can stand before any of the encoders; the checkpoint's preprocessor configuration says.
    if isinstance(feature_extractor, LasrFeatureExtractor):
        return Stage(window, hop)
    # Centred on multiples of the hop; of the N // hop + 1 frames the last is masked.
    return Stage(window, hop, window // 2, window - window // 2 - hop)


def _subsampling_stages(encoder: PreTrainedModel) -> tuple[Stage, ...]:
    """The strided convolutions between mel frames and blocks, along time."""
    front = getattr(encoder, "subsampling", None) or encoder.subsampler
    convs = [conv for conv in front.modules() if isinstance(conv, nn.Conv1d | nn.Conv2d) and conv.stride[0] > 1]
    return tuple(
        # Causal convolutions pad in their own forward, by `time_pad`.
        Stage(conv.kernel_size[0], conv.stride[0], *getattr(conv, "time_pad", conv.padding[:1] * 2))
        for conv in convs
    )


def _max_samples(feature_extractor: object) -> int | None:
    """The longest input that the extractor does not cut up by itself."""
    seconds = getattr(feature_extractor, "max_audio_clip_s", None)
    return None if seconds is None else round(seconds * feature_extractor.sampling_rate)  # type: ignore[attr-defined]


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
    return FastConformerBackbone(getattr(model, "encoder", model), feature_extractor)
