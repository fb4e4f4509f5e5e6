"""FastConformers and Wav2Vec2-Conformers on a CPU: few passes over states that stay in the cache.

Queries, keys and values are one product; biases, activations, residuals and the batch norm are applied inside of
products and convolutions (`speechfeat.encoders.onednn`); what positions give is kept from one utterance to the next.
Padding is left out of attention and zeroed before it meets a frame, so that a batch gives what its utterances give
alone. Modules change their class and keep their names and weights; for training they run as before. How long a block
takes beside the library's: `python -m benchmarks.cpu_kernels`.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders import conformer_code as code
from speechfeat.encoders.blocked_attention import attend, is_worth
from speechfeat.encoders.joined import join
from speechfeat.encoders.masking import Padding
from speechfeat.encoders.modules import change_class
from speechfeat.encoders.onednn import (
    NOTHING,
    RELU,
    Applied,
    applied_of,
    convolve_image,
    derived,
    gathered,
    laid_out,
    lay_out,
    multiply,
)
from speechfeat.encoders.precision import is_plain
from speechfeat.encoders.shapes import widened, writes_code

# Positions are made for so many frames, or for twice as many as often as it takes.
FIRST_POSITIONS = 128


def fuse_conformer(encoder: Any, padding: Padding) -> None:
    """Let an encoder with Parakeet's modules and batch norm run so, in place; any other stays as it is."""
    for block in encoder.layers:
        attention = block.self_attn
        if attention.k_proj.out_features == attention.q_proj.out_features:
            _fuse(block, FusedBlock, padding, encoder.encode_positions.inv_freq)
    if all(isinstance(layer, nn.Conv2d | nn.ReLU) for layer in encoder.subsampling.layers):
        change_class(encoder.subsampling, FusedSubsampling)
        encoder.subsampling.__dict__["padding"] = padding


def fuse_waveform_conformer(blocks: Iterable[nn.Module], dim: int, padding: Padding) -> None:
    """Let blocks of Wav2Vec2-Conformer with relative positions run so, in place; `dim` is D."""
    frequencies = torch.exp(torch.arange(0, dim, 2).float() * -(math.log(10000.0) / dim))
    for block in blocks:
        _fuse(block, FusedWaveformConformerBlock, padding, frequencies)


def _fuse(block: Any, kind: type["FusedBlock"], padding: Padding, frequencies: Tensor) -> None:
    if isinstance(kind.parts(block).convolution.after, nn.BatchNorm1d):
        change_block(block, kind, padding=padding, frequencies=frequencies)


def change_block(block: Any, kind: type["FusedBlock"], **given: object) -> None:
    """Let a block become a fused one with some attributes, if oneDNN has its activations."""
    parts = kind.parts(block)
    if parts.before.applied and parts.convolution.applied and parts.behind.applied:
        change_class(block, kind)
        block.__dict__.update(given)


class Half(NamedTuple):
    """A feed-forward module."""

    norm: nn.LayerNorm
    first: nn.Linear
    applied: Applied | None
    second: nn.Linear

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """Those that multiply."""
        return self.first, self.second

    def weights(self) -> code.FeedForward:
        """As they are at the moment, for the code that runs them."""
        norm, first, applied, second = self
        bias = None if second.bias is None else second.bias / 2
        halved = lay_out(second.weight / 2)
        return code.FeedForward(norm_of(norm), laid_out(first), first.bias, applied or NOTHING, halved, bias)


class RelativePositions(NamedTuple):
    """Attention with sinusoidal relative positions."""

    norm: nn.LayerNorm
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    positions: nn.Linear
    content_bias: Tensor
    position_bias: Tensor

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """Those that multiply."""
        return self.query, self.key, self.value, self.out, self.positions

    def weights(self) -> code.Attention:
        """As they are at the moment; the bias of queries that meet keys is added in the product that gives them."""
        content, position, out = self.content_bias, self.position_bias, self.out
        joined = join((self.query, self.key, self.value))
        asking = (joined.bias[: content.numel()] + content.flatten()).to(joined.bias.dtype)
        bias = torch.cat([asking, joined.bias[content.numel() :]])
        difference = (position - content).float()
        return code.Attention(norm_of(self.norm), lay_out(joined.weight), bias, difference, laid_out(out), out.bias)

    def places(self, length: int, frequencies: Tensor) -> Tensor:
        """Keys of distances from R, no less than so many frames, down to -R, scaled as scores: `[H, D, 2 R + 1]`."""
        layer, (heads, dim) = self.positions, self.content_bias.shape
        # By this length alone, not by those before it: a resumed run meets others, and has to round as the first did.
        kept = FIRST_POSITIONS
        while kept < length:
            kept *= 2

        def make() -> Tensor:
            # Rounded as the library's are: what is far away has angles of many turns.
            angles = torch.arange(kept - 1, -kept, -1)[:, None].float() * frequencies.float()
            embeddings = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
            keys = (embeddings @ layer.weight.float().T * dim**-0.5).to(layer.weight.dtype)
            return keys.view(len(keys), heads, dim).permute(1, 2, 0).contiguous()

        return derived(layer, f"positions {kept}", [layer.weight], make)


