"""The backbone of FastConformers on log mel frames, whoever defines their modules."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.fused_conformer import fuse_conformer
from speechfeat.encoders.log_mel import LogMel
from speechfeat.encoders.masking import attend_somewhere
from speechfeat.encoders.onednn import has_room
from speechfeat.encoders.precision import prefers_onednn
from speechfeat.units import FrameGrid, Stage


class FastConformerBackbone(Backbone):
    """A FastConformer on log mel frames.

    Args:
        encoder: the conformer, without decoder or head.
        log_mel: its front end.
        is_parakeet: whether its modules are Parakeet's, by their names and what they compute.
        options: of the encoder's call.
    """

    def __init__(
        self, encoder: nn.Module, log_mel: LogMel, *, is_parakeet: bool, options: dict[str, Any] | None = None
    ) -> None:
        modules: Any = encoder
        self.log_mel, self.is_reentrant, self.options = log_mel, is_parakeet, options or {}
        subsampling = _subsampling_stages(modules)
        super().__init__(
            encoder,
            modules.layers,
            FrameGrid(log_mel.sample_rate, (log_mel.stage, *subsampling)),
            final_norm=getattr(encoder, "out_norm", None),
            max_samples=log_mel.max_samples,
            input_stages=len(subsampling),
        )
        attend_somewhere(modules.layers, self.padding)

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Log mel frames, normalised over the utterance if the checkpoint's are, `[N', F]`."""
        return self.log_mel(samples)

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the encoder with its mask."""
        del sizes
        return self.module(inputs, attention_mask=self.mask(inputs), **self.options)

    def accelerate(self, device: torch.device) -> None:
        """Convolutions on `[B, T, C]` and faster attention, on a GPU compiled blocks; for Parakeet's own."""
        if not self.is_reentrant:
            return
        if device.type == "cpu":
            dtype = self.module.subsampling.linear.weight.dtype
            if prefers_onednn(device, dtype) and has_room(self.module, dtype):
                fuse_conformer(self.module, self.padding)
                self.pads_fast = True
        else:
            self._compile()

    def _compile(self) -> None:
        # They import torch's compiler, for which a process on a CPU need not wait.
        from speechfeat.encoders.biased_attention import ParakeetAttention
        from speechfeat.encoders.compiling import fuse_blocks
        from speechfeat.encoders.time_major import TimeMajorConvolution

        for block in self.blocks:
            convs: Any = block.conv
            block.conv = TimeMajorConvolution(convs, convs.norm, self.padding)
            block.self_attn = ParakeetAttention(block.self_attn, self.padding)
        fuse_blocks(self.blocks)


def _subsampling_stages(encoder: Any) -> tuple[Stage, ...]:
    """The strided convolutions between mel frames and blocks, along time."""
    front = getattr(encoder, "subsampling", None) or encoder.subsampler
    convs = [conv for conv in front.modules() if isinstance(conv, nn.Conv1d | nn.Conv2d) and conv.stride[0] > 1]
    return tuple(
        # Causal convolutions pad in their own forward, by `time_pad`.
        Stage(conv.kernel_size[0], conv.stride[0], *getattr(conv, "time_pad", conv.padding[:1] * 2))
        for conv in convs
    )
