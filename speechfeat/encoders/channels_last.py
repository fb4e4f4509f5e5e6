"""Convolutions over time on a CPU, in the layout in which oneDNN multiplies them at the rate of matrix products.

The stock modules hand it `[B, C, T]`, where it reaches half of that rate, and next to nothing in a first layer of one
channel. Here states lie in memory as `[B, T, C]`, activations are applied while a product is still in the cache, and a
first layer with group norm is one product: the norm of a linear function of a window is again one. Where MKL is fast,
unpadded convolutions are matrix products themselves.

Modules change their class and keep their place, their names and their weights; where gradients are wanted they run as
they did before. Weights may change in the ways that torch counts (optimisers do, writing to `.data` does not). Measured
on processors of AMD with AVX512-BF16 and of Intel with AMX (`python -m benchmarks.cpu_kernels`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders.masking import MaskedGroupNorm
from speechfeat.encoders.modules import change_class
from speechfeat.encoders.onednn import GELU, NOTHING, Applied, convolve_image, derived, is_gelu, lay_out, multiply
from speechfeat.encoders.precision import has_slow_mkl
from speechfeat.encoders.shapes import pieces, writes_code
from speechfeat.encoders.time_major import stride_taps, stride_weights

# Frames that one row of a product gives of a long convolution of groups, and how long it is at least.
SPAN, LONG = 4, 64
# Windows of the first layer get weights of zero up to a multiple of this, which makes their product faster.
ALIGN = 16
SAME = nn.Identity()


class ChannelsLastConv(nn.Module):
    """A convolution `[B, C, T]` -> `[B, C', T']`, whose output has the strides of `[B, T', C']`."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve."""
        stock: Any = self
        return super().forward(inputs) if torch.is_grad_enabled() else convolve(stock, inputs)


class ChannelsLastLayer(nn.Module):
    """A layer of wav2vec 2.0's front end and its kin: convolution, norm, activation."""

    def forward(self, states: Tensor) -> Tensor:
        """Run it, `[B, C, T]` -> `[B, C', T']`."""
        stock: Any = self
        norm = getattr(self, "layer_norm", None)
        if torch.is_grad_enabled() or isinstance(norm, MaskedGroupNorm):  # see `first_layer`
            return super().forward(states)
        multiply = _windows if states.shape[1] == 1 else convolve
        if norm is None:
            return multiply(stock.conv, states, stock.activation)
        return _norm(multiply(stock.conv, states), norm, stock.activation)


def to_channels_last(layer: nn.Module) -> None:
    """Change a convolution, or a layer of a front end, in place."""
    change_class(layer, ChannelsLastConv if isinstance(layer, nn.Conv1d) else ChannelsLastLayer)


def convolve(conv: nn.Conv1d, inputs: Tensor, activation: nn.Module | None = None) -> Tensor:
    """A convolution and the activation behind it, `[B, C, T]` -> `[B, C', T']`."""
    if not any(conv.padding) and conv.groups == 1 and conv.dilation == (1,) and not has_slow_mkl(inputs.device):
        states = inputs.transpose(1, 2).to(conv.weight.dtype).contiguous()
        multiply_all = _add_strides if states.dtype == torch.float32 else _whole_windows
        return multiply_all(conv, states, activation).transpose(1, 2)
    if is_slow_of_groups(conv) and writes_code(inputs.device, conv.weight.dtype):
        return by_spans(conv, inputs, activation)
    weight = derived(conv, "channels last", [conv.weight], lambda: _wide(conv.weight.detach()))
    applied, finish = _split(activation)
    return finish(convolve_image(_wide(inputs.to(weight.dtype)), weight, conv.bias, conv, applied)[:, :, 0])


def is_slow_of_groups(conv: nn.Conv1d) -> bool:
    """Whether a convolution is long and of groups that are no whole tiles of AMX, as that of positions of base models.

    Of 16 groups of 48 channels, 128 frames long, oneDNN's own takes up to 1.9 times as long as products in one thread,
    about as long in two; of 64 channels it is faster than they are.
    """
    is_plain = conv.stride == (1,) and conv.dilation == (1,) and isinstance(conv.padding, tuple)
    return is_plain and conv.groups > 1 and conv.kernel_size[0] >= LONG and conv.in_channels // conv.groups % 64 != 0


