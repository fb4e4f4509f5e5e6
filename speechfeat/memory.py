"""Memory of the process: how much it took, and what becomes of what a long run frees and asks for again."""

import ctypes
import sys

try:
    import resource
except ImportError:  # only Unix tells
    resource = None  # type: ignore[assignment]

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3

# Above the largest state of a batch on a CPU; so much freed memory may stay with the process.
KEPT_BYTES = 2**29


def keep_freed_memory() -> None:
    """Let the allocator keep large blocks instead of giving them back to the system.

    Every layer of an encoder frees tens of MB and the next one asks for as many: given back, they return as pages
    that the kernel must clear. Keeping them makes float32 wav2vec2-base 1.1 times as fast on two cores. Only glibc has
    this switch; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def peak_memory() -> int:
    """The most that this process ever held in memory, in bytes; 0 where the system does not tell."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