class Convolution(NamedTuple):
    """A convolution module."""

    norm: nn.LayerNorm
    first: nn.Conv1d
    middle: nn.Conv1d
    after: Any
    applied: Applied | None
    last: nn.Conv1d

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """Those that multiply."""
        return self.first, self.middle, self.last

    def weights(self) -> code.Convolution:
        """As they are at the moment, where a batch norm is `after` the depthwise convolution."""
        first, middle, after, last = self.first, self.middle, self.after, self.last
        scale = after.weight * torch.rsqrt(after.running_var + after.eps)
        shift = after.bias - after.running_mean * scale
        weight = middle.weight * scale[:, None, None]
        bias = shift if middle.bias is None else shift + middle.bias * scale
        dtype, padding = middle.weight.dtype, middle.padding
        return code.Convolution(
            *(norm_of(self.norm), laid_out(first), first.bias),
            weight[:, :, None].to(dtype).contiguous(memory_format=torch.channels_last),
            *(bias.to(dtype), padding[0], self.applied or NOTHING),  # type: ignore[arg-type]
            *(laid_out(last), last.bias),
        )


def norm_of(norm: nn.LayerNorm) -> code.Norm:
    """A layer norm for the code that runs it."""
    return code.Norm(norm.weight, norm.bias, norm.eps)


class Parts(NamedTuple):
    """The modules of a block by what they do, as they are at the moment."""

    before: Half
    attention: Any
    convolution: Convolution
    behind: Half
    norm: nn.LayerNorm

    def are_plain(self) -> bool:
        """Whether no layer was wrapped since."""
        modules = (self.before, self.attention, self.convolution, self.behind)
        return all(is_plain(layer) for module in modules for layer in module.layers)


class Gathered(NamedTuple):
    """What a block runs on, as it is at the moment: its parts, and the weights of those that are scripted."""

    parts: Parts
    before: code.FeedForward
    attention: code.Attention | None
    convolution: code.Convolution | None
    behind: code.FeedForward
    norm: code.Norm


