"""Memory: when what was freed is given back, when garbage is looked for, and how much there was at most."""

import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

# Above the largest state of a batch on a CPU; so much freed memory may stay with the process.
KEPT_BYTES = 2**29

# Products and convolutions that oneDNN keeps prepared, most of a MB of code for each shape, and how many of these torch
# keeps once more for every thread.
PREPARED = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "8"}

# Where Linux tells of a process, and takes the wish that it should forget the peak.
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep_few_prepared() -> None:
    """Let oneDNN and torch keep less of what they prepare than their 1,024 shapes, in a process that is ours alone.

    No recording in a corpus has the length of another, and most shapes do not come back soon. It is to be called before
    the first product; whatever the person in front of the screen has set stays.
    """
    for name, count in PREPARED.items():
        os.environ.setdefault(name, count)


def keep_freed_memory() -> None:
    """Let the allocator keep large blocks instead of giving them back to the system.

    Every layer of an encoder frees tens of MB and the next one asks for as many: given back, they return as pages
    that the kernel must clear. Keeping them makes float32 wav2vec2-base 1.1 times as fast on two cores. Only glibc has
    this switch; elsewhere nothing happens.
    """
    mallopt = _of_libc("mallopt")
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed() -> None:
    """Give back what is free now: now and then, since blocks of ever new sizes leave gaps that nothing fits into."""
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


@contextmanager
def importing() -> Iterator[None]:
    """Look for no garbage while modules are imported, nor among what they brought until much more is there.

    torch and transformers make more than a million objects that stay; looking through them again and again is a fifth
    of the time that their import takes (`python -m benchmarks.startup`). Whoever has turned the collector off, or has
    frozen objects, has a policy of his own: then nothing happens.
    """
    if not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # Everything goes to the oldest generation, unseen; what is garbage there is still found, later.
        gc.freeze()
        gc.unfreeze()
        gc.enable()


def forget_peak(device: "torch.device") -> None:
    """Begin to measure the peak of memory anew, of a CUDA device or of this process where Linux lets it."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        CLEAR_REFS.write_text("5")


def peak_memory(device: "torch.device | None" = None) -> int | None:
    """Bytes: the most that tensors took on a CUDA device, or that this process held; None where it cannot be told."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    if not STATUS.exists():
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    return None if found is None else 1024 * int(found.group(1))
