"""How many threads encode and read: chosen by what they take, kept by a store, told by the command."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import speechfeat as sf
from speechfeat import threads
from speechfeat.errors import AudioError
from speechfeat.extract import main
from speechfeat.planning import Work
from speechfeat.store import Store
from speechfeat.types import Audio, Utterance

FOUR = 4


@pytest.fixture(autouse=True)
def _four_threads() -> Any:
    with threads.torch_threads(FOUR):
        yield


class Probed:
    """An encoder whose speed depends on torch's threads."""

    probe_cost = 1.0
    device = torch.device("cpu")

    def __init__(self, speeds: dict[int, float]) -> None:
        self.speeds = speeds

    def measure_speed(self) -> float:
        return self.speeds[torch.get_num_threads()]


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [({4: 9.0, 2: 8.0}, (4, 9.0)), ({4: 9.0, 2: 11.0, 1: 10.0}, (2, 11.0)), ({4: 1.0, 2: 2.0, 1: 3.0}, (1, 3.0))],
)
def test_fewer_threads_are_taken_while_they_are_faster(speeds: dict, expected: tuple) -> None:
    assert threads.fastest_threads(Probed(speeds)) == expected  # type: ignore[arg-type]
    assert torch.get_num_threads() == FOUR


class Slow:
    """A medium that takes its time to read."""

    chunking = sf.Chunking()

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def read(self, work: Work) -> Audio:
        if work.utterance.id == "broken":
            raise AudioError("cannot be decoded")
        time.sleep(self.seconds)
        return Audio(np.zeros(16000, np.float32), 16000)


def works(*names: str) -> list[Work]:
    return [Work(Utterance(name, name), 1.0, 1) for name in names]


def test_readers_keep_up_with_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 8)
    encoder = sf.load_encoder("logmel")
    assert threads.enough_readers(encoder, Slow(0.05), works("a", "b", "c"), speed=1.0) == 1  # type: ignore[arg-type]
    # 0.05 s for a second of audio, with the margin: more than four are needed at 60 times real time.
    found = threads.enough_readers(encoder, Slow(0.05), works("a", "b", "c"), speed=60.0)  # type: ignore[arg-type]
    assert 5 <= found <= 8
    assert threads.enough_readers(encoder, Slow(0.05), works("a", "broken"), speed=1e6) == 8  # type: ignore[arg-type]
    assert threads.enough_readers(encoder, Slow(0.0), works("broken"), speed=1.0) == 8  # type: ignore[arg-type]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        path = tmp_path / "corpus" / f"{number}.flac"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(16000), 16000)
    return tmp_path / "corpus"


def test_a_resumed_run_rounds_as_the_one_that_began(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speechfeat.threads.WORTH", 0)
    monkeypatch.setattr("speechfeat.extracting.fastest_threads", lambda _encoder: (2, 100.0))
    encoder = sf.load_encoder("logmel")
    sf.extract_features(corpus, tmp_path / "out", encoder)
    assert Store(tmp_path / "out").info["threads"] == 2
    again = sf.Extractor(encoder)
    again.open(tmp_path / "out", again.survey(again.discover(corpus))).abort()
    assert again.num_threads == 2
    asked = sf.Extractor(encoder, sf.ExtractConfig(num_threads=3))
    asked.open(tmp_path / "out", asked.survey(asked.discover(corpus))).abort()
    assert asked.num_threads == 3


def test_the_command_tells_and_takes_both_numbers(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(corpus), "-m", "logmel", "-q"]
    assert main([*arguments, "-o", str(tmp_path / "one"), "--threads", "3", "-j", "5"]) == 0
    assert "on cpu (3 threads), batches of 30 s, 5 readers" in capsys.readouterr().err
    assert torch.get_num_threads() == FOUR
    assert main([*arguments, "-o", str(tmp_path / "two")]) == 0
    assert f"on cpu ({FOUR} threads)" in capsys.readouterr().err
    with pytest.raises(sf.ParameterError, match="num_threads=0 must be a number above 0"):
        main([*arguments, "-o", str(tmp_path / "three"), "--threads", "0"])
