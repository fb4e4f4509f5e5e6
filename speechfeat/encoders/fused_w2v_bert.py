"""Blocks of w2v-BERT 2.0 on a CPU, as those of FastConformers: residuals and activations inside of products.

They differ in attention, whose positions are clamped distances (Shaw et al., arXiv:1803.02155), and in the convolution,
which sees no later frame and has a layer norm behind it.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders.channels_last import convolve
from speechfeat.encoders.conformer_code import add_heard, gated, hear, projected
from speechfeat.encoders.fused_conformer import (
    Convolution,
    FusedBlock,
    Gathered,
    Half,
    Parts,
    attended,
    change_block,
    norm_of,
)
from speechfeat.encoders.joined import joined
from speechfeat.encoders.masking import Padding
from speechfeat.encoders.onednn import applied_of, laid_out, multiply, normed
from speechfeat.encoders.pair_bias import shifted


def fuse_w2v_bert(blocks: Iterable[nn.Module], padding: Padding) -> None:
    """Let blocks whose attention is a `RelativeKeyAttention` run so, in place."""
    for block in blocks:
        change_block(block, FusedBertBlock, padding=padding)


class ClampedDistances(NamedTuple):
    """Attention with an embedding of each distance up to some on the left and some on the right."""

    norm: nn.LayerNorm
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    embedding: nn.Embedding
    left: int
    right: int
    heads: int

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """Those that multiply."""
        return self.query, self.key, self.value, self.out


class FusedBertBlock(FusedBlock):
    """What a block becomes."""

    @staticmethod
    def parts(block: Any) -> Parts:
        """Its modules."""
        one, two, attention, conv = block.ffn1, block.ffn2, block.self_attn.attention, block.conv_module
        first, second = applied_of(one.intermediate_act_fn), applied_of(two.intermediate_act_fn)
        return Parts(
            Half(block.ffn1_layer_norm, one.intermediate_dense, first, one.output_dense),
            ClampedDistances(
                block.self_attn_layer_norm,
                *(attention.linear_q, attention.linear_k, attention.linear_v, attention.linear_out),
                attention.distance_embedding,
                *(attention.left_max_position_embeddings, attention.right_max_position_embeddings),
                attention.num_heads,
            ),
            Convolution(
                conv.layer_norm,
                *(conv.pointwise_conv1, conv.depthwise_conv, conv.depthwise_layer_norm, applied_of(conv.activation)),
                conv.pointwise_conv2,
            ),
            Half(block.ffn2_layer_norm, two.intermediate_dense, second, two.output_dense),
            block.final_layer_norm,
        )

    def gather(self, parts: Parts) -> Gathered:
        """The weights of its feed-forward modules."""
        return Gathered(parts, parts.before.weights(), None, None, parts.behind.weights(), norm_of(parts.norm))

    def attend(self, states: Tensor, found: Gathered) -> Tensor:
        """States and what attention gives of them."""
        stock: Any = self
        attention: ClampedDistances = found.parts.attention
        weight, bias = joined(stock.self_attn, "projection", (attention.query, attention.key, attention.value))
        asked = projected(states, norm_of(attention.norm), weight, bias, attended(states, weight))
        query, key, value = asked.unflatten(2, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        heard = hear(query, key, value, _pairs(query, attention), self.padding.lengths())
        return add_heard(states, heard, laid_out(attention.out), attention.out.bias)

    def convolve(self, states: Tensor, found: Gathered) -> Tensor:
        """States and what the convolution module gives of them; frames that are padded come later than all others."""
        stock: Any = self
        norm, first, middle, after, _, last = found.parts.convolution
        inner = F.pad(gated(states, norm_of(norm), laid_out(first), first.bias), (0, 0, middle.kernel_size[0] - 1, 0))
        inner = normed(convolve(middle, inner.transpose(1, 2)).transpose(1, 2).float(), after)
        inner = stock.conv_module.activation(inner).to(last.weight.dtype)
        return multiply(inner, laid_out(last), last.bias, add=states)


def _pairs(query: Tensor, attention: ClampedDistances) -> Tensor:
    """What queries `[B, H, T, D]` say of the distances of pairs, scaled as scores are: `[B, H, T, T]`."""
    length, dim = query.shape[2:]
    left, right, weight = attention.left, attention.right, attention.embedding.weight
    found = query @ (weight * dim**-0.5).T.to(query.dtype)
    farthest = length - 1
    near = found[..., max(0, left - farthest) : left + min(right, farthest) + 1]
    before = found[..., :1].expand(-1, -1, -1, max(0, farthest - left))
    behind = found[..., -1:].expand(-1, -1, -1, max(0, farthest - right))
    scores = torch.cat([before, near, behind], dim=-1)
    return shifted(scores.transpose(0, 1).contiguous(), length, length)
