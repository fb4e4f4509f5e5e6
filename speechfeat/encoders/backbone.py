"""What a family of encoders provides."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechfeat.encoders.masking import Padding
from speechfeat.units import FrameGrid


class Backbone:
    """A model of one family: its blocks, its frame grid, and how samples go in.

    A family makes one of these, or a subclass where `normalize`, `prepare` or `forward` differ.

    Args:
        module: the model; its parameters decide the fingerprint.
        blocks: the stack that is tapped, in order; an `nn.ModuleList` or `nn.Sequential` is cut to the deepest
            layer asked for, which frees the blocks above it.
        grid: from samples to frames.
        final_norm: the norm after the last block, whose output is then layer L.
        layout: of what the blocks give, a permutation of "BTD", or with extra axes ("BCFT": every axis that is
            not B or T is folded into D), or a function from that to `[B, T, D]`.
        max_samples: the longest input that the model takes; longer ones are always cut into chunks.
        exact_frames: whether the blocks give exactly `grid.num_frames` frames for an utterance alone (false for
            models that always take one fixed window).
        pads: false for a module that cannot be told of padding; its utterances are then run one at a time.
        causal: whether a frame sees nothing that is after it.
        input_stages: the part of `grid.stages` that happens inside the module, after `prepare` (None: all).
    """

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        grid: FrameGrid,
        *,
        final_norm: nn.Module | None = None,
        layout: str | Callable[[Tensor], Tensor] = "BTD",
        max_samples: int | None = None,
        exact_frames: bool = True,
        pads: bool = True,
        causal: bool = False,
        input_stages: int | None = None,
    ) -> None:
        # Any: the attributes of a model are what its own library says.
        self.module: Any = module
        self.blocks = blocks
        self.grid = grid
        self.final_norm = final_norm
        self.layout = layout
        self.max_samples = max_samples
        self.exact_frames = exact_frames
        self.pads = pads
        self.causal = causal
        inner = len(grid.stages) if input_stages is None else input_stages
        self.padding = Padding(grid.stages[len(grid.stages) - inner :])

    # Whether several threads may run the module at a time: it keeps nothing of an input beyond its forward.
    is_reentrant = False
    # Whether a CPU runs inputs of several lengths about as fast as it runs as many of one length.
    pads_fast = False

    def normalize(self, samples: np.ndarray) -> np.ndarray:
        """What the checkpoint's preprocessor does to a whole recording's samples, `[N]` -> `[N]`."""
        return samples

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """What goes into the module for one utterance: `[N]` samples, or `[N', F]` front-end frames, float32."""
        return samples

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the module on a padded batch, `[B, N, ...]`; the taps take the states, the result is not used."""
        del sizes
        return self.module(inputs)

    def definition(self) -> dict[str, object]:
        """What decides the features beside the weights, as JSON values."""
        return {}

    def accelerate(self, device: torch.device) -> None:
        """Let modules compute the same faster on a CPU, or in half precision on a GPU."""

    def mask(self, inputs: Tensor) -> Tensor | None:
        """Attention mask `[B, N]` over the inputs, 1 where valid; None where nothing is padded."""
        if not self.padding.padded:
            return None
        return self.padding.mask(inputs.shape[1], inputs.device, depth=0).long()
