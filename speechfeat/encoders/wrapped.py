"""Any network as an encoder: its blocks are tapped by their path."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.modules import own_copy
from speechfeat.errors import ModelError
from speechfeat.layers import Layers
from speechfeat.units import FrameGrid, Stage

# How a forward is told which inputs are valid: the name of its keyword, or sizes `[B]` -> keyword arguments.
Lengths = str | Callable[[Tensor], Mapping[str, object]]


def wrap_module(
    module: nn.Module,
    blocks: str = "encoder.layers",
    *,
    hop: int,
    window: int,
    sample_rate: int,
    layers: Layers = "penultimate",
    pad: tuple[int, int] = (0, 0),
    layout: str | Callable[[Tensor], Tensor] = "BTD",
    final_norm: str | None = None,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    forward: Callable[..., object] | None = None,
    lengths: Lengths | None = None,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    name: str | None = None,
) -> Encoder:
    """Make an encoder of a network.

    The encoder takes a copy of it, with the weights of now: the network stays its owner's, to train on or to wrap
    again (or to delete, which gives the memory back).

    Without `lengths` it cannot be told of padding, so its utterances run one at a time: slow, and exact by
    construction. With `lengths` they run in padded batches, and are as exact as the network's own masking:
    `python -m speechfeat.doctor` and `Encoder.encode` of one utterance alone and with others show whether it is.

    Args:
        module: the network.
        blocks: path of the stack to tap, such as "encoder.layers" (an `nn.ModuleList`, `nn.Sequential`,
            `nn.ModuleDict` or list), or the paths of its blocks in order: "layer1,layer2,layer3".
        hop: samples between the starts of two frames.
        window: samples that one frame sees before the first block (its receptive field).
        sample_rate: of the input, in Hz.
        layers: which to give: "penultimate", "last", "all", a number, or several.
        pad: samples that the network adds before and after its input; (n) samples give
            `(n + pad[0] + pad[1] - window) // hop + 1` frames.
        layout: axes of what a block gives: "BTD", "TBD", "BDT" (1-D convolutions), "BCFT" (2-D ones); or a function
            from it to `[B, T, D]`.
        final_norm: path of the norm after the last block, whose output is then the last layer.
        prepare: samples `[N]` to what the network takes for one utterance, `[N', ...]`; None for the samples
            themselves. It is called from several threads at once.
        forward: how to call the network, `forward(module, inputs)` with the copy and inputs `[B, N', ...]`, where its
            own forward wants them otherwise: `lambda module, inputs: module(inputs[:, None])`.
        lengths: name of the forward's keyword that takes the valid sizes along N', `[B]` int64; or a callable that
            makes keyword arguments of them. They are given to `forward` where there is one.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto", "float32", "bfloat16" or "float16".
        name: of the encoder; None for the class of the network.

    Raises:
        ModelError: for a path that is not there, no blocks behind it, or frames that hop, window and pad do not
            explain.

    Example:
        >>> net = nn.Sequential(nn.Conv1d(1, 8, 10, 5), nn.Conv1d(8, 8, 3))
        >>> encoder = wrap_module(
        ...     net, "0,1", hop=5, window=20, sample_rate=8000, layout="BDT", layers="last", dtype="float32",
        ...     forward=lambda module, inputs: module(inputs[:, None]),
        ... )
        >>> encoder.num_layers, encoder.dim
        (2, 8)
    """
    module = own_copy(module)
    backbone = ModuleBackbone(
        module,
        find_blocks(module, blocks),
        FrameGrid(sample_rate, (Stage(window, hop, *pad),)),
        final_norm=None if final_norm is None else _module_at(module, final_norm),
        layout=layout,
        prepare=prepare,
        forward=forward,
        lengths=lengths,
    )
    return Encoder(backbone, name=name or type(module).__name__, layers=layers, device=device, dtype=dtype)


class ModuleBackbone(Backbone):
    """A user's network; the arguments are those of `wrap_module`."""

    def __init__(
        self,
        module: nn.Module,
        blocks: Sequence[nn.Module],
        grid: FrameGrid,
        *,
        final_norm: nn.Module | None,
        layout: str | Callable[[Tensor], Tensor],
        prepare: Callable[[np.ndarray], np.ndarray] | None,
        forward: Callable[..., object] | None,
        lengths: Lengths | None,
    ) -> None:
        pads = lengths is not None
        super().__init__(
            module, blocks, grid, final_norm=final_norm, layout=layout, pads=pads, input_stages=0 if prepare else None
        )
        self._prepare = prepare
        self._forward = forward or _call
        self._lengths = lengths
        if isinstance(lengths, str):
            _check_keyword(forward or module.forward, lengths)

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """What the user's own front end gives, `[N', ...]` float32."""
        if self._prepare is None:
            return samples
        inputs = np.asarray(self._prepare(samples), dtype=np.float32)
        if inputs.ndim == 0 or len(inputs) == 0:
            raise ModelError(
                f"prepare gave the shape {inputs.shape} for {len(samples)} samples; it must give [N', ...]"
            )
        return inputs

    def forward(self, inputs: Tensor, sizes: Sequence[int]) -> object:
        """Run the network, with the valid sizes if it takes them."""
        if self._lengths is None:
            return self._forward(self.module, inputs)
        valid = torch.tensor(sizes, device=inputs.device)
        keywords = {self._lengths: valid} if isinstance(self._lengths, str) else self._lengths(valid)
        return self._forward(self.module, inputs, **keywords)


