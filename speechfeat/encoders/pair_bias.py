"""A bias for every pair of frames, of what is known of their distances, and WavLM's attention with it on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders.blocked_attention import attend, is_worth


def shifted(scores: Tensor, length: int, width: int) -> Tensor:
    """Scores of distances `[H, B, T, R]` as those of pairs of frames, without a copy: `[B, H, T, width]`.

    The score of frames i and j stands in row i at T - 1 - i + j.
    """
    heads, count, _, room = scores.shape
    strides = [length * room, count * length * room, room - 1, 1]
    return scores.as_strided([count, heads, length, width], strides, length - 1)


class UnweightedGatedAttention(nn.Module):
    """What WavLM's attention becomes on a CPU: it gives no weights, and where that pays scores stay in the cache."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """As `GatedBiasAttention.forward`, with a mask `[B, T]`; for gradients the stock module runs."""
        stock: Any = self
        if torch.is_grad_enabled() or self.training:
            return super().forward(hidden_states, attention_mask, position_bias, **options)
        count, length, _ = hidden_states.shape
        query, key, value = (
            layer(hidden_states).view(count, length, stock.num_heads, -1).transpose(1, 2)
            for layer in (stock.q_proj, stock.k_proj, stock.v_proj)
        )
        gate = gates(stock, hidden_states)
        in_blocks = attention_mask is None and is_worth(key)
        bias = position_bias
        if bias is None:
            # torch's kernel takes it in the dtype of the queries; blocks add it to scores in float32.
            bias = distance_bias(stock, length, torch.float32 if in_blocks else query.dtype)
        if in_blocks:
            states = _attend_gated(query, key, value, gate, bias)
        else:
            gated = gate.to(bias.dtype).transpose(1, 2)[..., None] * bias
            if attention_mask is not None:
                gated.masked_fill_(~attention_mask[:, None, None].bool(), -torch.inf)
            states = F.scaled_dot_product_attention(query, key, value, attn_mask=gated).transpose(1, 2)
        return stock.out_proj(states.flatten(2)), None, bias


def _attend_gated(query: Tensor, key: Tensor, value: Tensor, gate: Tensor, bias: Tensor) -> Tensor:
    """Attention `[B, T, H, D]` in blocks, with the gates `[B, T, H]` of a bias `[H, T, T]`."""

    def add_bias(scores: Tensor, row: int, head: int, first: int) -> None:
        last = first + len(scores)
        scores.addcmul_(gate[row, first:last, head, None], bias[head, first:last])

    return attend(query, key, value, query.shape[-1] ** -0.5, add_bias)


def distance_bias(attention: Any, length: int, dtype: torch.dtype) -> Tensor:
    """What WavLM's `compute_bias` gives, `[H, T, T]`, looked up once for each distance and not for each pair."""
    before, after = attention.compute_bias(length, 1)[..., 0], attention.compute_bias(1, length)[:, 0]
    distances = torch.cat([before.flip(1), after[:, 1:]], dim=1).to(dtype)
    return torch.stack([distances[:, first : first + length] for first in reversed(range(length))], dim=1)


def gates(attention: Any, hidden_states: Tensor) -> Tensor:
    """Factors by which the frames of WavLM scale the bias of distances, `[B, T, D]` -> `[B, T, H]`."""
    split = hidden_states.unflatten(-1, (attention.num_heads, -1))
    pairs = attention.gru_rel_pos_linear(split).unflatten(-1, (2, 4)).sum(-1).sigmoid()
    return pairs[..., 0] * (pairs[..., 1] * attention.gru_rel_pos_const.view(-1) - 1) + 2
