"""What becomes of runs that are launched before an earlier one of the same utterance has failed."""

from types import SimpleNamespace

import numpy as np

from speechfeat.encoders.flights import Flight
from speechfeat.errors import AudioError
from speechfeat.streaming import Failure, Times, _Launcher, _Ready
from speechfeat.types import ALL_FRAMES, Landed


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
