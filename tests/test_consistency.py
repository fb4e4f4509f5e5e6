from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

import speechfeat as sf
from speechfeat.transfer.batches import TransferBatch
from tests.families.case import speech_like

LOGITS = torch.tensor([[4.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, 5.0]])
TASK = sf.Task.of("word", ["a", "", "", ""], classes=["a", "b", "c"])
ROWS = np.arange(4)


class Said:
    """A model that says the same of the clean view whatever it is, and of the dirty one something else."""

    def __init__(self) -> None:
        self.clean = LOGITS.clone().requires_grad_()
        self.dirty = LOGITS.flip(1).requires_grad_()

    def __call__(self, view: str) -> dict[str, torch.Tensor]:
        return {"word": {"clean": self.clean, "dirty": self.dirty}[view]}


def loss(model: Said, **options: float) -> torch.Tensor:
    return sf.FixMatch(TASK, **options).loss(model, TransferBatch(("clean", "dirty"), ROWS))


@pytest.mark.parametrize("options", [{"threshold": 1.01}, {"weight": 0.0}])
def test_without_pseudo_labels_it_is_cross_entropy(options: dict[str, float]) -> None:
    model = Said()
    expected = sf.CrossEntropy(TASK).loss(model, TransferBatch(("clean",), ROWS))
    assert torch.equal(loss(model, **options), expected)


def test_what_is_surely_said_of_the_clean_view_is_learnt_for_the_dirty_one() -> None:
    model = Said()
    found = loss(model, threshold=0.9, weight=2.0)
    # Rows 1 and 3 are sure, row 2 is not, row 0 has a label; the mean is over the three without.
    told = F.cross_entropy(model.dirty[[1, 3]], torch.tensor([1, 2]), reduction="sum") / 3
    torch.testing.assert_close(found, F.cross_entropy(model.clean[:1], torch.tensor([0])) + 2 * told)
    found.backward()
    assert model.clean.grad is not None
    assert model.dirty.grad is not None
    assert model.clean.grad[1:].abs().sum() == 0  # a pseudo-label is not moved towards the dirty view
    assert model.dirty.grad.abs().sum(dim=1).gt(0).tolist() == [False, True, False, True]


def test_one_view_is_refused() -> None:
    with pytest.raises(sf.ParameterError, match="needs two views"):
        sf.FixMatch(TASK).loss(Said(), TransferBatch(("clean",), ROWS))
    with pytest.raises(sf.ParameterError, match="threshold=-1"):
        sf.FixMatch(TASK, threshold=-1)


def test_an_encoder_is_trained_on_recordings_without_labels_too(checkpoint: Path, tmp_path: Path) -> None:
    utterances, labels = [], []
    for number, clip in enumerate(speech_like(*(8000 + 301 * number for number in range(12)))):
        word = ("low", "high")[number % 2]
        tone = 0.3 * np.sin(2 * np.pi * (300 if word == "low" else 2000) * np.arange(len(clip)) / 16000)
        soundfile.write(tmp_path / f"{number}.wav", np.clip(clip + tone, -1, 1), 16000, subtype="FLOAT")
        utterances.append(sf.Utterance(f"{number}", str(tmp_path / f"{number}.wav")))
        labels.append(word if number < 4 else "")
    plan = sf.TuningPlan(
        str(checkpoint),
        "last",
        sf.Full(),
        validation_share=0.0,
        batches=sf.BatchPlan(views=(None, lambda samples, rng: samples * np.float32(rng.uniform(0.5, 2)))),
        training=sf.TrainConfig(epochs=2),
    )
    options = {"objective": lambda tasks: sf.FixMatch(tasks[0], threshold=0.5), "device": "cpu"}
    tuning = sf.Tuning(utterances, {"word": labels}, tmp_path / "out", plan, **options)
    assert tuning.run()
    shares = tuning.probabilities("word", range(12))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    alone = sf.Tuning(utterances, {"word": labels}, tmp_path / "alone", plan, device="cpu")
    assert alone.run()
    assert np.abs(shares - alone.probabilities("word", range(12))).max() > 1e-4
