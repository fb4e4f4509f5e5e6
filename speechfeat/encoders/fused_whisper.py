"""Whisper's blocks on a CPU: few passes over states, and in the deepest one no frames that nobody asks for.

Of a window of 30 s the frames of a recording are wanted, and those of the silence behind it are heard by them: in every
block but the deepest all are needed, there only as keys and values. Keys and values are one product; activations and
residuals are applied inside of products (`speechfeat.encoders.onednn`). Blocks change their class and keep their names
and weights; for training they run as before. How long one takes beside the library's: `python -m
benchmarks.cpu_kernels`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders.blocked_attention import attend, is_worth
from speechfeat.encoders.joined import joined
from speechfeat.encoders.masking import Padding
from speechfeat.encoders.modules import change_class
from speechfeat.encoders.onednn import GELU, is_gelu, laid_out, multiply, normed
from speechfeat.encoders.precision import is_plain
from speechfeat.encoders.shapes import writes_code

# Where products are slow to make for a new number of frames, those of the deepest block have a multiple of this.
WANTED_UNIT = 128


def fuse_whisper(blocks: nn.ModuleList, padding: Padding) -> None:
    """Let blocks of an encoder of Whisper's design run so, in place; those without GELU stay as they are."""
    for block in blocks:
        activation: Any = block.activation_fn
        if is_gelu(activation):
            change_class(block, FusedWhisperBlock)
            # Not as a module of the block, which is one of the blocks itself.
            block.__dict__.update(padding=padding, blocks=blocks)


class FusedWhisperBlock(nn.Module):
    """What a block becomes."""

    padding: Padding
    blocks: nn.ModuleList

    def forward(self, hidden_states: Tensor, attention_mask: object = None, **options: Any) -> Tensor:
        """States after the block, `[B, T, D]`; of the last one those of the first frames, if no more are wanted."""
        stock: Any = self
        attention = stock.self_attn
        layers = (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj, stock.fc1, stock.fc2)
        as_before = torch.is_grad_enabled() or self.training or not all(map(is_plain, layers))
        if as_before or attention_mask is not None:
            return super().forward(hidden_states, attention_mask, **options)
        wanted = self.padding.wanted if self.blocks[-1] is self else None
        if wanted is not None and writes_code(hidden_states.device, stock.fc1.weight.dtype):
            wanted = -(-wanted // WANTED_UNIT) * WANTED_UNIT
        states = _attention(hidden_states, stock.self_attn_layer_norm, attention, wanted)
        inner = normed(states, stock.final_layer_norm, stock.fc1)
        inner = multiply(inner, laid_out(stock.fc1), stock.fc1.bias, GELU)
        return multiply(inner, laid_out(stock.fc2), stock.fc2.bias, add=states)


def _attention(states: Tensor, norm: nn.LayerNorm, attention: Any, wanted: int | None) -> Tensor:
    """The first states, or all, and what attention gives of them."""
    count, length, _ = states.shape
    heard = normed(states, norm, attention.q_proj)
    # Keys of Whisper have no bias.
    weight, bias = joined(attention, "keys and values", (attention.k_proj, attention.v_proj))
    key, value = multiply(heard, weight, bias).view(count, length, 2, attention.num_heads, -1).transpose(1, 3).unbind(2)
    out = attention.out_proj
    states, asking = states[:, :wanted], heard[:, :wanted]
    query = multiply(asking, laid_out(attention.q_proj), attention.q_proj.bias)
    query = query.unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
    if is_worth(key):
        given = attend(query, key, value, attention.scaling)
    else:
        given = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling).transpose(1, 2)
    return multiply(given.flatten(2), laid_out(out), out.bias, add=states)
