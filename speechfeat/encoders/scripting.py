"""Functions that run without Python between their operations.

Small encoders run several utterances side by side, and their threads wait for each other wherever Python stands between
two operations: by that two threads did 1.8 times the work of one (`python -m benchmarks.streams`). TorchScript, which
torch keeps though it recommends its compiler, needs no compiler on the machine and takes inputs of any length.
"""

import threading
import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
DEVICE = "cpu"


def scripted(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function of tensors as TorchScript, from its first call on; where torch has none, as it stands.

    Args:
        function: in the part of Python that TorchScript knows, on a CPU, with positional arguments. Dtypes are its own
            affair: it runs without autocast.
    """
    made: list[Callable[P, R]] = []
    lock = threading.Lock()

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not made:
            with lock:
                if not made:
                    made.append(_script(function))
        # Casts of the first call would stay in what is compiled, for calls without autocast as well.
        is_mixed = torch.is_autocast_enabled(DEVICE)
        if is_mixed:
            torch.set_autocast_enabled(DEVICE, False)
        try:
            return made[0](*args, **kwargs)
        finally:
            if is_mixed:
                torch.set_autocast_enabled(DEVICE, True)

    return run


def _script(function: Callable[P, R]) -> Callable[P, R]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return torch.jit.script(function)
        except (AttributeError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
    warnings.warn(f"torch cannot script {function.__name__}, so encoding is slower: {reason}", stacklevel=3)
    return function
