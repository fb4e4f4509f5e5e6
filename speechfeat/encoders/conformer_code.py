"""What conformer blocks compute on a CPU, in the part of Python that TorchScript knows.

It runs without Python (`speechfeat.encoders.scripting`). Of a batch `[B, T, D]` the `lengths` are the valid frames of
each utterance.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from speechfeat.encoders.masking import blank
from speechfeat.encoders.onednn import Applied, convolve_line, multiply
from speechfeat.encoders.pair_bias import shifted
from speechfeat.encoders.scripting import scripted
from speechfeat.encoders.shapes import lengthen

# Scores of all heads in a block of queries, 1 MiB: beside them as many of distances and more are in the cache.
BLOCK_SCORES = 2**18


class Norm(NamedTuple):
    """A layer norm."""

    weight: Tensor
    bias: Tensor
    eps: float


class FeedForward(NamedTuple):
    """Half a feed-forward module: the weights of its second layer and their bias are halved."""

    norm: Norm
    first: Tensor
    first_bias: Tensor | None
    applied: Applied
    second: Tensor
    second_bias: Tensor | None


class Attention(NamedTuple):
    """The bias of queries that meet positions less that of those that meet keys is `difference`, `[H, D / H]`."""

    norm: Norm
    projection: Tensor
    projection_bias: Tensor
    difference: Tensor
    out: Tensor
    out_bias: Tensor | None


class Convolution(NamedTuple):
    """A convolution module, its batch norm inside of the depthwise convolution."""

    norm: Norm
    first: Tensor
    first_bias: Tensor | None
    middle: Tensor
    middle_bias: Tensor
    padding: int
    applied: Applied
    last: Tensor
    last_bias: Tensor | None


def normalized(states: Tensor, norm: Norm, like: Tensor) -> Tensor:
    """Layer norm, in the dtype of the weights that follow."""
    return F.layer_norm(states, norm.weight.shape, norm.weight, norm.bias, norm.eps).to(like.dtype)


@scripted
def feed_forward(states: Tensor, half: FeedForward, behind: Norm | None) -> Tensor:
    """States and half of what the layers give of them, and a norm behind; halving weights halves that exactly."""
    inner = multiply(normalized(states, half.norm, half.first), half.first, half.first_bias, half.applied)
    states = multiply(inner, half.second, half.second_bias, add=states)
    return states if behind is None else normalized(states, behind, behind.weight)


def projected(states: Tensor, norm: Norm, weight: Tensor, bias: Tensor, width: int) -> Tensor:
    """Queries, keys and values of states side by side, `[B, T, D]` -> `[B, width, 3 D]`, with zeros behind theirs."""
    return lengthen(multiply(normalized(states, norm, weight), weight, bias), width)


def add_heard(states: Tensor, heard: Tensor, out: Tensor, bias: Tensor | None) -> Tensor:
    """States `[B, T, D]` and what attention `[B, T', H, D / H]` of them, or of more frames, gives."""
    return multiply(heard[:, : states.shape[1]].flatten(2), out, bias, add=states)


def hear(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, lengths: list[int]) -> Tensor:
    """Attention `[B, T, H, D]` of frames `[B, H, T, D]` with a bias of pairs, in which what is padded is left out."""
    blank(bias, lengths, 3, -float("inf"))
    return F.scaled_dot_product_attention(query, key, value, bias).transpose(1, 2)


def hear_rows(
    found: Tensor, difference: Tensor, places: Tensor, lengths: list[int], most: int = BLOCK_SCORES
) -> Tensor:
    """Attention of one utterance after the other, by blocks of queries whose scores stay in the cache.

    Args:
        found: queries, keys and values, `[B, T, 3, H, D]`.
        difference: of queries that meet positions from those that meet keys, `[H, D]`.
        places: keys of distances from some R down to -R, `[H, D, 2 R + 1]`, scaled as scores are.
        lengths: valid frames of each utterance, no more than R.
        most: scores of pairs in a block.

    Returns:
        `[B, T, H, D]`
    """
    heads, dim = difference.shape
    outputs, middle = torch.zeros_like(found[:, :, 0]), places.shape[2] // 2
    for row, length in enumerate(lengths):
        query, key, value = found[row, :length].permute(1, 2, 0, 3).unbind(0)
        asking, key = query + difference[:, None], key.transpose(1, 2)
        blocks = min(-(-heads * length * length // most), -(-length // 16))
        step = -(-length // blocks)
        for first in range(0, length, step):
            last = min(first + step, length)
            # Of the distances those that these queries meet; the first of them is that of the last query to frame 0.
            near = torch.bmm(asking[:, first:last], places[:, :, middle + 1 - last : middle + length - first])
            bias = shifted(near[:, None], last - first, length)[0]
            scores = torch.baddbmm(bias, query[:, first:last], key, alpha=dim**-0.5)
            outputs[row, first:last] = torch.bmm(scores.softmax(-1), value).transpose(0, 1)
    return outputs


@scripted
def relative_attention(states: Tensor, attention: Attention, places: Tensor, width: int, lengths: list[int]) -> Tensor:
    """States and what attention with relative positions (Dai et al., 2019) gives of them.

    Args:
        states: `[B, T, D]` float32.
        attention: its weights.
        places: as of `hear_rows`, in the dtype of the weights.
        width: no fewer than T, that torch's attention is fast for.
        lengths: valid frames of each utterance.
    """
    heads, dim = attention.difference.shape
    found = projected(states, attention.norm, attention.projection, attention.projection_bias, width)
    found = found.view(states.shape[0], width, 3, heads, dim)
    if found.dtype == torch.float32:
        heard = hear_rows(found, attention.difference, places, lengths)
    else:
        query, key, value = found.unbind(2)
        asking = (query + attention.difference).to(query.dtype).flatten(0, 1).transpose(0, 1)
        middle = places.shape[2] // 2
        near = asking @ places[:, :, middle + 1 - width : middle + width]
        bias = shifted(near.view(heads, states.shape[0], width, 2 * width - 1), width, width)
        heard = hear(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), bias, lengths)
    return add_heard(states, heard, attention.out, attention.out_bias)


def gated(states: Tensor, norm: Norm, first: Tensor, bias: Tensor | None) -> Tensor:
    """What enters the depthwise convolution."""
    return F.glu(multiply(normalized(states, norm, first), first, bias), -1)


@scripted
def convolution(states: Tensor, conv: Convolution, lengths: list[int]) -> Tensor:
    """States and what the convolution module gives of them."""
    inner = gated(states, conv.norm, conv.first, conv.first_bias)
    blank(inner, lengths, 1, 0.0)
    inner = convolve_line(inner, conv.middle, conv.middle_bias, conv.padding, conv.applied)
    return multiply(inner, conv.last, conv.last_bias, add=states)