def _call(module: nn.Module, inputs: Tensor, **keywords: object) -> object:
    return module(inputs, **keywords)


def _check_keyword(forward: Callable[..., object], keyword: str) -> None:
    parameters = inspect.signature(forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if keyword not in parameters and not takes_any:
        raise ModelError(f"lengths={keyword!r} is no argument of forward, which takes ({', '.join(parameters)})")


def find_blocks(module: nn.Module, path: str) -> list[nn.Module]:
    """The blocks that a path, or several separated by commas, leads to.

    Raises:
        ModelError: if there is nothing at a path, or no blocks.
    """
    parts = [part.strip() for part in path.split(",") if part.strip()]
    if len(parts) > 1:
        return [_module_at(module, part) for part in parts]
    stack = _resolve(module, path.strip())
    if isinstance(stack, nn.ModuleDict):
        stack = stack.values()
    elif not isinstance(stack, nn.ModuleList | nn.Sequential | list | tuple):
        raise ModelError(
            f"blocks={path!r} is a {type(stack).__name__} and no stack of blocks; give the path of an nn.ModuleList, "
            f"nn.Sequential or nn.ModuleDict{_stacks(module)}, or the blocks themselves, separated by commas"
        )
    # A list is not cut by the taps: the network is the user's.
    blocks = list(stack)
    if not blocks or not all(isinstance(block, nn.Module) for block in blocks):
        raise ModelError(f"blocks={path!r} holds no modules{_stacks(module)}")
    return blocks


def _stacks(module: nn.Module) -> str:
    """A sentence part that names the stacks of a network, or ""."""
    kinds = nn.ModuleList | nn.Sequential | nn.ModuleDict
    paths = [name for name, part in module.named_modules() if name and isinstance(part, kinds)]
    return f" (here: {', '.join(paths[:6])})" if paths else ""


def _module_at(module: nn.Module, path: str) -> nn.Module:
    found = _resolve(module, path)
    if not isinstance(found, nn.Module):
        raise ModelError(f"{path!r} of {type(module).__name__} is a {type(found).__name__} and no module")
    return found


def _resolve(module: nn.Module, path: str) -> object:
    """What is at a dotted path; numbers index lists."""
    found: object = module
    for depth, part in enumerate(path.split(".")):
        if isinstance(found, list | tuple) and part.isdigit() and int(part) < len(found):
            found = found[int(part)]
        elif hasattr(found, part):
            found = getattr(found, part)
        else:
            raise ModelError(_not_there(module, path, found, depth))
    return found


def _not_there(module: nn.Module, path: str, found: object, depth: int) -> str:
    parts = path.split(".")
    where = ".".join(parts[:depth]) or type(module).__name__
    children = [name for name, _ in found.named_children()] if isinstance(found, nn.Module) else []
    modules = [name for name, _ in module.named_modules() if name]
    close = difflib.get_close_matches(path, modules, n=2, cutoff=0.6)
    meant = f"; did you mean {' or '.join(map(repr, close))}?" if close else ";"
    held = f"it has {', '.join(children[:12])}{', ...' if len(children) > 12 else ''}" if children else "it has none"
    return f"path {path!r}: there is no {parts[depth]!r} in {where}{meant} {held}"
