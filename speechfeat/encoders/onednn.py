"""Products and convolutions of oneDNN on a CPU, with what follows them applied while they are in the cache.

Weights are laid out once in the order in which oneDNN multiplies them; torch hands them over as they are, and they are
laid out anew in every call, which for a second of audio takes as long as the product. What is laid out takes as much
memory again: of the largest models nothing is.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

T = TypeVar("T")
# Name of what is made of a whole module.
WHOLE = ""
# Of weights that are laid out beside themselves, at most: some billion in float32, two in half precision.
MOST_BYTES = 4_300_000_000
# What oneDNN applies to a product before it is written.
Applied = tuple[str, str]
NOTHING: Applied = ("none", "")
GELU: Applied = ("gelu", "none")
RELU: Applied = ("relu", "")
SILU: Applied = ("swish", "")


class _Kept:
    """What was derived from the weights of a module; copies and files of the module do not have it."""

    def __init__(self) -> None:
        self.made: dict[str, tuple[Any, Any]] = {}

    def __deepcopy__(self, memo: object) -> "_Kept":
        return _Kept()

    def __reduce__(self) -> tuple:
        return _Kept, ()


def _made_of(owner: nn.Module) -> dict[str, tuple[Any, Any]]:
    """What is kept with a module, by name: what it was made of, and what was made."""
    kept = owner.__dict__.get("_kept")
    if kept is None:
        kept = owner.__dict__["_kept"] = _Kept()
    return kept.made


def derived(owner: nn.Module, name: str, weights: Sequence[Tensor | None], make: Callable[[], T]) -> T:
    """What `make` gives of weights, kept with a module until they change.

    They may change in the ways that torch counts: optimisers do, writing to `.data` does not.

    Args:
        owner: that keeps it.
        name: of what is made.
        weights: that it is made of.
        make: makes it.
    """
    state = [None if one is None else (one.data_ptr(), 0 if one.is_inference() else one._version) for one in weights]
    made = _made_of(owner)
    known, found = made.get(name, (None, None))
    if known != state:
        with torch.inference_mode():
            found = make()
        made[name] = (state, found)
    return found


class _Snapshot:
    """What a module was: the modules and weights inside of it, each as it stood."""

    def __init__(self, module: nn.Module) -> None:
        inside = list(module.modules())
        self.children = [(one._modules, dict(one._modules)) for one in inside if one._modules]
        tables = [table for one in inside for table in (one._parameters, one._buffers) if table]
        self.tables = [(table, [*map(id, table.values())]) for table in tables]
        self.tensors = [one for table in tables for one in table.values() if one is not None]
        self.counted = [one for one in self.tensors if not one.is_inference()]
        self.state = self._state()

    def _state(self) -> list[int]:
        return [*(one.data_ptr() for one in self.tensors), *(one._version for one in self.counted)]

    def holds(self) -> bool:
        """Whether nothing was replaced or changed since."""
        return (
            all(now == then for now, then in self.children)
            and all([*map(id, now.values())] == then for now, then in self.tables)
            and self._state() == self.state
        )


def gathered(owner: nn.Module, make: Callable[[], T]) -> T:
    """What `make` gives of all that is in a module, kept with it until something in it is replaced or changes.

    For what is made of so many weights that asking for each by its name takes longer than a look at all of them.
    Changes are noticed as by `derived`.
    """
    made = _made_of(owner)
    snapshot, found = made.get(WHOLE, (None, None))
    if snapshot is None or not snapshot.holds():
        with torch.inference_mode():
            found = make()
        made[WHOLE] = (_Snapshot(owner), found)
    return found


def has_room(module: nn.Module, dtype: torch.dtype) -> bool:
    """Whether a module is small enough for its weights to be kept twice in the dtype of its products."""
    return sum(one.numel() for one in module.parameters()) * dtype.itemsize <= MOST_BYTES


def lay_out(weight: Tensor) -> Tensor:
    """Weights `[C', C]` in the order in which oneDNN multiplies them: for `multiply` alone."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), None)


def laid_out(layer: nn.Linear | nn.Conv1d) -> Tensor:
    """The weights of a linear layer, or of a convolution of one frame, so laid out, and kept with it."""
    weight = layer.weight
    return derived(layer, "laid out", [weight], lambda: lay_out(weight.flatten(1)))


def multiply(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, applied: Applied = NOTHING, add: Tensor | None = None
) -> Tensor:
    """Inputs `[..., C]` times weights `[C', C]`, all of one dtype, then what is applied: `[..., C']`.

    Args:
        inputs: of the dtype of the weights.
        weight: as it is, or from `lay_out`.
        bias: `[C']`, or None.
        applied: to the product.
        add: to the product instead, of its shape and of any dtype.
    """
    if add is None:
        return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, applied[0], [], applied[1])
    if add.dtype == inputs.dtype:
        # TorchScript knows overloads by their arguments, and by those alone; Python is slow to find them so.
        if torch.jit.is_scripting():
            return torch.ops.mkldnn._linear_pointwise(inputs, add, weight, bias, "add")
        return torch.ops.mkldnn._linear_pointwise.binary(inputs, add, weight, bias, "add")
    return add + torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")


def convolve_image(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, like: nn.Conv1d | nn.Conv2d, applied: Applied = NOTHING
) -> Tensor:
    """A convolution whose channels lie side by side, `[B, C, H, W]` -> `[B, C', H', W']`.

    Args:
        inputs: of the dtype of the weights.
        weight: in the layout of `channels_last`.
        bias: `[C']`, or None.
        like: a convolution of the same padding, stride and groups; one over time stands for one of height 1.
        applied: to what it gives.
    """
    padding: Any = like.padding
    is_line = isinstance(like, nn.Conv1d)
    return torch.ops.mkldnn._convolution_pointwise(
        inputs.contiguous(memory_format=torch.channels_last),
        weight,
        bias,
        [0, *padding] if is_line else list(padding),
        [1, *like.stride] if is_line else list(like.stride),
        [1, *like.dilation] if is_line else list(like.dilation),
        like.groups,
        applied[0],
        [],
        applied[1],
    )


def convolve_line(inputs: Tensor, weight: Tensor, bias: Tensor, padding: int, applied: Applied) -> Tensor:
    """A depthwise convolution of frames, `[B, T, C]` -> `[B, T', C]`, of weights `[C, 1, 1, K]` as `convolve_image`."""
    image = inputs.transpose(1, 2).unsqueeze(2).contiguous(memory_format=torch.channels_last)
    place, ones, groups = [0, padding], [1, 1], weight.shape[0]
    found = torch.ops.mkldnn._convolution_pointwise(
        image, weight, bias, place, ones, ones, groups, applied[0], [], applied[1]
    )
    return found.squeeze(2).transpose(1, 2)


def normed(states: Tensor, norm: nn.LayerNorm, like: nn.Module | None = None) -> Tensor:
    """Layer norm, in the dtype of the weights of a layer that follows."""
    values = F.layer_norm(states, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    weight: Any = norm.weight if like is None else like.weight
    return values.to(weight.dtype)


def is_gelu(activation: nn.Module | None) -> bool:
    """Whether it is the GELU of the error function, which oneDNN has."""
    # transformers' own by its name, since importing it takes seconds that not every encoder asks for.
    is_theirs = type(activation).__name__ == "GELUActivation"
    return is_theirs or (isinstance(activation, nn.GELU) and activation.approximate == "none")


def applied_of(activation: nn.Module) -> Applied | None:
    """What oneDNN applies for an activation, or None."""
    if isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation":
        return SILU
    return GELU if is_gelu(activation) else None
