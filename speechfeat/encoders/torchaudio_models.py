"""Encoders of torchaudio on mel frames: `Conformer`, and the Emformer transcriber of its RNN-T models."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.models import Conformer
from torchaudio.pipelines import RNNTBundle
from torchaudio.transforms import MelSpectrogram

from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.masking import MaskedGroupNorm, Padding, zero_padding_before
from speechfeat.errors import ModelError
from speechfeat.units import FrameGrid, Stage

# The power of the square of 16-bit samples' full scale: torchaudio's recipes take mel energies at that scale.
GAIN = 32767.0**2


class FrontEnd(Protocol):
    """From samples to the features that a model takes.

    Attributes:
        grid: the `FrameGrid` of its frames.
    """

    grid: FrameGrid

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Features `[T, F]` float32 of samples `[N]`, with T = `grid.num_frames(N)`."""


class MelFrontEnd:
    """Mel energies as torchaudio's RNN-T recipes have them: logarithm above e, linear below.

    Args:
        num_mels: F.
        sample_rate: in Hz.
        n_fft: samples in a window.
        hop: samples between two windows.
        extract: samples `[N]` to features `[T, F]` over the same windows; None for log-mel without normalisation.

    Example:
        >>> MelFrontEnd().prepare(np.zeros(16000, np.float32)).shape
        (101, 80)
    """

    def __init__(
        self,
        num_mels: int = 80,
        *,
        sample_rate: int = 16000,
        n_fft: int = 400,
        hop: int = 160,
        extract: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.grid = FrameGrid(sample_rate, (Stage(n_fft, hop, n_fft // 2, n_fft - n_fft // 2),))
        self._mirrored = n_fft // 2
        mel = MelSpectrogram(sample_rate, n_fft=n_fft, hop_length=hop, n_mels=num_mels)
        self._extract = extract or (lambda samples: _piecewise_log(mel(samples).T * GAIN))

    @torch.inference_mode()
    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Features `[T, F]` of samples `[N]`."""
        # The windows at both ends mirror half a window, which a shorter input does not have.
        missing = max(0, self._mirrored + 1 - len(samples))
        features = self._extract(torch.from_numpy(np.pad(samples, (0, missing)).astype(np.float32, copy=False)))
        return features[: self.grid.num_frames(len(samples))].contiguous().numpy()


def _piecewise_log(energies: Tensor) -> Tensor:
    return torch.where(energies > math.e, energies.clamp_min(math.e).log(), energies / math.e)


def mel_of_bundle(bundle: RNNTBundle) -> MelFrontEnd:
    """The front end of a bundle, with its normalisation; the right context is added by the backbone."""
    # The streaming one is the other without the right context.
    extractor = bundle.get_streaming_feature_extractor()
    return MelFrontEnd(
        bundle.n_mels,
        sample_rate=bundle.sample_rate,
        n_fft=bundle.n_fft,
        hop=bundle.hop_length,
        extract=lambda samples: extractor(samples)[0],
    )


class MelBackbone(Backbone):
    """A model behind a front end of its own: what both kinds share.

    Args:
        module: the model.
        blocks: its blocks, which run in the order "TBD".
        front_end: samples to features.
        stages: of the module, after the front end.
    """

    def __init__(
        self, module: nn.Module, blocks: Sequence[nn.Module], front_end: FrontEnd, stages: Sequence[Stage] = ()
    ) -> None:
        grid = FrameGrid(front_end.grid.sample_rate, (*front_end.grid.stages, *stages))
        super().__init__(module, blocks, grid, layout="TBD", input_stages=len(stages))
        self.front_end = front_end

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Features `[T, F]` of one utterance."""
        return self.front_end.prepare(samples)


class ConformerBackbone(MelBackbone):
    """`torchaudio.models.Conformer`."""

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock model with its lengths."""
        return self.module(inputs, torch.tensor(sizes, device=inputs.device))


def conformer_backbone(model: Conformer, front_end: FrontEnd | None) -> ConformerBackbone:
    """Wrap a Conformer; its convolutions see zeros past each length, its group norms only the valid frames."""
    width = model.conformer_layers[0].self_attn.embed_dim
    backbone = ConformerBackbone(model, model.conformer_layers, front_end or MelFrontEnd(width))
    for layer in model.conformer_layers:
        steps = layer.conv_module.sequential
        for position, step in enumerate(steps):
            if isinstance(step, nn.Conv1d) and step.groups > 1:
                zero_padding_before(step, backbone.padding)
            elif isinstance(step, nn.GroupNorm):
                steps[position] = MaskedGroupNorm(step, backbone.padding, depth=-1)
    return backbone


class EmformerBackbone(MelBackbone):
    """The transcriber of torchaudio's RNN-T models: frames merged by fours, then Emformer blocks over segments.

    It takes the frames of an utterance and its right context, which are zeros. Layer L is what the last block gives;
    the projection after it belongs to the joiner.
    """

    def __init__(self, module: Any, front_end: FrontEnd) -> None:
        self.stride: int = module.time_reduction.stride
        # Of merged frames; what the model was built with is a multiple, or its remainder reaches no block.
        self.right_context: int = module.transformer.right_context_length * self.stride
        merge = Stage(self.stride, self.stride)
        super().__init__(module, module.transformer.emformer_layers, front_end, (merge,))

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the stock transcriber on the frames and the right context."""
        del sizes
        lengths = torch.tensor(self.padding.lengths(), device=inputs.device) * self.stride
        return self.module(nn.functional.pad(inputs, (0, 0, 0, self.right_context)), lengths)


def emformer_backbone(module: Any, front_end: FrontEnd | None) -> EmformerBackbone:
    """Wrap a transcriber.

    Raises:
        ModelError: if it is not built on Emformer.
    """
    emformer: Any = getattr(module, "transformer", None)
    if not hasattr(emformer, "emformer_layers"):
        raise ModelError(f"{type(module).__name__} has no Emformer; tap it with speechfeat.wrap_module")
    backbone = EmformerBackbone(module, front_end or MelFrontEnd(module.input_linear.in_features))
    emformer._gen_right_context = _RightContext(emformer._gen_right_context, emformer, backbone.padding)
    return backbone


class _RightContext:
    """The frames that each segment may look ahead to, in the order of the segments.

    Alone, the last segment of an utterance looks at the frames behind the utterance's end. In a batch it is not the
    last, and the stock model gives it the frames behind the segment's end, which differ where the segment is not full.

    Args:
        stock: the model's own, for one utterance.
        emformer: the model.
        padding: of the batch in flight.
    """

    def __init__(self, stock: Callable[[Tensor], Tensor], emformer: Any, padding: Padding) -> None:
        self.stock = stock
        self.size = emformer.right_context_length
        self.segment = emformer.segment_length
        self.padding = padding

    def __call__(self, inputs: Tensor) -> Tensor:
        """Merged frames `[T, B, D]` to `[segments * right context, B, D]`."""
        context = self.stock(inputs)
        if not (self.padding.padded and self.size):
            return context
        for row, length in enumerate(self.padding.lengths()):
            end = -(-length // self.segment) * self.size
            context[end - self.size : end, row] = inputs[length : length + self.size, row]
        return context
