"""A FastConformer encoder (Rekesh et al., 2023) with the names of transformers' Parakeet, and without transformers.

Importing transformers' model takes longer than all else that a process does before its first utterance. The encoder
that comes with the package, and what is distilled as it was, need nothing of it; their checkpoints stay Parakeet's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What a configuration has to say beside the sizes, for the blocks to be these.
PLAIN = {"hidden_act": "silu", "scale_input": False, "activation_dropout": 0, "attention_dropout": 0}
# What it may say: of training as a whole, of pretraining, and of files.
UNUSED = ("dropout", "dropout_positions", "layerdrop", "initializer_range", "max_position_embeddings")
OF_FILES = ("model_type", "architectures", "dtype", "transformers_version")


@dataclass(frozen=True)
class Sizes:
    """Of an encoder, under the names of Parakeet's configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    conv_kernel_size: int
    num_mel_bins: int
    subsampling_factor: int
    subsampling_conv_channels: int
    subsampling_conv_kernel_size: int
    subsampling_conv_stride: int
    attention_bias: bool
    convolution_bias: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self | None:
        """The sizes in a configuration of transformers, or None if it asks for something that is not here."""
        names = [field.name for field in fields(cls)]
        known = {*names, *PLAIN, *UNUSED, *OF_FILES}
        if not known >= config.keys() >= {*names, *PLAIN} or any(config[name] != PLAIN[name] for name in PLAIN):
            return None
        sizes = cls(**{name: config[name] for name in names})
        return sizes if sizes.num_key_value_heads == sizes.num_attention_heads else None


class FastConformer(nn.Module):
    """Log mel frames, convolutions that join them, conformer blocks.

    Shape:
        `[B, N', F]`, with a mask `[B, N']` where something is padded -> `[B, T, D]`
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.subsampling = Subsampling(sizes)
        self.encode_positions = Positions(sizes.hidden_size)
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes.num_hidden_layers))

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """States after the last block."""
        states = self.subsampling(input_features, attention_mask)
        positions = self.encode_positions(states)
        pairs = None
        if attention_mask is not None:
            valid = self.subsampling.valid(attention_mask, states.shape[1])
            pairs = (valid[:, None] & valid[:, :, None])[:, None]
        for layer in self.layers:
            states = layer(states, attention_mask=pairs, position_embeddings=positions)
        return states


class Positions(nn.Module):
    """Sinusoids of the distances of frames, from T - 1 down to 1 - T; `dim` is D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        powers = torch.arange(0, dim, 2, dtype=torch.float, device="cpu") / dim
        self.register_buffer("inv_freq", 1.0 / 10000.0**powers, persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """Embeddings `[1, 2T - 1, D]` for states `[B, T, D]`."""
        length, frequencies = states.shape[1], self.get_buffer("inv_freq")
        distances = torch.arange(length - 1, -length, -1, device=states.device)
        angles = distances[:, None].float() * frequencies.to(states.device, torch.float)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None].to(states.dtype)


class Subsampling(nn.Module):
    """Strided convolutions over time and frequency, the first dense, the others depthwise."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        channels, kernel = sizes.subsampling_conv_channels, sizes.subsampling_conv_kernel_size
        stride, padding = sizes.subsampling_conv_stride, (kernel - 1) // 2
        depth = sizes.subsampling_factor.bit_length() - 1
        layers: list[nn.Module] = [nn.Conv2d(1, channels, kernel, stride, padding), nn.ReLU()]
        for _ in range(depth - 1):
            layers.append(nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels))
            layers += [nn.Conv2d(channels, channels, 1), nn.ReLU()]
        self.layers = nn.ModuleList(layers)
        self.linear = nn.Linear(channels * (sizes.num_mel_bins // stride**depth), sizes.hidden_size)

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Frames of the blocks, `[B, N', F]` -> `[B, T, D]`; what is padded is zeroed before it meets a frame."""
        states = input_features[:, None]
        lengths = None if attention_mask is None else attention_mask.sum(-1)
        for layer in self.layers:
            states = layer(states)
            if lengths is not None and isinstance(layer, nn.Conv2d):
                lengths = _shortened(lengths, layer)
                states = states * _valid(lengths, states.shape[2])[:, None, :, None]
        return self.linear(states.transpose(1, 2).flatten(2))

    def valid(self, attention_mask: Tensor, width: int) -> Tensor:
        """True for frames of the blocks that are not padded, `[B, N']` -> `[B, T]`, with T the `width`."""
        lengths = attention_mask.sum(-1)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                lengths = _shortened(lengths, layer)
        return _valid(lengths, width)


