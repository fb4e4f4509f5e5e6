import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import speechfeat as sf
from speechfeat.distillation.data import AudioCache
from speechfeat.transfer.batches import BatchPlan, UtteranceBatches
from speechfeat.transfer.heads import new_head
from speechfeat.transfer.model import TransferModel
from speechfeat.transfer.objectives import CrossEntropy, Task
from speechfeat.transfer.regimes import Frozen, Full, Gradual, TopBlocks
from speechfeat.transfer.training import TrainConfig, Trainer
from tests.families.case import speech_like

SPEAKERS = 4


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[sf.Utterance]:
    """Sixteen clips: low or high, by four speakers; half of them say their gender."""
    folder = tmp_path_factory.mktemp("recordings")
    clips = speech_like(*(8000 + 601 * number for number in range(16)))
    utterances = []
    for number, clip in enumerate(clips):
        word, speaker = ("low", "high")[number % 2], f"s{number // 2 % SPEAKERS}"
        tone = 0.2 * np.sin(2 * np.pi * (300 if word == "low" else 2000) * np.arange(len(clip)) / 16000)
        soundfile.write(folder / f"{number:02d}.wav", np.clip(clip + tone, -1, 1), 16000, subtype="FLOAT")
        labels = {"keyword": word, "speaker": speaker, "gender": "fm"[number // 2 % 2] if number < 8 else ""}
        utterances.append(sf.Utterance(f"{number:02d}", str(folder / f"{number:02d}.wav"), labels=labels))
    return utterances


@pytest.fixture(scope="module")
def audio(recordings: list[sf.Utterance], tmp_path_factory: pytest.TempPathFactory) -> AudioCache:
    return AudioCache(tmp_path_factory.mktemp("audio"), recordings, 16000, exact=True)


def task(recordings: list[sf.Utterance], label: str = "keyword") -> Task:
    return Task.of(label, [one.labels[label] for one in recordings])


def new_model(checkpoint: Path, **heads: int) -> TransferModel:
    makers = {name: new_head(count) for name, count in (heads or {"keyword": 2}).items()}
    return TransferModel.load(checkpoint, makers, "last", device="cpu")


def new_trainer(
    model: TransferModel, audio: AudioCache, recordings: list, directory: Path, regime: object, **config: object
) -> Trainer:
    plan = BatchPlan(batch_seconds=3.0, crop_seconds=0.6, views=(jitter,))
    train = UtteranceBatches(model.encoder, audio, range(12), plan)
    validation = UtteranceBatches(model.encoder, audio, range(12, 16), plan)
    options = {"epochs": 3, "accumulate": 2, "patience": 9, **config}
    return Trainer(
        model,
        regime,
        CrossEntropy(task(recordings)),
        train,
        validation,
        config=TrainConfig(**options),
        directory=directory,
    )


def jitter(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return samples * np.float32(rng.uniform(0.5, 2))


def weights(model: TransferModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


REGIMES = [Frozen(), TopBlocks(1, head_epochs=1), Gradual(), Full(front=True)]


@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: type(regime).__name__)
@pytest.mark.parametrize("killed_after", [1, 4, 6])
def test_a_killed_and_resumed_training_ends_with_the_same_weights(
    checkpoint: Path, audio: AudioCache, recordings: list, tmp_path: Path, regime: object, killed_after: int
) -> None:
    undisturbed = new_trainer(new_model(checkpoint), audio, recordings, tmp_path / "undisturbed", regime)
    assert undisturbed.run()
    stop = threading.Event()
    killed = new_trainer(new_model(checkpoint), audio, recordings, tmp_path / "killed", regime)
    torch.manual_seed(killed_after)
    assert not killed.run(lambda trainer, _: stop.set() if trainer.state.step == killed_after else None, stop)
    resumed = new_trainer(new_model(checkpoint), audio, recordings, tmp_path / "killed", regime)
    assert resumed.state.step == killed_after
    assert resumed.run()
    assert resumed.state.rows == undisturbed.state.rows
    found = weights(resumed.model)
    for name, value in weights(undisturbed.model).items():
        assert torch.equal(value, found[name]), name
    for one, other in zip(undisturbed.optimizer.state.values(), resumed.optimizer.state.values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
