"""FastConformers on a CPU: few passes over states that stay in the cache.

Queries, keys and values are one product; biases, activations, residuals and the batch norm are applied inside of
products and convolutions (`speechfeat.encoders.onednn`); what positions give is kept from one utterance to the next.
Padding is left out of attention and zeroed before it meets a frame, so that a batch gives what its utterances give
alone. Modules change their class and keep their names and weights; for training they run as before. How long a block
takes beside the library's: `python -m benchmarks.cpu_kernels`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ParakeetEncoder

from speechfeat.encoders.biased_attention import shifted
from speechfeat.encoders.blocked_attention import attend, is_worth
from speechfeat.encoders.masking import Padding
from speechfeat.encoders.modules import change_class
from speechfeat.encoders.onednn import NOTHING, RELU, SILU, convolve_image, derived, laid_out, lay_out, multiply, normed
from speechfeat.encoders.packing import join
from speechfeat.encoders.precision import is_plain
from speechfeat.encoders.shapes import lengthen, widened, writes_code

# Positions are made for so many frames, or for twice as many as often as it takes.
FIRST_POSITIONS = 128


def fuse_conformer(encoder: ParakeetEncoder, padding: Padding) -> None:
    """Let an encoder with SiLU and batch norm run so, in place; any other stays as it is."""
    for block in encoder.layers:
        if isinstance(block.conv.norm, nn.BatchNorm1d) and _is_silu(block):
            change_class(block, FusedBlock)
            block.__dict__.update(padding=padding, frequencies=encoder.encode_positions.inv_freq)
    if all(isinstance(layer, nn.Conv2d | nn.ReLU) for layer in encoder.subsampling.layers):
        change_class(encoder.subsampling, FusedSubsampling)
        encoder.subsampling.__dict__["padding"] = padding


def _is_silu(block: Any) -> bool:
    activations = (block.feed_forward1.activation, block.feed_forward2.activation, block.conv.activation)
    return all(isinstance(one, nn.SiLU) or type(one).__name__ == "SiLUActivation" for one in activations)


class FusedBlock(nn.Module):
    """What a block becomes."""

    padding: Padding
    frequencies: Tensor

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: Tensor | None = None,
        **options: Any,
    ) -> Tensor:
        """States after the block, `[B, T, D]` float32, which its residuals stay in; the mask is that of `padding`."""
        stock: Any = self
        attention, conv = stock.self_attn, stock.conv
        halves = (stock.feed_forward1, stock.feed_forward2)
        layers = [layer for half in halves for layer in (half.linear1, half.linear2)]
        layers += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, attention.relative_k_proj]
        layers += [conv.pointwise_conv1, conv.depthwise_conv, conv.pointwise_conv2]
        is_known = attention.num_key_value_groups == 1 and all(map(is_plain, layers))
        if torch.is_grad_enabled() or self.training or not is_known:
            given = {"attention_mask": attention_mask, "position_embeddings": position_embeddings}
            return super().forward(hidden_states, **given, **options)
        states = _feed_forward(hidden_states.float(), stock.norm_feed_forward1, stock.feed_forward1)
        states = _attention(states, stock.norm_self_att, attention, self.padding, self.frequencies)
        states = _convolution(states, stock.norm_conv, conv, self.padding)
        states = _feed_forward(states, stock.norm_feed_forward2, stock.feed_forward2)
        return normed(states, stock.norm_out)


def _feed_forward(states: Tensor, norm: nn.LayerNorm, layers: Any) -> Tensor:
    """States and half of what the layers give of them; halving the weights of the second halves that exactly."""
    first, second = layers.linear1, layers.linear2
    inner = multiply(normed(states, norm, first), laid_out(first), first.bias, SILU)
    weight, bias = derived(
        second,
        "halved",
        [second.weight, second.bias],
        lambda: (lay_out(second.weight / 2), None if second.bias is None else second.bias / 2),
    )
    return multiply(inner, weight, bias, add=states)


class _Projection(NamedTuple):
    """To queries, keys and values, and the bias of queries that meet positions less that of those that meet keys."""

    weight: Tensor
    bias: Tensor
    difference: Tensor


def _projection(attention: Any) -> _Projection:
    layers = (attention.q_proj, attention.k_proj, attention.v_proj)

    def make() -> _Projection:
        joined, content = join(layers), attention.bias_u.flatten()
        asking = (joined.bias[: len(content)] + content).to(joined.bias.dtype)
        bias = torch.cat([asking, joined.bias[len(content) :]])
        return _Projection(lay_out(joined.weight), bias, (attention.bias_v - attention.bias_u).float())

    weights = [one for layer in layers for one in (layer.weight, layer.bias)]
    return derived(attention, "projection", [*weights, attention.bias_u, attention.bias_v], make)


def _positions(attention: Any, length: int, frequencies: Tensor) -> Tensor:
    """Keys of the distances of so many frames, `[H, D, 2T - 1]` float32: of T - 1 first, scaled as scores are."""
    layer = attention.relative_k_proj
    # By this length alone, not by those before it: a resumed run meets others, and has to round as the first did.
    kept = FIRST_POSITIONS
    while kept < length:
        kept *= 2

    def make() -> Tensor:
        # Rounded as the library's are: what is far away has angles of many turns.
        angles = torch.arange(kept - 1, -kept, -1)[:, None].float() * frequencies.float()
        embeddings = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        keys = embeddings @ layer.weight.float().T * attention.scaling
        return keys.view(len(keys), -1, attention.head_dim).permute(1, 2, 0).contiguous()

    keys = derived(attention, f"positions {kept}", [layer.weight], make)
    middle = keys.shape[2] // 2
    return keys[:, :, middle - length + 1 : middle + length]


def _attention(states: Tensor, norm: nn.LayerNorm, attention: Any, padding: Padding, frequencies: Tensor) -> Tensor:
    """States and what attention with relative positions (Dai et al., 2019) gives of them."""
    count, length, _ = states.shape
    weight, bias, difference = _projection(attention)
    width = widened(length) if writes_code(states.device, weight.dtype) else length
    projected = lengthen(multiply(normed(states, norm, attention.q_proj), weight, bias), width)
    query, key, value = projected.view(count, width, 3, *difference.shape).unbind(2)
    asking = (query.float() + difference).flatten(0, 1).transpose(0, 1)
    places = _positions(attention, width, frequencies)
    query, key, value = (one.transpose(1, 2) for one in (query, key, value))
    if is_worth(key) and not padding.padded:
        heard = attend(query, key, value, attention.scaling, _adding(asking, places, width))
    else:
        scores = (asking @ places).view(len(places), count, width, -1)
        bias = shifted(scores, width, width)
        if padding.padded or width > length:
            padding.blank(bias, axis=3, value=-torch.inf)
        heard = F.scaled_dot_product_attention(query, key, value, bias, scale=attention.scaling).transpose(1, 2)
    out = attention.o_proj
    return multiply(heard[:, :length].flatten(2), laid_out(out), out.bias, add=states)


def _adding(asking: Tensor, places: Tensor, length: int) -> Callable[[Tensor, int, int, int], None]:
    """Adds what queries `[H, B T, D]` say of places to a block of scores."""
    asking, places = asking.contiguous(), places.transpose(1, 2).contiguous()

    def add_bias(scores: Tensor, row: int, head: int, first: int) -> None:
        at = row * length + first
        found = multiply(asking[head, at : at + len(scores)], places[head], None)
        # The score of frames i and j stands in row i at T - 1 - i + j.
        scores += found.as_strided(scores.shape, (2 * length - 2, 1), length - 1 - first)

    return add_bias


def _convolution(states: Tensor, norm: nn.LayerNorm, conv: Any, padding: Padding) -> Tensor:
    """States and what the convolution module gives of them."""
    first, middle, last = conv.pointwise_conv1, conv.depthwise_conv, conv.pointwise_conv2
    inner = F.glu(multiply(normed(states, norm, first), laid_out(first), first.bias), dim=-1)
    if padding.padded:
        padding.blank(inner)
    after = conv.norm

    def make() -> tuple[Tensor, Tensor]:
        scale = after.weight * torch.rsqrt(after.running_var + after.eps)
        shift = after.bias - after.running_mean * scale
        weight = middle.weight * scale[:, None, None]
        bias = shift if middle.bias is None else shift + middle.bias * scale
        dtype = middle.weight.dtype
        return weight[:, :, None].to(dtype).contiguous(memory_format=torch.channels_last), bias.to(dtype)

    weights = [middle.weight, middle.bias, after.weight, after.bias, after.running_mean, after.running_var]
    weight, bias = derived(conv, "normed", weights, make)
    inner = convolve_image(inner.transpose(1, 2)[:, :, None], weight, bias, middle, SILU)[:, :, 0].transpose(1, 2)
    return multiply(inner, laid_out(last), last.bias, add=states)


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
