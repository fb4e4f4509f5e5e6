"""Which device runs a model, and when its memory is full."""

import torch

from speechfeat.errors import ParameterError


def choose_device(device: str | torch.device) -> torch.device:
    """The device named, or for "auto" the first CUDA device, else the CPU.

    Raises:
        ParameterError: for a device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):
        raise ParameterError(
            f"device={device!r} is not available here; use 'auto', 'cpu'"
            + ("" if not torch.cuda.is_available() else f" or 'cuda:0' to 'cuda:{torch.cuda.device_count() - 1}'")
        ) from None
    return chosen


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full, whatever its class."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
