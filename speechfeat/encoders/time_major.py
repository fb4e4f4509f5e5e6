"""Convolutions as matrix products on `[B, T, C]`, the layout that a GPU multiplies, normalises and activates best.

The stock modules work on `[B, C, T]`: their layer norms transpose and copy every state twice.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechfeat.encoders.compiling import fused
from speechfeat.encoders.masking import MaskedGroupNorm, Padding

# Products of 16-bit numbers want rows of a multiple of 16 bytes.
ALIGN = 8
# Outputs of a convolution with a long kernel that are computed together.
BLOCK = 16


class TimeMajorConv(nn.Module):
    """An unpadded convolution over time as matrix products, without its bias.

    Args:
        conv: with one group.

    Shape:
        `[B, T, C]` -> `[B, T', C']`
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.stride, self.kernel = conv.stride[0], conv.kernel_size[0]
        self.weights = nn.ParameterList(nn.Parameter(one, requires_grad=False) for one in stride_weights(conv))

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply the taps of each stride and add them up."""
        outputs: Tensor | None = None
        inputs = inputs.to(self.weights[0].dtype).contiguous()
        for taps, weight in zip(stride_taps(inputs, self.stride, self.kernel), self.weights, strict=True):
            every = weight.expand(len(taps), -1, -1)
            outputs = torch.bmm(taps, every) if outputs is None else outputs.baddbmm_(taps, every)
        assert outputs is not None
        return outputs


def stride_weights(conv: nn.Conv1d) -> list[Tensor]:
    """Weights `[S C, C']` of the S taps of each stride of a convolution of one group; of the last there may be fewer.

    Windows overlap, so they are no matrix; but the taps of one stride, and then those of the next, are.
    """
    return [one.flatten(0, 1) for one in conv.weight.detach().permute(2, 1, 0).split(conv.stride[0])]


def stride_taps(inputs: Tensor, stride: int, kernel: int) -> list[Tensor]:
    """What such weights are multiplied with in contiguous inputs `[B, T, C]`, without a copy: `[B, T', S C]` each."""
    count, length, channels = inputs.shape
    frames = (length - kernel) // stride + 1
    strides = (inputs.stride(0), stride * channels, 1)
    taps = []
    for first in range(0, kernel, stride):
        shape = (count, frames, min(stride, kernel - first) * channels)
        taps.append(inputs.as_strided(shape, strides, inputs.storage_offset() + first * channels))
    return taps


class WaveformConv(nn.Module):
    """The first convolution, of one channel, as one matrix product, without its bias.

    So few numbers enter that more of them, with weights of zero, make the product faster.

    Args:
        conv: of one channel.

    Shape:
        `[B, N]` -> `[B, T, C]`
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.stride, self.kernel = conv.stride[0], conv.kernel_size[0]
        self.extra = -self.kernel % ALIGN
        self.weight = nn.Parameter(F.pad(conv.weight[:, 0], (0, self.extra)).T.contiguous(), requires_grad=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Multiply every window."""
        frames = (samples.shape[1] - self.kernel) // self.stride + 1
        padded = F.pad(samples.to(self.weight.dtype), (0, self.extra))
        return padded.unfold(1, self.kernel + self.extra, self.stride)[:, :frames] @ self.weight


class TimeMajorFrontEnd(nn.Module):
    """The convolutions of wav2vec 2.0 and its kin.

    Args:
        front_end: of transformers, with `conv_layers`.
        padding: of its encoder.

    Shape:
        `[B, N]` -> `[B, C, T]`
    """

    def __init__(self, front_end: Any, padding: Padding) -> None:
        super().__init__()
        layers = front_end.conv_layers
        self.convs = nn.ModuleList(
            (TimeMajorConv if number else WaveformConv)(layer.conv) for number, layer in enumerate(layers)
        )
        self.finishes = nn.ModuleList(_Finish(layer) for layer in layers)
        self.padding = padding

    def forward(self, samples: Tensor) -> Tensor:
        """Run them."""
        states = samples
        for depth, (conv, finish) in enumerate(zip(self.convs, self.finishes, strict=True), start=1):
            states = conv(states)
            masked = isinstance(finish.norm, MaskedGroupNorm)
            states = finish(states, self.padding.mask(states.shape[1], states.device, depth) if masked else None)
        return states.transpose(1, 2)


class _Finish(nn.Module):
    """What follows a convolution: bias, norm and activation, in one pass over the states."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.norm, self.activation, self.bias = getattr(layer, "layer_norm", None), layer.activation, layer.conv.bias
        self.forward = fused(self._finish)

    def _finish(self, states: Tensor, valid: Tensor | None) -> Tensor:
        values = states.float() if self.bias is None else states.float() + self.bias
        if isinstance(self.norm, MaskedGroupNorm) and valid is not None:
            values = _group_norm(values, valid, self.norm.norm)
        elif self.norm is not None:
            values = self.norm(values)
        return self.activation(values).to(states.dtype)


def _group_norm(states: Tensor, valid: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Each channel over the valid frames of its utterance, `[B, T, C]` float32; zeros past them."""
    count = valid.sum(1)[:, None, None]
    values = torch.where(valid[..., None], states, 0)
    mean = values.sum(1, keepdim=True) / count
    variance = (values.square().sum(1, keepdim=True) / count - mean.square()).clamp_min(0)
    scaled = (values - mean) * torch.rsqrt(variance + norm.eps)
    return torch.where(valid[..., None], scaled * norm.weight + norm.bias, 0)


class BlockedGroupConv(nn.Module):
    """A grouped convolution over time with a long kernel, as one matrix product for each group.

    A block of outputs sees a block of inputs a kernel longer; the matrix between them has the kernel along its
    diagonals. With a kernel of 128 and blocks of 16 one product in eight is with zero, and still it is several times as
    fast in 16 bits as convolving group by group, as cuDNN does.

    Args:
        conv: with a stride of 1 and as many channels in as out.

    Shape:
        `[B, C, T]` -> `[B, C, T']`
    """

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.groups, self.kernel = conv.groups, conv.kernel_size[0]
        self.pad: Any = conv.padding[0]
        self.bias = conv.bias
        taps = conv.weight.unflatten(0, (self.groups, -1)).permute(0, 3, 2, 1)
        shifted = [F.pad(taps, (0, 0, 0, 0, first, BLOCK - 1 - first)) for first in range(BLOCK)]
        weight = torch.stack(shifted, dim=3).flatten(3).flatten(1, 2)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve."""
        count, channels, length = inputs.shape
        size, frames = channels // self.groups, length + 2 * self.pad - self.kernel + 1
        blocks = -(-frames // BLOCK)
        extra = blocks * BLOCK - frames + self.pad
        grouped = inputs.unflatten(1, (self.groups, size)).permute(1, 0, 3, 2).to(self.weight.dtype)
        grouped = F.pad(grouped, (0, 0, self.pad, extra)).contiguous()
        shape = (self.groups, count, blocks, len(self.weight[0]))
        strides = (grouped.stride(0), grouped.stride(1), BLOCK * size, 1)
        windows = grouped.as_strided(shape, strides).reshape(self.groups, count * blocks, -1)
        outputs = torch.bmm(windows, self.weight).view(self.groups, count, blocks * BLOCK, size)[:, :, :frames]
        outputs = outputs.permute(1, 0, 3, 2).reshape(count, channels, frames)
        return outputs if self.bias is None else outputs + self.bias[:, None]


class TimeMajorConvolution(nn.Module):
    """The convolution module of a conformer (Gulati et al., 2020) on `[B, T, C]`.

    Args:
        convs: the stock module, with `pointwise_conv1`, `depthwise_conv`, `pointwise_conv2` and `activation`.
        norm: behind the depthwise convolution: batch norm or layer norm.
        padding: of its encoder, which says what of a batch is valid.
        before: norm before all of them, or None.
    """

    def __init__(self, convs: Any, norm: nn.Module, padding: Padding, *, before: nn.Module | None = None) -> None:
        super().__init__()
        self.before, self.norm, self.activation, self.padding = before, norm, convs.activation, padding
        self.first, self.second = as_linear(convs.pointwise_conv1), as_linear(convs.pointwise_conv2)
        depthwise = convs.depthwise_conv
        self.weight = nn.Parameter(depthwise.weight[:, 0].T.float().contiguous(), requires_grad=False)
        self.bias = None if depthwise.bias is None else nn.Parameter(depthwise.bias.float(), requires_grad=False)
        # An unpadded one is padded by its module on the left: it sees no frame that comes later.
        kernel = depthwise.kernel_size[0]
        self.left = depthwise.padding[0] or kernel - 1
        self.right = kernel - 1 - self.left

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Run it, `[B, T, C]` -> `[B, T, C]`."""
        del attention_mask
        states = hidden_states if self.before is None else self.before(hidden_states)
        states = F.glu(self.first(states), dim=-1)
        states = self.activation(self._normalize(self._convolve(self._fill(states), states.shape[1])))
        return self.second(states)

    # Compiled together with what reads it, it would be done anew for every tap.
    @torch.compiler.disable
    def _fill(self, states: Tensor) -> Tensor:
        """Zeros for what is not valid, and on both sides for the windows at the edges."""
        filled = F.pad(states, (0, 0, self.left, self.right))
        if self.padding.padded:
            valid = self.padding.mask(states.shape[1], states.device)
            filled[:, self.left : self.left + states.shape[1]].masked_fill_(~valid[..., None], 0)
        return filled

    def _convolve(self, padded: Tensor, length: int) -> Tensor:
        """Depthwise; written out so that a compiler makes one pass over the states of it."""
        taps = (padded[:, place : place + length] * weight for place, weight in enumerate(self.weight))
        total = next(taps)
        for tap in taps:
            total = total + tap
        return total if self.bias is None else total + self.bias

    def _normalize(self, states: Tensor) -> Tensor:
        if not isinstance(self.norm, nn.BatchNorm1d):
            return self.norm(states)
        norm: Any = self.norm
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return (states - norm.running_mean) * scale + norm.bias


def as_linear(conv: nn.Conv1d) -> nn.Linear:
    """A convolution of one frame as a linear layer."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight[..., 0].contiguous(), requires_grad=False)
    linear.bias = conv.bias  # type: ignore[assignment]
    return linear
