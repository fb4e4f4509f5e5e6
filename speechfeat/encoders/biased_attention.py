"""Attention with a bias for every pair of frames, through torch's fused kernels.

Relative positions of Transformer-XL (Dai et al., 2019), as Wav2Vec2-Conformer and FastConformers have them, and WavLM's
gated relative bias (Chen et al., 2022).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders.joined import join
from speechfeat.encoders.masking import Padding
from speechfeat.encoders.pair_bias import gates, shifted

# Rows of a multiple of 16 bytes.
ALIGN = 8


class RelativeAttention(nn.Module):
    """Attention with sinusoidal relative positions.

    Args:
        projections: of queries, keys, values, and of the output.
        positions: projection of the position embeddings.
        content_bias: added to queries that meet keys, `[H, D]`.
        position_bias: added to queries that meet positions, `[H, D]`.
        padding: of its encoder.
    """

    def __init__(
        self,
        projections: tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear],
        positions: nn.Linear,
        content_bias: Tensor,
        position_bias: Tensor,
        padding: Padding,
    ) -> None:
        super().__init__()
        self.project, self.out, self.positions = join(projections[:3]), projections[3], positions
        self.content_bias, self.position_bias = content_bias, position_bias
        self.padding = padding

    def forward(self, hidden_states: Tensor, embeddings: Tensor) -> Tensor:
        """States after attention, from `[B, T, D]` and the embeddings of distances `[2T - 1, D]`: `[B, T, D]`."""
        count, length, _ = hidden_states.shape
        heads, dim = self.content_bias.shape
        query, key, value = self.project(hidden_states).view(count, length, 3, heads, dim).unbind(2)
        places = self.positions(embeddings).view(-1, heads, dim)
        # Room for the rows that are read past their end, up to a multiple that fast kernels take.
        places = F.pad(places, (0, 0, 0, 0, 0, -(2 * length - 1) % ALIGN + ALIGN))
        asked = ((query + self.position_bias) * dim**-0.5).to(query.dtype)
        asked = asked.reshape(count * length, heads, dim).transpose(0, 1)
        scores = (asked @ places.permute(1, 2, 0)).view(heads, count, length, -1)
        bias = self._bias(scores)[..., :length]
        states = F.scaled_dot_product_attention(
            (query + self.content_bias).to(query.dtype).transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=bias,
        )
        return self.out(states.transpose(1, 2).flatten(2))

    # One elementwise kernel of torch's own, whose index arithmetic is ten times as fast as compiled code's for shapes
    # that change.
    @torch.compiler.disable
    def _bias(self, scores: Tensor) -> Tensor:
        """Scores of distances `[H, B, T, R]` as a bias of pairs, `[B, H, T, T]`, with the last T rounded up."""
        length = scores.shape[2]
        return shifted(scores, length, length + -length % ALIGN) + mask_bias(self.padding, length, scores)


def mask_bias(padding: Padding, length: int, like: Tensor) -> Tensor:
    """0 for valid frames and minus infinity for others, `[B, 1, 1, T]`, with T rounded up."""
    valid = F.pad(padding.mask(length, like.device), (0, -length % ALIGN))
    return torch.zeros_like(valid, dtype=like.dtype).masked_fill_(~valid, -torch.inf)[:, None, None]


class ConformerAttention(RelativeAttention):
    """Of Wav2Vec2-Conformer with `position_embeddings_type="relative"`; the arguments are its module's."""

    def __init__(self, attention: Any, padding: Padding) -> None:
        projections = (attention.linear_q, attention.linear_k, attention.linear_v, attention.linear_out)
        super().__init__(projections, attention.linear_pos, attention.pos_bias_u, attention.pos_bias_v, padding)

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, relative_position_embeddings: Tensor, **_kwargs: object
    ) -> tuple[Tensor, None]:
        """States after attention, and None where the stock module gives its weights."""
        return super().forward(hidden_states, relative_position_embeddings[0]), None


class ParakeetAttention(RelativeAttention):
    """Of FastConformers; the arguments are its module's."""

    def __init__(self, attention: Any, padding: Padding) -> None:
        projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        super().__init__(projections, attention.relative_k_proj, attention.bias_u, attention.bias_v, padding)

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, position_embeddings: Tensor, **_kwargs: object
    ) -> tuple[Tensor, None]:
        """States after attention, and None where the stock module gives its weights."""
        return super().forward(hidden_states, position_embeddings[0]), None


class GatedBiasAttention(nn.Module):
    """WavLM's attention: a bias of each distance, scaled by gates of the query.

    Args:
        attention: the stock module, which computes its attention weights whether they are wanted or not.
        padding: of its encoder.
    """

    def __init__(self, attention: Any, padding: Padding) -> None:
        super().__init__()
        self.stock = attention
        self.project = join([attention.q_proj, attention.k_proj, attention.v_proj])
        self.padding = padding

    def forward(
        self, hidden_states: Tensor, position_bias: Tensor | None = None, **_kwargs: object
    ) -> tuple[Tensor, None, Tensor]:
        """States after attention, None for its weights, and the bias of distances `[H, T, T]` for the next block."""
        stock = self.stock
        count, length, _ = hidden_states.shape
        if position_bias is None:
            position_bias = stock.compute_bias(length, length)
        gate = gates(stock, hidden_states)
        query, key, value = self.project(hidden_states).view(count, length, 3, stock.num_heads, -1).unbind(2)
        bias = self._bias(gate.to(query.dtype), position_bias.to(query.dtype))[..., :length]
        states = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias
        )
        return stock.out_proj(states.transpose(1, 2).flatten(2)), None, position_bias

    @torch.compiler.disable
    def _bias(self, gate: Tensor, position_bias: Tensor) -> Tensor:
        """Gates `[B, T, H]` times the bias of distances `[H, T, T]`: `[B, H, T, T]`, with the last T rounded up."""
        length = gate.shape[1]
        bias = F.pad(position_bias, (0, -length % ALIGN))
        return torch.addcmul(mask_bias(self.padding, length, gate), gate.transpose(1, 2)[..., None], bias)
