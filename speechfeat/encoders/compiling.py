"""Code that torch's compiler fuses where it can, and that runs as it stands where it cannot."""

import warnings
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch
from torch import nn

_is_off = False
# Importing the compiler takes a second, which those who never compile need not wait.
COMPILER = ("torch._dynamo", "torch._inductor")


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function for inputs of any length, when it is first called.

    The compiler needs Triton and a C compiler. Where they are missing, or do not understand the function, a warning
    says so once and everything runs uncompiled from then on.
    """
    compiled = torch.compile(function, dynamic=True)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        global _is_off  # noqa: PLW0603 - one compiler for the whole process
        if not _is_off:
            try:
                return compiled(*args, **kwargs)
            except Exception as error:
                if not type(error).__module__.startswith(COMPILER):
                    raise
                _is_off = True
                reason = str(error).strip().splitlines()[0]
                warnings.warn(f"torch's compiler cannot be used, so encoding is slower: {reason}", stacklevel=2)
        return function(*args, **kwargs)

    return run


def fuse_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compile the blocks of an encoder, in place; hooks on them stay outside of what is compiled."""
    for block in blocks:
        block.forward = fused(block.forward)
