"""From states on a device to features in memory, without waiting for the device before it has to be."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechfeat.pooling import EDGE_TOKENS
from speechfeat.types import Hidden, Landed, Wanted


class Flight:
    """Features of a batch, or of what runs together of it, which may still be under way.

    Args:
        landed: features of each utterance, as far as they are there.
        seconds: that the device worked on them.

    Attributes:
        seconds: that the device worked on them, once they have landed.
    """

    def __init__(self, landed: Sequence[Landed] = (), seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._landed = list(landed)

    def land(self) -> list[Landed]:
        """Wait for the device; features of each utterance, without padding."""
        return self._landed

    def cancel(self) -> None:
        """Do nothing any more that has not been begun."""


class GpuFlight(Flight):
    """A batch that a GPU may still be working on.

    Args:
        hidden: states of the batch.
        wanted: what to bring to memory.
        began: an event before its work.
    """

    def __init__(self, hidden: Hidden, wanted: Wanted, began: torch.cuda.Event) -> None:
        super().__init__()
        self._values: Tensor | None = None
        self._pooled: Tensor | None = None
        self._states, self._num_frames, self._began = hidden.states, hidden.num_frames, began
        with torch.inference_mode():
            self._send(wanted)
        self._ended = torch.cuda.Event(enable_timing=True)
        self._ended.record()

    def _send(self, wanted: Wanted) -> None:
        """Queue what turns states into features, and their way to pinned memory."""
        rows = enumerate(self._num_frames)
        flat = torch.cat([self._states[row, :, :count].reshape(-1) for row, count in rows])
        flat = flat.to(getattr(torch, wanted.dtype))
        # A number beyond float16 is infinite now: then everything is brought in float32.
        self._finite = _to_pinned(torch.isfinite(flat).all())
        if wanted.pool is not None:
            self._pooled = _to_pinned(pool_states(self._states, self._num_frames, wanted.pool))
        if wanted.frames or wanted.pool is None:
            self._values = _to_pinned(flat)

    def land(self) -> list[Landed]:
        """As above; states that are not needed any more leave the device."""
        states, self._states = self._states, torch.zeros(0)
        self._ended.synchronize()
        self.seconds = self._began.elapsed_time(self._ended) / 1000
        if not self._finite.item():
            return in_memory(Hidden(states, self._num_frames))
        count, layers, _, dim = states.shape
        vectors: list[Any] = [None] * count if self._pooled is None else list(self._pooled.numpy())
        if self._values is None:
            return [Landed(None, vector, True) for vector in vectors]
        parts = self._values.numpy()
        ends = np.cumsum([0, *(layers * num * dim for num in self._num_frames)])
        return [
            Landed(parts[first:last].reshape(layers, num, dim), vector, True)
            for first, last, num, vector in zip(ends, ends[1:], self._num_frames, vectors, strict=False)
        ]


def frames_of(flights: Sequence[Flight]) -> list[np.ndarray]:
    """The frames `[L, T, D]` of each utterance.

    Raises:
        InputError: of the first utterance that has none.
    """
    try:
        return [one.frames for flight in flights for one in flight.land()]
    finally:
        for flight in flights:
            flight.cancel()


def in_memory(hidden: Hidden) -> list[Landed]:
    """Frames of each utterance of a batch, in float32."""
    values = hidden.states.float().cpu().numpy()
    return [Landed(values[row, :, :count]) for row, count in enumerate(hidden.num_frames)]


def _to_pinned(values: Tensor) -> Tensor:
    """On its way to memory that the device writes to by itself."""
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


def pool_states(states: Tensor, num_frames: Sequence[int], pool: str) -> Tensor:
    """Pool padded states over the valid frames of each utterance, on their device.

    Shape:
        `[B, L, T, D]` -> `[B, L, D']` float32; D' is 2 D for "mean+std", else D
    """
    pool = EDGE_TOKENS.get(pool, pool)
    lengths = torch.tensor(num_frames).to(states.device, non_blocking=True)[:, None, None]
    if pool == "first":
        return states[:, :, 0].float()
    if pool == "last":
        places = (lengths - 1)[..., None].expand(-1, states.shape[1], 1, states.shape[3])
        return states.gather(2, places)[:, :, 0].float()
    valid = (torch.arange(states.shape[2], device=states.device) < lengths)[..., None]
    if pool == "max":
        return states.masked_fill(~valid, -torch.inf).amax(2).float()
    mean = states.masked_fill(~valid, 0).sum(2, dtype=torch.float32) / lengths
    if pool == "mean":
        return mean
    squares = (states - mean[:, :, None]).square_().masked_fill_(~valid, 0).sum(2, dtype=torch.float32)
    std = (squares / lengths).sqrt()
    return std if pool == "std" else torch.cat([mean, std], dim=-1)
