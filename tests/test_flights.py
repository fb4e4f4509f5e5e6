"""What a GPU sends of a batch; its events and pinned memory are made up, so that a CPU can tell."""

import numpy as np
import pytest
import torch

from speechfeat.encoders import flights
from speechfeat.encoders.flights import GpuFlight, in_memory
from speechfeat.pooling import Pooler
from speechfeat.types import Hidden, Wanted

LENGTHS = (5, 9, 1)


class Event:
    """One that a stream has passed at once, two seconds after the one before."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.is_recorded = False

    def record(self) -> None:
        self.is_recorded = True

    def synchronize(self) -> None:
        assert self.is_recorded

    def elapsed_time(self, _ended: "Event") -> float:
        return 2000.0


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(flights, "_to_pinned", torch.clone)


def hidden() -> Hidden:
    return Hidden(torch.randn(3, 2, 9, 4, generator=torch.Generator().manual_seed(0)), LENGTHS)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_frames_land_without_padding(dtype: str) -> None:
    flight = GpuFlight(hidden(), Wanted(dtype), Event())  # type: ignore[arg-type]
    landed = flight.land()
    assert flight.seconds == 2.0
    for found, expected, length in zip(landed, in_memory(hidden()), LENGTHS, strict=True):
        assert found.is_finite and found.embedding is None
        assert found.frames.shape == (2, length, 4) and found.frames.dtype == dtype
        np.testing.assert_array_equal(found.frames, expected.frames.astype(dtype))


@pytest.mark.parametrize("pool", ["mean", "std", "mean+std", "max", "first", "last"])
def test_what_is_pooled_is_what_a_cpu_pools(pool: str) -> None:
    landed = GpuFlight(hidden(), Wanted(pool=pool, frames=False), Event()).land()  # type: ignore[arg-type]
    for found, expected in zip(landed, in_memory(hidden()), strict=True):
        pooler = Pooler(pool)
        pooler.add(expected.frames)
        assert found.values is None and found.embedding is not None
        np.testing.assert_allclose(found.embedding, pooler.result(), atol=1e-6)


@pytest.mark.parametrize("value", [1e6, np.nan])
def test_what_float16_cannot_hold_comes_in_float32(value: float) -> None:
    states = hidden()
    states.states[1, 0, 3] = value
    landed = GpuFlight(states, Wanted("float16", "mean"), Event()).land()  # type: ignore[arg-type]
    for found, expected in zip(landed, in_memory(states), strict=True):
        assert not found.is_finite and found.embedding is None
        np.testing.assert_array_equal(found.frames, expected.frames)
