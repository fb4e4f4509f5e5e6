"""Blocks that run on the valid frames of a batch alone, laid end to end, instead of on a padded batch.

What a frame meets outside of attention is itself; so a block of attention and feed-forward layers needs no padding, and
its attention needs the borders of the utterances only (FlashAttention, Dao 2023, in its form for sequences of different
lengths).
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders.joined import join
from speechfeat.encoders.masking import Padding


class Packing:
    """The borders of the utterances in flight.

    Args:
        padding: of their encoder.
    """

    def __init__(self, padding: Padding) -> None:
        self.padding = padding
        self._shape = (0, 0)
        self._rows = torch.zeros(0, dtype=torch.long)
        self.borders = torch.zeros(1, dtype=torch.int32)

    @property
    def lengths(self) -> Sequence[int]:
        """Frames of each utterance."""
        return self.padding.lengths()

    def pack(self, states: Tensor) -> Tensor:
        """Lay the valid frames end to end, `[B, T, D]` -> `[1, N, D]`."""
        count, width, dim = states.shape
        self._shape = (count, width)
        borders = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32)
        self.borders = borders.to(states.device, non_blocking=True)
        flat = states.reshape(count * width, dim)
        if self.padding.padded:
            parts = [torch.arange(row * width, row * width + length) for row, length in enumerate(self.lengths)]
            self._rows = torch.cat(parts).to(states.device, non_blocking=True)
            flat = flat.index_select(0, self._rows)
        return flat[None]

    def unpack(self, states: Tensor) -> Tensor:
        """Pad again with zeros, `[1, N, D]` -> `[B, T, D]`."""
        if not self.padding.padded:
            return states.view(*self._shape, -1)
        count, width = self._shape
        flat = states.new_zeros(count * width, states.shape[-1])
        return flat.index_copy_(0, self._rows, states[0]).view(count, width, -1)

    def enter(self, block: nn.Module) -> None:
        """Pack what enters a block, the first of a stack."""

        def hook(_block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            return (self.pack(args[0]), *args[1:]), kwargs

        block.register_forward_pre_hook(hook, with_kwargs=True)

    # The borders change from batch to batch: compiled code would be made anew for every one.
    @torch.compiler.disable
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of every frame to all frames of its utterance, `[N, H, D]` each -> `[N, H, D]`."""
        if query.is_cuda:
            from torch.nn.attention.varlen import varlen_attn  # defines operators, which takes a while

            longest = max(self.lengths)
            states = varlen_attn(query, key, value, self.borders, self.borders, longest, longest)
            assert isinstance(states, Tensor)
            return states
        parts = (part.split(list(self.lengths)) for part in (query, key, value))
        whole = [
            F.scaled_dot_product_attention(*(part.transpose(0, 1) for part in one)).transpose(0, 1)
            for one in zip(*parts, strict=True)
        ]
        return torch.cat(whole)


class PackedAttention(nn.Module):
    """Self-attention over packed frames, with one product for queries, keys and values.

    Args:
        attention: of transformers, with `q_proj`, `k_proj`, `v_proj` and `out_proj`.
        packing: of the frames.
    """

    def __init__(self, attention: Any, packing: Packing) -> None:
        super().__init__()
        self.project = join([attention.q_proj, attention.k_proj, attention.v_proj])
        self.out_proj = attention.out_proj
        self.num_heads = attention.num_heads
        self.packing = packing

    def forward(self, hidden_states: Tensor, **_kwargs: object) -> tuple[Tensor, None]:
        """States after attention, `[1, N, D]`, and None where the stock module gives its weights."""
        count = hidden_states.shape[1]
        query, key, value = self.project(hidden_states).view(count, 3, self.num_heads, -1).unbind(1)
        return self.out_proj(self.packing.attend(query, key, value).reshape(1, count, -1)), None


def pack_blocks(blocks: Sequence[Any], packing: Packing) -> None:
    """Let a stack of transformers' blocks with an `attention` run on packed frames, in place."""
    packing.enter(blocks[0])
    for block in blocks:
        block.attention = PackedAttention(block.attention, packing)
