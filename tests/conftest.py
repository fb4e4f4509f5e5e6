"""Fixtures: a tiny checkpoint on disk, a small corpus, the shared recordings, and skips with their reasons."""

import os
from pathlib import Path

# Before torch is imported, here and in the commands that are run: threads that share what is as small as this spend
# most of their time on waiting for each other. Tests about threads ask for theirs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
import torch

from tests.families.case import speech_like
from tests.families.text import SHORT_BERT, make_tokenizer
from tests.families.waveform import TINY, make

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say why."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory of shared recordings and checkpoints."""
    path = Path(os.environ.get("SPEECHFEAT_SHARED", REPOSITORY.parent / "shared"))
    if not (path / "data").is_dir():
        pytest.skip(f"no shared recordings at {path}; set SPEECHFEAT_SHARED")
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory of a tiny wav2vec 2.0 with the leaky group norm."""
    path = tmp_path_factory.mktemp("checkpoint")
    model, extractor = make("Wav2Vec2", {**TINY, "feat_extract_norm": "group"}, normalize=True)
    model.save_pretrained(path)
    extractor.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory of a tiny BERT for 64 tokens, with its tokenizer."""
    path = tmp_path_factory.mktemp("text_checkpoint")
    SHORT_BERT.make().save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twelve recordings of different lengths in two folders."""
    top = tmp_path / "corpus"
    for number, clip in enumerate(speech_like(*(4000 + 3001 * step for step in range(12)))):
        folder = top / f"speaker{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"clip{number:02d}.flac", np.clip(clip, -1, 1), 16000)
    return top