def _shortened(lengths: Tensor, conv: nn.Conv2d) -> Tensor:
    """Valid frames behind a convolution."""
    padding: Any = conv.padding
    return (lengths + 2 * padding[0] - conv.kernel_size[0]) // conv.stride[0] + 1


def _valid(lengths: Tensor, width: int) -> Tensor:
    return torch.arange(width, device=lengths.device) < lengths[:, None]


class Block(nn.Module):
    """A conformer block (Gulati et al., 2020)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.feed_forward1, self.feed_forward2 = FeedForward(sizes), FeedForward(sizes)
        self.self_attn, self.conv = Attention(sizes), Convolution(sizes)
        for name in ("feed_forward1", "self_att", "conv", "feed_forward2", "out"):
            setattr(self, f"norm_{name}", nn.LayerNorm(sizes.hidden_size))

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None, position_embeddings: Tensor) -> Tensor:
        """States after the block, `[B, T, D]`, with a mask of pairs `[B, 1, T, T]`."""
        own: Any = self
        states = hidden_states + 0.5 * self.feed_forward1(own.norm_feed_forward1(hidden_states))
        normed = own.norm_self_att(states)
        attended, _ = self.self_attn(
            hidden_states=normed, attention_mask=attention_mask, position_embeddings=position_embeddings
        )
        states = states + attended
        states = states + self.conv(own.norm_conv(states), attention_mask=attention_mask)
        states = states + 0.5 * self.feed_forward2(own.norm_feed_forward2(states))
        return own.norm_out(states)


class FeedForward(nn.Module):
    """Two linear layers, `[B, T, D]` -> `[B, T, D]`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.linear1 = nn.Linear(sizes.hidden_size, sizes.intermediate_size, bias=sizes.attention_bias)
        self.activation = nn.SiLU()
        self.linear2 = nn.Linear(sizes.intermediate_size, sizes.hidden_size, bias=sizes.attention_bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """What is added, halved."""
        return self.linear2(self.activation(self.linear1(hidden_states)))


class Attention(nn.Module):
    """Attention with relative positions (Dai et al., 2019)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim, self.heads = sizes.hidden_size, sizes.num_attention_heads
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(dim, dim, bias=sizes.attention_bias))
        self.relative_k_proj = nn.Linear(dim, dim, bias=False)
        self.bias_u = nn.Parameter(torch.zeros(self.heads, dim // self.heads))
        self.bias_v = nn.Parameter(torch.zeros(self.heads, dim // self.heads))

    def forward(
        self, hidden_states: Tensor, position_embeddings: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """What is added, `[B, T, D]`, and None where transformers gives weights."""
        own: Any = self
        query, key, value, places = (
            layer(inputs).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, inputs in (
                *((layer, hidden_states) for layer in (own.q_proj, own.k_proj, own.v_proj)),
                (self.relative_k_proj, position_embeddings),
            )
        )
        bias = _of_pairs((query + self.bias_v[:, None]) @ places.transpose(2, 3)) * query.shape[-1] ** -0.5
        if attention_mask is not None:
            bias = bias.masked_fill(~attention_mask, torch.finfo(bias.dtype).min)
        heard = F.scaled_dot_product_attention((query + self.bias_u[:, None]).to(key.dtype), key, value, bias)
        return own.o_proj(heard.transpose(1, 2).flatten(2)), None


def _of_pairs(scores: Tensor) -> Tensor:
    """Scores of distances, from T - 1 down, as those of pairs of frames: `[B, H, T, 2T - 1]` -> `[B, H, T, T]`."""
    length = scores.shape[2]
    # A column more, and row i begins i places further on; T of them later it is read from its T - 1 - i-th.
    rows = F.pad(scores, (1, 0)).flatten(2).unflatten(2, (2 * length, length))[:, :, 1:]
    return rows.flatten(2).unflatten(2, (length, 2 * length - 1))[..., :length]


class Convolution(nn.Module):
    """A gate, a depthwise convolution and its batch norm, `[B, T, D]` -> `[B, T, D]`."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim, kernel, bias = sizes.hidden_size, sizes.conv_kernel_size, sizes.convolution_bias
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1, bias=bias)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=(kernel - 1) // 2, groups=dim, bias=bias)
        self.norm = nn.BatchNorm1d(dim)
        self.activation = nn.SiLU()
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1, bias=bias)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What is added; frames that no frame attends are zeroed before they meet others."""
        states = F.glu(self.pointwise_conv1(hidden_states.transpose(1, 2)), dim=1)
        if attention_mask is not None:
            states = states.masked_fill(~attention_mask.any(2), 0.0)
        states = self.activation(self.norm(self.depthwise_conv(states)))
        return self.pointwise_conv2(states).transpose(1, 2)
