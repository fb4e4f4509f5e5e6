"""Modules as wholes: what tells two apart, a copy of one that an encoder may change, and changing what one does."""

import copy
import hashlib
import threading
from typing import Any

import torch
from torch import Tensor, nn

from speechfeat.errors import ModelError


def weight_hash(module: nn.Module) -> str:
    """Hash of every parameter and persistent buffer of a module, by name."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def change_class(module: nn.Module, kind: type[nn.Module]) -> None:
    """Let a module run as another class does, whose `super()` is what it was; its weights keep their names."""
    if not isinstance(module, kind):
        module.__class__ = type(kind.__name__, (kind, type(module)), {})


class InTurn(nn.Module):
    """A module that keeps something of one input for the next: threads run it in turn; what it gives stays theirs."""

    _turn = threading.Lock()

    def forward(self, *args: Any, **options: Any) -> Any:
        """As the module that it was."""
        with self._turn:
            return super().forward(*args, **options)


def ask_positions_in_turn(encoder: nn.Module) -> None:
    """Let several threads ask an encoder of transformers for its positions, where it keeps a table of them."""
    positions = getattr(encoder, "embed_positions", None)
    if positions is not None:
        change_class(positions, InTurn)


def own_copy(module: nn.Module) -> nn.Module:
    """A copy of a module for an encoder to change: its caller may go on training it, or wrap it again.

    Raises:
        ModelError: if it cannot be copied.
    """
    # Old weight normalisation leaves a computed weight on the module, which torch refuses to copy.
    computed = [
        value
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    try:
        copied = copy.deepcopy(module, {id(value): value.detach().clone() for value in computed})
    except Exception as error:  # whatever a module holds that is no weight
        raise ModelError(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "take what is not its weights (locks, files, processes) out of it first"
        ) from None
    for part in copied.modules():
        if nn.utils.parametrize.is_parametrized(part):
            # The class of a parametrized module is made for it alone and changed with it; a copy shares it.
            part.__class__ = type(type(part).__name__, type(part).__bases__, dict(vars(type(part))))
    return copied
