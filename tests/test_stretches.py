"""A front end in stretches gives the frames that it gives in one go, alone and in company."""

from typing import Any

import numpy as np
import pytest
import torch

from speechfeat.encoders.stretches import StretchedFrontEnd
from tests.families import CASES, Case
from tests.families.case import encode_together, speech_like

CLIPS = speech_like(400, 9000, 5000, 700)


def _front_end(case: Case) -> Any:
    return getattr(case.encoder().backbone.module, "feature_extractor", None)


STRETCHED = [case for case in CASES if isinstance(_front_end(case), StretchedFrontEnd)]


def test_all_kinds_of_front_ends_run_so() -> None:
    names = " ".join(case.name for case in STRETCHED)
    assert all(kind in names for kind in ("Wav2Vec2", "Hubert", "WavLM", "Data2Vec", "SEW", "group norm", "layer norm"))


@pytest.mark.parametrize("frames", [3, 20])
@pytest.mark.parametrize("case", STRETCHED, ids=lambda case: case.name)
def test_stretches_change_nothing(case: Case, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = case.encoder()
    front_end = encoder.backbone.module.feature_extractor
    inputs, counts = [encoder.prepare(clip) for clip in CLIPS], [len(clip) for clip in CLIPS]
    expected = [encoder.encode_prepared([one], [count])[0] for one, count in zip(inputs, counts, strict=True)]
    runs: list[torch.Size] = []
    front_end.conv_layers[-1].register_forward_hook(lambda _layer, _inputs, states: runs.append(states.shape))
    assert front_end.most > max(map(len, expected[0]))
    monkeypatch.setattr(front_end, "most", frames)
    alone = [encoder.encode_prepared([one], [count])[0] for one, count in zip(inputs, counts, strict=True)]
    for found in (alone, encode_together(encoder, CLIPS)):
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one - other).max() <= 1e-5 * other.std()
    assert len(runs) > len(CLIPS) and all(count * length <= frames for count, _, length in runs)


def test_gradients_go_through_the_whole() -> None:
    encoder = STRETCHED[0].encoder()
    front_end = encoder.backbone.module.feature_extractor
    samples = torch.randn(2, 4000, requires_grad=True)
    front_end(samples).sum().backward()
    assert samples.grad is not None and samples.grad.abs().sum() > 0
