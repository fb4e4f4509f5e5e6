"""Blocks of wav2vec 2.0 and its kin in half precision on a CPU with AMX: frames in shares that its cores multiply.

All but attention goes over shares of frames, whose states stay in the cache from the first product to the last;
attention goes over the valid frames of each utterance. Activations and residuals are applied inside of products
(`speechfeat.encoders.onednn`), and residuals stay in float32. Blocks change their class and keep their names and
weights; for training they run as before.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders.joined import joined
from speechfeat.encoders.masking import Padding
from speechfeat.encoders.modules import change_class
from speechfeat.encoders.onednn import GELU, is_gelu, laid_out, multiply, normed
from speechfeat.encoders.pair_bias import distance_bias, gates
from speechfeat.encoders.precision import is_plain
from speechfeat.encoders.shapes import lengthen, shares, widened


def fuse_waveform(blocks: Iterable[nn.Module], padding: Padding, *, is_pre_norm: bool) -> None:
    """Let blocks run so, in place; those without GELU, or with an adapter of their own, stay as they are."""
    for block in blocks:
        stock: Any = block
        if is_gelu(stock.feed_forward.intermediate_act_fn) and getattr(stock, "adapter_layer", None) is None:
            change_class(block, FusedWaveformBlock)
            block.__dict__.update(padding=padding, is_pre_norm=is_pre_norm)


class FusedWaveformBlock(nn.Module):
    """What a block becomes; one of WavLM gives its bias of distances as well, for the next."""

    padding: Padding
    is_pre_norm: bool

    def forward(self, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor | tuple[Tensor, Tensor]:
        """States after the block, `[B, T, D]` float32; which frames are valid is known from `padding`."""
        stock: Any = self
        attention, half = stock.attention, stock.feed_forward
        layers = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj)
        is_known = all(map(is_plain, (*layers, half.intermediate_dense, half.output_dense)))
        if torch.is_grad_enabled() or self.training or not is_known:
            return super().forward(hidden_states, *args, **options)
        count, length, dim = hidden_states.shape
        bias = options.get("position_bias")
        if bias is None and hasattr(attention, "compute_bias"):
            bias = distance_bias(attention, widened(length), attention.q_proj.weight.dtype)
        states = hidden_states.float().reshape(count * length, dim)
        heard = self._attend(states.view(count, length, dim), bias)
        outputs = torch.empty_like(states)
        for share in shares(len(states)):
            outputs[share] = self._finish(states[share], heard[share])
        outputs = outputs.view(count, length, dim)
        return outputs if bias is None else (outputs, bias)

    def _attend(self, states: Tensor, bias: Tensor | None) -> Tensor:
        """What attention hears, `[B, T, D]` -> `[B T, D]`; of frames that are not valid nothing."""
        stock: Any = self
        count, length, dim = states.shape
        attention = stock.attention
        asking = normed(states, stock.layer_norm) if self.is_pre_norm else states
        weight, added = joined(attention, "projection", (attention.q_proj, attention.k_proj, attention.v_proj))
        width = widened(length)
        rows = lengthen(asking.to(weight.dtype), width).flatten(0, 1)
        projected = rows.new_empty(len(rows), 3 * dim)
        for share in shares(len(rows)):
            projected[share] = multiply(rows[share], weight, added)
        projected = projected.view(count, width, 3, attention.num_heads, -1)
        gate = None if bias is None else gates(attention, rows.view(count, width, dim)).to(rows.dtype)
        heard = rows.new_zeros(count, length, attention.num_heads, dim // attention.num_heads)
        for alike, valid in _runs(self.padding.lengths()):
            span = widened(valid)
            query, key, value = projected[alike, :span].permute(2, 0, 3, 1, 4).unbind(0)
            scaled = None
            if gate is not None and bias is not None:
                scaled = gate[alike, :span].transpose(1, 2)[..., None] * bias[:, :span, :span]
            of_pairs = _leave_out(scaled, valid, query)
            of_frames = F.scaled_dot_product_attention(query, key, value, of_pairs)
            heard[alike, :valid] = of_frames[:, :, :valid].transpose(1, 2)
        return heard.flatten(0, 1).flatten(1)

    def _finish(self, states: Tensor, heard: Tensor) -> Tensor:
        """States `[n, D]` after the block, of those before it and what they heard."""
        stock: Any = self
        out, half = stock.attention.out_proj, stock.feed_forward
        first, last = half.intermediate_dense, half.output_dense
        states = multiply(heard, laid_out(out), out.bias, add=states)
        if not self.is_pre_norm:
            states = normed(states, stock.layer_norm)
        inner = normed(states, stock.final_layer_norm) if self.is_pre_norm else states
        inner = multiply(inner.to(first.weight.dtype), laid_out(first), first.bias, GELU)
        states = multiply(inner, laid_out(last), last.bias, add=states)
        return states if self.is_pre_norm else normed(states, stock.final_layer_norm)


def _runs(lengths: Sequence[int]) -> list[tuple[slice, int]]:
    """Neighbours of one length, and that length.

    Example:
        >>> _runs([9, 9, 7])
        [(slice(0, 2, None), 9), (slice(2, 3, None), 7)]
    """
    runs, first = [], 0
    for length, same in groupby(lengths):
        last = first + len(list(same))
        runs.append((slice(first, last), length))
        first = last
    return runs


def _leave_out(bias: Tensor | None, valid: int, query: Tensor) -> Tensor | None:
    """A bias of pairs `[B, H, T, T]`, or None, as attention of queries `[B, H, T, D]` takes it; none see padding."""
    count, heads, length, _ = query.shape
    if valid < length:
        bias = query.new_zeros(1, 1, 1, length) if bias is None else bias
        bias[..., valid:] = -torch.inf
    return None if bias is None else bias.expand(count, heads, length, length)
