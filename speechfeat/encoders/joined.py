"""One product in the place of several that take the same inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechfeat.encoders.onednn import derived, lay_out


def join(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One linear layer that gives the outputs of several side by side."""
    first = layers[0]
    joined = nn.Linear(first.in_features, sum(layer.out_features for layer in layers), device="meta")
    joined.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    biases: list[Tensor] = [
        first.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers
    ]
    joined.bias = nn.Parameter(torch.cat(biases), requires_grad=False)
    return joined


def joined(owner: nn.Module, name: str, layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    """Weights, laid out, and biases of one product that gives the outputs of several layers, kept with a module."""

    def make() -> tuple[Tensor, Tensor]:
        one = join(layers)
        return lay_out(one.weight), one.bias

    return derived(owner, name, [part for layer in layers for part in (layer.weight, layer.bias)], make)
