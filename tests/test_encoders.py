"""The contract of every family: exact in any batch, equal to its own library, frames where the grid says."""

import numpy as np
import pytest

from speechfeat.encoders.base import Encoder
from tests.families import CASES, Case
from tests.families.case import encode_together, speech_like

TOLERANCE = 1e-5
LENGTHS = (16000, 39999, 24321, 8000, 1500, 16321, 30000)


def encode_alone(encoder: Encoder, clip: np.ndarray) -> np.ndarray:
    return encoder.encode_prepared([encoder.prepare(clip)], [len(clip)])[0]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / expected.std())


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def assert_alone_equals_batched(encoder: Encoder) -> None:
    clips = speech_like(*LENGTHS)
    for clip, together in zip(clips, encode_together(encoder, clips), strict=True):
        alone = encode_alone(encoder, clip)
        for layer in range(len(alone)):
            assert error(together[layer], alone[layer]) < TOLERANCE


def test_alone_equals_batched(case: Case) -> None:
    assert_alone_equals_batched(case.encoder("all"))


@pytest.mark.gpu
def test_alone_equals_batched_on_a_gpu(case: Case) -> None:
    assert_alone_equals_batched(case.encoder("all", device="cuda"))


def test_equals_the_stock_library_for_one_utterance(case: Case) -> None:
    clips = speech_like(*LENGTHS[:4])
    model, extractor = case.make()
    expected = [case.single(model, extractor, clip) for clip in clips]
    encoder = case.encoder("all")
    for clip, (penultimate, last) in zip(clips, expected, strict=True):
        found = encode_alone(encoder, clip)
        # Without blocks, layer 0 is both.
        assert error(found[max(0, encoder.num_layers - 1)], penultimate) < TOLERANCE
        assert error(found[encoder.num_layers], last) < TOLERANCE


def test_early_stop_changes_nothing(case: Case) -> None:
    (clip,) = speech_like(20000)
    everything = encode_alone(case.encoder("all"), clip)
    for index in range(len(everything)):
        encoder = case.encoder(index)
        assert error(encode_alone(encoder, clip)[0], everything[index]) < TOLERANCE


def test_frames_are_where_the_grid_says(case: Case) -> None:
    encoder = case.encoder()
    shortest = encoder.grid.min_samples
    assert encoder.grid.num_frames(shortest) >= 1
    assert encoder.grid.num_frames(shortest - 1) == 0 or shortest == 1
    for clip in speech_like(shortest, shortest + 1, 16000, 16001, 17777):
        assert encode_alone(encoder, clip).shape[1] == encoder.grid.num_frames(len(clip))


def test_shorter_than_one_window_gives_a_frame(case: Case) -> None:
    encoder = case.encoder()
    assert encode_alone(encoder, np.ones(1, np.float32)).shape[1] >= 1
