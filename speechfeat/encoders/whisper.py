"""The encoders of Whisper and Voxtral: log-mel frames, two convolutions, positions over one window of 30 s.

By default the definition of the checkpoint is kept: the recording is followed by silence up to the whole window, and
of the window's frames those that start within the recording are given. With `short_window` the blocks see the
recording alone. Its log-mel frames are then those of the definition (the last of them see silence behind the
recording, never a reflection of its end), cut to the ones centred within it; the convolutions meet zeros beyond, as
they do at the end of the window; positions count from 0; attention stays within the recording. It costs what the
recording's length asks for, but it is not what the checkpoint was trained on.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel, WhisperFeatureExtractor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.voxtral.modeling_voxtral import VoxtralEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechfeat.encoders.attention_functions import attend_in_blocks
from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.channels_last import convolve
from speechfeat.encoders.checkpoint import audio_encoder
from speechfeat.encoders.fused_whisper import fuse_whisper
from speechfeat.encoders.onednn import has_room
from speechfeat.encoders.options import CheckpointOptions
from speechfeat.encoders.precision import has_slow_mkl, prefers_onednn
from speechfeat.errors import ModelError
from speechfeat.units import FrameGrid, Stage

# Checkpoints of the whole model hold the encoder under one of these.
KEY_MAPPING = {r"^(model\.)?(encoder|audio_tower)\.": ""}

ENCODERS = (WhisperEncoder, VoxtralEncoder)

# Behind each of the convolutions.
APPLIED = nn.GELU()

# Frames of silence that the last but one output of the convolutions and the last one see, at least, and what the number
# of frames that are convolved is a multiple of: it has to be even, and products are made anew for each.
SILENCE = 8
KEPT_UNIT = 256

# Name of `attend_by_utterance` among transformers' attention functions.
BY_UTTERANCE = "speechfeat_by_utterance"


class WhisperBackbone(Backbone):
    """An encoder of Whisper's design with its log-mel front end.

    Args:
        encoder: one of `ENCODERS`, without a decoder.
        extractor: that of the checkpoint.
        short_window: whether the blocks see the utterance alone rather than the whole window.
    """

    is_reentrant = True
    # Whether convolutions and blocks run as `fused_whisper` has them.
    is_fused = False

    def __init__(self, encoder: PreTrainedModel, extractor: WhisperFeatureExtractor, short_window: bool) -> None:
        grid = FrameGrid(extractor.sampling_rate, (_mel_stage(extractor), *map(_stage, (encoder.conv1, encoder.conv2))))
        super().__init__(
            encoder,
            encoder.layers,
            grid,
            final_norm=encoder.layer_norm,
            max_samples=encoder.config.max_source_positions * grid.hop,
            exact_frames=short_window,
            input_stages=2,
        )
        self.short_window = short_window
        self.extractor = copy.copy(extractor)
        # Dither is random noise: with it, no two runs would agree.
        self.extractor.dither = 0.0
        if short_window:
            AttentionInterface.register(BY_UTTERANCE, attend_by_utterance)
            encoder.set_attn_implementation(BY_UTTERANCE)

    def definition(self) -> dict[str, object]:
        """The window and the log-mel front end."""
        names = ("feature_size", "n_fft", "hop_length")
        return {"short_window": self.short_window} | {name: getattr(self.extractor, name) for name in names}

    def accelerate(self, device: torch.device) -> None:
        """On a CPU fewer passes over states, and faster attention."""
        encoder = self.module
        if device.type != "cpu" or self.short_window:
            return
        dtype = encoder.conv1.weight.dtype
        if prefers_onednn(device, dtype) and has_room(encoder, dtype):
            fuse_whisper(encoder.layers, self.padding)
            self.is_fused = True
        # Fused or not: a block whose layers are in 8 bits, or adapters, runs as the library has it.
        if has_slow_mkl(device):
            attend_in_blocks(encoder)

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Log-mel frames, `[N]` -> `[N', F]`: of the utterance, or of the whole window."""
        window = self.max_samples // self.extractor.hop_length
        heard = self._log_mel(samples, window)
        if self.short_window:
            return np.ascontiguousarray(heard[: self.grid.stages[0].count(len(samples))])
        # Silence stands at the floor of the logarithm or 8 decades below the loudest value: after the extractor's
        # (x + 4) / 4, at -1.5 or 2 below the maximum.
        frames = np.full((window, heard.shape[1]), max(-1.5, heard.max() - 2.0), np.float32)
        frames[: len(heard)] = heard
        return frames

    def _log_mel(self, samples: np.ndarray, window: int) -> np.ndarray:
        """The extractor's log-mel of every frame that reaches into the samples; those beyond are silent."""
        hop, reach = self.extractor.hop_length, self.extractor.n_fft // 2
        num_frames = min(window, -(-(len(samples) + reach) // hop))
        padded = np.pad(samples, (0, num_frames * hop - len(samples)))
        features = self.extractor(
            padded,
            sampling_rate=self.extractor.sampling_rate,
            padding=False,
            truncation=False,
            return_tensors="np",
        )
        return features.input_features[0].T

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock model on its window, or its modules on what there is."""
        features = inputs.transpose(1, 2)
        if self.short_window:
            return self._forward_short(features, sizes)
        return self.module(features) if torch.is_grad_enabled() or not self.is_fused else self._forward_fused(features)

    def _forward_fused(self, features: Tensor) -> Tensor:
        encoder = self.module
        states = self._stem_of_heard(features) + encoder.embed_positions.weight
        for block in encoder.layers:
            states = block(states)
        return encoder.layer_norm(states)

    def _stem_of_heard(self, features: Tensor) -> Tensor:
        """The convolutions of a window, `[B, F, N']` -> `[B, T, D]`, run on what is before its silence.

        Frames of silence are all the same, and so is what the convolutions give of them, but for the last one, which
        meets the zeros behind the window.
        """
        encoder = self.module
        width = features.shape[2]
        heard = (features != features[:, :, -1:]).any(1).any(0).nonzero()
        kept = int(heard[-1]) + 1 + SILENCE if len(heard) else SILENCE
        kept = min(width, -(-kept // KEPT_UNIT) * KEPT_UNIT)
        states = features[:, :, :kept]
        for conv in (encoder.conv1, encoder.conv2):
            states = convolve(conv, states, APPLIED)
        states = states.transpose(1, 2)
        silent = states[:, -2:-1].expand(-1, len(encoder.embed_positions.weight) - states.shape[1], -1)
        return torch.cat((states[:, :-1], silent, states[:, -1:]), 1) if kept < width else states

    def _forward_short(self, features: Tensor, sizes: Sequence[int]) -> Tensor:
        # The stock forward refuses anything but the whole window; these are its own steps. Whisper's weights raise
        # the rounding errors of its first convolution and its attention to some 1e-5. Convolution and attention
        # libraries round by the shape of their inputs, so both go over each utterance by itself; all else in the
        # blocks works on single frames and takes the batch as a whole.
        encoder = self.module
        stems = [self._stem(features[row : row + 1, :, :size])[0] for row, size in enumerate(sizes)]
        states = nn.utils.rnn.pad_sequence(stems, batch_first=True)
        states = states + encoder.embed_positions.weight[: states.shape[1]]
        for layer in encoder.layers:
            states = layer(states, self.padding.lengths())
        return encoder.layer_norm(states)

    def _stem(self, features: Tensor) -> Tensor:
        """The convolutions, `[B, F, N']` -> `[B, T, D]`."""
        states = nn.functional.gelu(self.module.conv1(features))
        return nn.functional.gelu(self.module.conv2(states)).transpose(1, 2)


def attend_by_utterance(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, lengths: object, **options: object
) -> tuple[Tensor, None]:
    """Attention of each utterance over its own frames, in the place of transformers' attention functions.

    Args:
        module: the attention layer.
        query: of all heads, like `key` and `value`.
        key: what the queries are compared with.
        value: what is summed.
        lengths: valid frames of each utterance; anything but a list is a mask for the stock function.
        options: of the stock function.

    Shape:
        query, key, value `[B, H, T, D]` -> `[B, T, H, D]`, zeros past each length
    """
    if not isinstance(lengths, list):
        return sdpa_attention_forward(module, query, key, value, lengths, **options)
    outputs = torch.zeros_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    for row, length in enumerate(lengths):
        own = (part[row : row + 1, :, :length] for part in (query, key, value))
        outputs[row, :length] = sdpa_attention_forward(module, *own, None, **options)[0][0]
    return outputs, None


def _mel_stage(extractor: WhisperFeatureExtractor) -> Stage:
    """The STFT: one frame for every hop that starts within the samples, centred on the hop's first sample.

    The first weight of the periodic Hann window is 0, so that of `n_fft` samples a frame hears `n_fft - 1`.
    """
    reach = extractor.n_fft // 2 - 1
    return Stage(2 * reach + 1, extractor.hop_length, reach, reach)


def _stage(conv: nn.Conv1d) -> Stage:
    padding = int(conv.padding[0])
    return Stage(conv.kernel_size[0], conv.stride[0], padding, padding)


def encoder_config(config: PretrainedConfig) -> PretrainedConfig:
    """The audio encoder's own part of a configuration."""
    return getattr(config, "audio_config", config)


def model_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The encoder alone: the decoder is never loaded."""
    return WhisperEncoder if config.model_type == "whisper" else VoxtralEncoder


def backbone(model: PreTrainedModel, feature_extractor: object, options: CheckpointOptions) -> WhisperBackbone:
    """Wrap the encoder of a model with the preprocessing of its checkpoint.

    Raises:
        ModelError: if there is no encoder in it, or the preprocessing is of another model.
    """
    encoder = audio_encoder(model, ENCODERS, "input_features")
    if not isinstance(feature_extractor, WhisperFeatureExtractor):
        raise ModelError(
            f"{type(encoder).__name__} needs a WhisperFeatureExtractor, not a {type(feature_extractor).__name__}"
        )
    found = (feature_extractor.feature_size, feature_extractor.nb_max_frames)
    needed = (encoder.config.num_mel_bins, 2 * encoder.config.max_source_positions)
    if found != needed:
        raise ModelError(
            f"the feature extractor gives (mel bands, frames) = {found}, the model takes {needed}; "
            "they come from different checkpoints"
        )
    return WhisperBackbone(encoder, feature_extractor, options.short_window)