class FusedBlock(nn.Module):
    """What a block of Parakeet becomes."""

    padding: Padding
    frequencies: Tensor

    @staticmethod
    def parts(block: Any) -> Parts:
        """Its modules."""
        one, two, attention, conv = block.feed_forward1, block.feed_forward2, block.self_attn, block.conv
        return Parts(
            Half(block.norm_feed_forward1, one.linear1, applied_of(one.activation), one.linear2),
            RelativePositions(
                block.norm_self_att,
                *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, attention.relative_k_proj),
                *(attention.bias_u, attention.bias_v),
            ),
            Convolution(
                block.norm_conv,
                *(conv.pointwise_conv1, conv.depthwise_conv, conv.norm, applied_of(conv.activation)),
                conv.pointwise_conv2,
            ),
            Half(block.norm_feed_forward2, two.linear1, applied_of(two.activation), two.linear2),
            block.norm_out,
        )

    def gather(self, parts: Parts) -> Gathered:
        """The weights of its parts."""
        attention, convolution = parts.attention.weights(), parts.convolution.weights()
        return Gathered(
            parts, parts.before.weights(), attention, convolution, parts.behind.weights(), norm_of(parts.norm)
        )

    def forward(self, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
        """States after the block, `[B, T, D]` float32, which its residuals stay in; the mask is that of `padding`."""
        if torch.is_grad_enabled() or self.training:
            return super().forward(hidden_states, *args, **options)
        found = gathered(self, lambda: self.gather(parts) if (parts := self.parts(self)).are_plain() else None)
        if found is None:
            return super().forward(hidden_states, *args, **options)
        states = code.feed_forward(hidden_states.float(), found.before, None)
        states = self.convolve(self.attend(states, found), found)
        return code.feed_forward(states, found.behind, found.norm)

    def attend(self, states: Tensor, found: Gathered) -> Tensor:
        """States and what attention gives of them."""
        weights, padding = found.attention, self.padding
        assert weights is not None
        width = attended(states, weights.projection)
        places = found.parts.attention.places(width, self.frequencies)
        if is_worth(states[:, None]) and not padding.padded:
            return _attend_in_blocks(states, weights, places)
        return code.relative_attention(states, weights, places, width, padding.lengths())

    def convolve(self, states: Tensor, found: Gathered) -> Tensor:
        """States and what the convolution module gives of them."""
        assert found.convolution is not None
        return code.convolution(states, found.convolution, self.padding.lengths())


class FusedWaveformConformerBlock(FusedBlock):
    """What a block of Wav2Vec2-Conformer becomes."""

    @staticmethod
    def parts(block: Any) -> Parts:
        """Its modules."""
        one, two, attention, conv = block.ffn1, block.ffn2, block.self_attn, block.conv_module
        first, second = applied_of(one.intermediate_act_fn), applied_of(two.intermediate_act_fn)
        return Parts(
            Half(block.ffn1_layer_norm, one.intermediate_dense, first, one.output_dense),
            RelativePositions(
                block.self_attn_layer_norm,
                *(attention.linear_q, attention.linear_k, attention.linear_v),
                *(attention.linear_out, attention.linear_pos, attention.pos_bias_u, attention.pos_bias_v),
            ),
            Convolution(
                conv.layer_norm,
                *(conv.pointwise_conv1, conv.depthwise_conv, conv.batch_norm, applied_of(conv.activation)),
                conv.pointwise_conv2,
            ),
            Half(block.ffn2_layer_norm, two.intermediate_dense, second, two.output_dense),
            block.final_layer_norm,
        )


def attended(states: Tensor, weight: Tensor) -> int:
    """Frames, no fewer than those of states `[B, T, D]`, for which attention in the dtype of weights is fast."""
    length = states.shape[1]
    return widened(length) if writes_code(states.device, weight.dtype) else length


def _attend_in_blocks(states: Tensor, attention: code.Attention, places: Tensor) -> Tensor:
    """As `code.relative_attention`, on processors where torch's products are slow."""
    count, length, _ = states.shape
    found = code.projected(states, attention.norm, attention.projection, attention.projection_bias, length)
    query, key, value = found.view(count, length, 3, *attention.difference.shape).unbind(2)
    asking = (query.float() + attention.difference).flatten(0, 1).transpose(0, 1)
    middle = places.shape[2] // 2
    add_bias = _adding(asking, places[:, :, middle - length + 1 : middle + length].float(), length)
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    heard = attend(query, key, value, query.shape[-1] ** -0.5, add_bias)
    return code.add_heard(states, heard, attention.out, attention.out_bias)


def _adding(asking: Tensor, places: Tensor, length: int) -> Callable[[Tensor, int, int, int], None]:
    """Adds what queries `[H, B T, D]` say of places `[H, D, 2 T - 1]` to a block of scores."""
    asking, places = asking.contiguous(), places.transpose(1, 2).contiguous()

    def add_bias(scores: Tensor, row: int, head: int, first: int) -> None:
        at = row * length + first
        found = multiply(asking[head, at : at + len(scores)], places[head], None)
        # The score of frames i and j stands in row i at T - 1 - i + j.
        scores += found.as_strided(scores.shape, (2 * length - 2, 1), length - 1 - first)

    return add_bias


class FusedSubsampling(nn.Module):
    """What the strided convolutions on log mel frames become."""

    padding: Padding

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Frames of the blocks, `[B, N', F]` -> `[B, T, D]`."""
        stock: Any = self
        if torch.is_grad_enabled() or self.training:
            return super().forward(input_features, attention_mask)
        states, depth = input_features[..., None], 0
        for layer in stock.layers:
            if isinstance(layer, nn.ReLU):  # applied by the convolution before it
                continue
            if layer.stride[0] > 1:
                depth += 1
            states = _convolve_mel(layer, states)
            if self.padding.padded:
                self.padding.blank(states, depth)
        linear = stock.linear
        count, length, *shape = states.shape

        def make() -> Tensor:  # for channels that lie inside of frequencies
            return lay_out(linear.weight.unflatten(1, shape[::-1]).transpose(1, 2).flatten(1))

        weight = derived(linear, "channels last", [linear.weight], make)
        return multiply(states.reshape(count, length, -1), weight, linear.bias).float()


def _convolve_mel(conv: nn.Conv2d, states: Tensor) -> Tensor:
    """A convolution of the front end, `[B, T, F, C]` -> `[B, T', F', C']`, and the activation that follows it."""
    is_followed = conv.groups == 1
    applied = RELU if is_followed else NOTHING
    weight = conv.weight
    if conv.kernel_size == (1, 1):
        return multiply(states, laid_out(conv), conv.bias, applied)  # type: ignore[arg-type]
    if states.shape[3] == 1:
        return _convolve_windows(conv, states[..., 0], applied)
    wide = derived(conv, "wide", [weight], lambda: weight.contiguous(memory_format=torch.channels_last))
    return convolve_image(states.permute(0, 3, 1, 2), wide, conv.bias, conv, applied).permute(0, 2, 3, 1)


def _convolve_windows(conv: Any, states: Tensor, applied: tuple) -> Tensor:
    """The first convolution, of one channel, as a product of its windows, `[B, T, F]` -> `[B, T', F', C']`."""
    weight = conv.weight
    (high, wide), (top, left), (down, right) = conv.kernel_size, conv.padding, conv.stride
    padded = F.pad(states.to(weight.dtype), (left, left, top, top))
    windows = padded.unfold(1, high, down).unfold(2, wide, right).flatten(3)
    return multiply(windows, laid_out(conv), conv.bias, applied)
