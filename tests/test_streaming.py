"""What is launched before an earlier run has landed, and what becomes of it where that one has failed."""

from types import SimpleNamespace

import numpy as np
import pytest

from speechfeat.chunking import Chunking
from speechfeat.encoders.flights import Flight
from speechfeat.errors import AudioError
from speechfeat.streaming import Failure, Times, _Launcher, _Ready, stream
from speechfeat.types import ALL_FRAMES, Audio, Landed
from speechfeat.units import FrameGrid, Stage


def test_a_long_recording_that_fails_twice_is_one_failure() -> None:
    launched: list[int] = []

    def launch(_inputs: list, counts: list[int], _wanted: object, **_options: bool) -> list[Flight]:
        launched.extend(counts)
        if len(launched) > 1:
            return [Flight([Landed(None, error=AudioError("does not fit into the memory"))])]
        return [Flight([Landed(np.full((1, 4, 2), np.nan, np.float32))])]

    encoder = SimpleNamespace(
        launch=launch,
        backbone=SimpleNamespace(prepare=lambda samples: samples),
        grid=SimpleNamespace(seconds=lambda count: count / 16000),
    )
    chunks = [SimpleNamespace(start=at, stop=at + 4, skip=0, first_frame=at, last_frame=at + 4) for at in (0, 4)]
    ready = _Ready(0, np.zeros(8, np.float32), chunks, 8, 16000, (), None)
    # As on a GPU: the second run is launched before the first has landed.
    runs = list(_Launcher(encoder, 1, ALL_FRAMES).launch([[ready]]))
    found = [result for run in runs for result in run.land(Times())]
    assert len(launched) == 2
    assert [type(result) for result in found] == [Failure]


@pytest.mark.parametrize(("is_asynchronous", "expected"), [(True, "0 1 a 2 b c"), (False, "0 a 1 b 2 c")])
def test_the_next_batch_is_launched_before_the_last_has_landed(is_asynchronous: bool, expected: str) -> None:
    events: list[str] = []

    class Told(Flight):
        def land(self) -> list[Landed]:
            events.append("abc"[int(self.seconds)])
            return [Landed(np.zeros((1, 4, 2), np.float32))]

    def launch(inputs: list, _counts: list[int], _wanted: object, **_options: bool) -> list[Flight]:
        events.append(str(inputs[0][0]))
        return [Told(seconds=float(inputs[0][0]))]

    encoder = SimpleNamespace(
        launch=launch,
        is_asynchronous=is_asynchronous,
        cost=float,
        lengthen=lambda samples: samples,
        backbone=SimpleNamespace(
            normalize=lambda samples: samples, prepare=lambda samples: samples, max_samples=None, causal=False
        ),
        grid=FrameGrid(16000, (Stage(400, 320),)),
    )
    times = Times()
    results = stream(
        encoder,  # type: ignore[arg-type]
        [[0], [1], [2]],
        lambda item: Audio(np.full(1600, item), 16000),
        seconds=[0.1] * 3,
        chunking=Chunking(),
        num_workers=1,
        batch_seconds=30.0,
        times=times,
    )
    assert [piece.item for group in results for piece in group] == [0, 1, 2]
    assert " ".join(events) == expected
    assert times.encoding == 0.0 + 1.0 + 2.0