def by_spans(conv: nn.Conv1d, inputs: Tensor, activation: nn.Module | None = None) -> Tensor:
    """A convolution of groups as a product for each, a row of which gives SPAN frames of what all of them hear.

    A kernel of 128 frames then has weights of zero for 3 of 131.

    Shape:
        `[B, C, T]` -> `[B, C', T']`
    """
    (kernel,), padding, groups = conv.kernel_size, int(conv.padding[0]), conv.groups
    layers = derived(conv, "spans", [conv.weight, conv.bias], lambda: _span_layers(conv))
    count, channels, length = inputs.shape
    frames = length + 2 * padding - kernel + 1
    rows, size = math.ceil(frames / SPAN), channels // groups
    heard = conv.weight.new_zeros(groups, count, SPAN * rows + kernel - 1, size)
    heard[:, :, padding : padding + length] = inputs.view(count, groups, size, length).permute(1, 0, 3, 2)
    strides = (*heard.stride()[:2], SPAN * size, 1)
    spans = heard.as_strided((groups, count, rows, (SPAN + kernel - 1) * size), strides)
    outputs = heard.new_empty(count, SPAN * rows, groups, conv.out_channels // groups)
    applied, finish = _split(activation)
    for group, (weight, bias) in enumerate(layers):
        found = multiply(spans[group].flatten(0, 1), weight, bias, applied)
        outputs[:, :, group] = found.view(count, SPAN * rows, -1)
    return finish(outputs[:, :frames].flatten(2).transpose(1, 2))


def _span_layers(conv: nn.Conv1d) -> list[tuple[Tensor, Tensor | None]]:
    """Weights, laid out, and bias of each group: `[SPAN C'/G, (SPAN + K - 1) C/G]`, `[SPAN C'/G]`.

    The weights of each frame of a span begin one frame later.
    """
    groups = conv.groups
    of_groups = conv.weight.detach().unflatten(0, (groups, -1)).transpose(2, 3)  # [G, C'/G, K, C/G]
    shifted = [F.pad(of_groups, (0, 0, frame, SPAN - 1 - frame)) for frame in range(SPAN)]
    weights = torch.stack(shifted, dim=1).flatten(3).flatten(1, 2)
    biases = [None] * groups if conv.bias is None else [one.repeat(SPAN) for one in conv.bias.detach().chunk(groups)]
    return [(lay_out(weight), bias) for weight, bias in zip(weights, biases, strict=True)]


def _split(activation: nn.Module | None) -> tuple[Applied, nn.Module]:
    """What of an activation is applied inside of a product, and what is left to do behind it."""
    return (GELU, SAME) if is_gelu(activation) else (NOTHING, activation or SAME)


def _add_strides(conv: nn.Conv1d, inputs: Tensor, activation: nn.Module | None) -> Tensor:
    """An unpadded convolution as sums of products, then the activation, `[B, T, C]` -> `[B, T', C']`."""
    weights = derived(conv, "strides", [conv.weight], lambda: stride_weights(conv))
    taps = stride_taps(inputs, conv.stride[0], conv.kernel_size[0])
    outputs = inputs.new_empty(*taps[0].shape[:2], conv.out_channels)
    for row, own in enumerate(outputs):
        if conv.bias is None:
            torch.mm(taps[0][row], weights[0], out=own)
        else:
            torch.addmm(conv.bias, taps[0][row], weights[0], out=own)
        for others, weight in zip(taps[1:], weights[1:], strict=True):
            own.addmm_(others[row], weight)
    if is_gelu(activation):
        return torch.ops.aten.gelu_(outputs)
    return outputs if activation is None else activation(outputs)


def _whole_windows(conv: nn.Conv1d, inputs: Tensor, activation: nn.Module | None) -> Tensor:
    """The same as products of whole windows, which are rounded once; in pieces, for which code is there already."""
    count, length, channels = inputs.shape
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    frames = (length - kernel) // stride + 1
    windows = inputs.as_strided((count, frames, kernel * channels), (length * channels, stride * channels, 1))
    rows = windows[0] if count == 1 else windows.flatten(0, 1)
    weight = derived(conv, "windows", [conv.weight], lambda: lay_out(conv.weight.detach().transpose(1, 2).flatten(1)))
    outputs = rows.new_empty(count * frames, conv.out_channels)
    applied, finish = _split(activation)
    for piece in pieces(len(rows)):
        outputs[piece] = multiply(rows[piece], weight, conv.bias, applied)
    return finish(outputs.view(count, frames, -1))


def _wide(values: Tensor) -> Tensor:
    """As an image of height 1, `[B, C, T]` -> `[B, C, 1, T]`, with the channels of a place side by side."""
    return values[:, :, None].contiguous(memory_format=torch.channels_last)


def _norm(states: Tensor, norm: Any, activation: nn.Module) -> Tensor:
    """Layer norm over the channels of `[B, C, T]` in float32, and the activation."""
    values = F.layer_norm(states.transpose(1, 2).float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return activation(values).to(states.dtype).transpose(1, 2)


def _windows(conv: nn.Conv1d, samples: Tensor, activation: nn.Module | None = None) -> Tensor:
    """A convolution of one channel as one product, `[B, 1, N]` -> `[B, C, T]`."""
    windows = samples[:, 0].unfold(1, conv.kernel_size[0], conv.stride[0])
    return _product(windows, conv.weight[:, 0], conv.bias, conv.weight.dtype, activation).transpose(1, 2)


def first_layer(layer: Any, samples: Tensor) -> Callable[[slice, slice], Tensor]:
    """How to run a first layer on some windows of some utterances, `[B, N]` -> `[b, C, t]`.

    A group norm is over all valid windows of an utterance, whichever of them are asked for; the products of utterances
    differ for that.
    """
    conv, norm = layer.conv, getattr(layer, "layer_norm", None)
    (kernel,), (stride,) = conv.kernel_size, conv.stride

    def run(rows: slice, span: slice) -> Tensor:
        return layer(samples[rows, None, span.start * stride : (span.stop - 1) * stride + kernel])

    if not isinstance(norm, MaskedGroupNorm):
        return run
    windows = samples.unfold(1, kernel, stride)
    lengths = norm.padding.lengths(norm.depth) if norm.padding.padded else [windows.shape[1]] * len(windows)
    folded = [_folded(own[:length], conv.weight[:, 0], norm.norm) for own, length in zip(windows, lengths, strict=True)]

    def run_normed(rows: slice, span: slice) -> Tensor:
        states = [
            _product(own - middle, weight, norm.norm.bias, conv.weight.dtype, layer.activation)
            for own, (middle, weight) in zip(windows[rows, span], folded[rows], strict=True)
        ]
        # One alone is not copied.
        return (states[0][None] if len(states) == 1 else torch.stack(states)).transpose(1, 2)

    return run_normed


def _folded(windows: Tensor, weight: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """What stands for a norm of each channel over T behind a product of windows `[T, K]`: their mean, and its weights.

    Without their mean `[K]` the windows have products without a mean, whose variance follows from the covariance of the
    windows; the weights `[C, K]` are divided by its root. A bias before the norm is lost in it.
    """
    windows, weight = windows.double(), weight.double()
    middle = windows.mean(0)
    windows = windows - middle
    variance = ((weight @ (windows.T @ windows / len(windows))) * weight).sum(1)
    scale = norm.weight.double() * torch.rsqrt(variance + norm.eps)
    return middle.float(), (weight * scale[:, None]).float()


def _product(
    windows: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, activation: nn.Module | None
) -> Tensor:
    """Windows `[..., T, K]` times weights `[C, K]`, then the activation: `[..., T, C]`."""
    given, weight, extra = windows.to(dtype), weight.to(dtype), -weight.shape[1] % ALIGN
    if extra:  # padding by nothing copies, too
        given, weight = F.pad(given, (0, extra)), F.pad(weight, (0, extra))
    bias = None if bias is None else bias.to(dtype)
    applied, finish = _split(activation)
    return finish(multiply(given, weight, bias, applied))
