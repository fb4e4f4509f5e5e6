"""Few shapes for products on a CPU with AMX, and rows in shares that all of its cores multiply.

For every new number of rows oneDNN writes code, which on such a processor takes from 5 to 30 ms a product: of
recordings of which each has another length, a fifth of the time. So lengths are rounded up, to 16 in an octave. And a
product of few outputs it gives to one core where there are some 450 to 1,200 rows; to shares of 320 it puts two
(`python -m benchmarks.cpu_kernels`). torch's attention in half precision takes up to 2.6 times as long over a number of
frames that fills no rows of AMX.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows of a product, at most, and what shares are multiples of.
SHARE_ROWS = 320
SHARE_UNIT = 16
# Sizes of pieces, of those that are given to two cores.
PIECES = (4096, 1536, 256, 64)
# Frames that torch's attention takes are a multiple of this.
ATTENTION_UNIT = 16
# Lengths in an octave; beyond so many frames code is little beside what it runs.
LENGTHS_IN_OCTAVE = 16
MOST_ROUNDED = 2048


def writes_code(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products in a dtype on a device are made by code that is written for their shape in so long a time."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    return device.type == "cpu" and dtype in (torch.bfloat16, torch.float16) and has_amx()


def rounded(count: int) -> int:
    """The next of few numbers, at most a sixteenth above a count; large ones stay as they are.

    Example:
        >>> rounded(31), rounded(49), rounded(506), rounded(2049)
        (31, 50, 512, 2049)
    """
    if count > MOST_ROUNDED:
        return count
    step = max(1, 2 ** (count.bit_length() - 1) // LENGTHS_IN_OCTAVE)
    return -(-count // step) * step


def widened(frames: int) -> int:
    """The next number of frames that attention is fast for; it leaves those beyond out by a mask."""
    return -(-frames // ATTENTION_UNIT) * ATTENTION_UNIT


def lengthen(states: Tensor, frames: int) -> Tensor:
    """States `[B, T, D]` with zeros up to so many frames; without a copy, where they are so many."""
    missing = frames - states.shape[1]
    return F.pad(states, [0, 0, 0, missing]) if missing else states


def shares(rows: int) -> list[slice]:
    """Rows in shares of about one size.

    Example:
        >>> shares(700)
        [slice(0, 240, None), slice(240, 480, None), slice(480, 700, None)]
    """
    return spans(rows, SHARE_ROWS, SHARE_UNIT)


def spans(count: int, most: int, unit: int = 1) -> list[slice]:
    """Spans of about one size, a multiple of a unit; none above the most, which is one, too.

    Example:
        >>> spans(10, 4)
        [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    number = -(-count // most)
    size = -(-count // number // unit) * unit
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def pieces(rows: int) -> list[slice]:
    """Rows in pieces of few sizes, whatever their number is; of the last some are in the piece before it, too.

    Example:
        >>> pieces(2000)
        [slice(0, 1536, None), slice(1536, 1792, None), slice(1744, 2000, None)]
        >>> pieces(1540)
        [slice(0, 1536, None), slice(1476, 1540, None)]
    """
    *large, smallest = PIECES
    found, first = [], 0
    for size in large:
        while rows - first >= size:
            found.append(slice(first, first + size))
            first += size
    if first < rows:
        last = smallest if rows - first <= smallest else large[-1]
        found.append(slice(max(0, rows - last), rows))
    return found
