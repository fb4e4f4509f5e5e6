"""The encoder that comes with the package."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from sklearn.model_selection import StratifiedKFold
from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

import speechfeat as sf
from speechfeat.audio import read_audio
from speechfeat.encoders.catalog import DEFAULT_MODEL, EMBEDDED
from tests.conftest import REPOSITORY

MODEL = EMBEDDED / "conformer-s"
EXAMPLES = sorted(file for file in (REPOSITORY / "examples").iterdir() if file.suffix != ".py")


@pytest.fixture(scope="module")
def encoder() -> sf.Encoder:
    return sf.load_encoder(layers="all", device="cpu", dtype="float32")


def samples(file: Path) -> np.ndarray:
    return read_audio(str(file), 16000).samples


def test_it_is_the_default_and_small(encoder: sf.Encoder) -> None:
    assert DEFAULT_MODEL == encoder.name == "conformer-s"
    assert sum(file.stat().st_size for file in MODEL.iterdir()) <= 20e6
    assert 6e6 <= sum(parameter.numel() for parameter in encoder.backbone.module.parameters()) <= 10e6
    assert encoder.grid.frame_rate == 25
    with safe_open(MODEL / "model.safetensors", "numpy") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys() if "num_batches" not in name} == {"F16"}  # noqa: SIM118


def test_an_utterance_alone_equals_itself_in_a_batch(encoder: sf.Encoder) -> None:
    clips = [samples(file) for file in EXAMPLES] + [samples(EXAMPLES[0])[:3000], samples(EXAMPLES[0])[:100]]
    prepared, sizes = [encoder.prepare(clip) for clip in clips], [len(clip) for clip in clips]
    batched = encoder.encode_padded(prepared, sizes)
    for one, size, values in zip(prepared, sizes, batched, strict=True):
        alone = encoder.encode_padded([one], [size])[0]
        errors = np.abs(values - alone).max(axis=(1, 2)) / alone.std(axis=(1, 2))
        assert errors.max() < 1e-5


def test_transformers_reads_it_as_a_recogniser() -> None:
    model = AutoModelForCTC.from_pretrained(MODEL, dtype=torch.float32).eval()
    extractor, tokenizer = AutoFeatureExtractor.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    inputs = extractor(samples(EXAMPLES[0]), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        scores = model(inputs.input_features).logits
    assert scores.shape[-1] == len(tokenizer)
    assert set(tokenizer.decode(scores[0].argmax(dim=-1))) <= set(" 'abcdefghijklmnopqrstuvwxyz")


def test_layers_are_the_blocks_outputs(encoder: sf.Encoder) -> None:
    model = AutoModelForCTC.from_pretrained(MODEL, dtype=torch.float32).eval()
    extractor = AutoFeatureExtractor.from_pretrained(MODEL)
    clip = samples(EXAMPLES[0])
    seen: list[torch.Tensor] = []
    for block in model.encoder.layers:
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        model(extractor(clip, sampling_rate=16000, return_tensors="pt").input_features)
    values = encoder.encode([clip])[0].values
    assert encoder.num_layers == len(seen)
    for layer, state in enumerate(seen, 1):
        assert np.abs(values[layer] - state[0].numpy()).max() < 1e-5 * state.std().item()


def test_the_first_command_needs_no_model_and_no_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "speechfeat.extract", str(REPOSITORY / "examples"), "-o", str(tmp_path / "out")]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "nothing"), "PATH": "", "HOME": str(tmp_path)}
    result = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["done"] == len(EXAMPLES)
    store = sf.Store(tmp_path / "out")
    assert store.ids == [file.name for file in EXAMPLES]
    assert store.frames(store.ids[0]).values.shape[1] == 192
    assert not (tmp_path / "nothing").exists()


def test_the_card_states_data_licences_and_scores() -> None:
    card = (MODEL / "README.md").read_text()
    assert "{{" not in card + (REPOSITORY / "README.md").read_text()
    for word in ("license: apache-2.0", "Common Voice", "CC0", "whisper-tiny.en", "WeSpeaker", "character error rate"):
        assert word in card


@pytest.mark.shared
def test_wake_words_are_told_apart_by_a_linear_probe(shared: Path) -> None:
    table = pd.read_csv(shared / "data" / "wakeword.tsv", sep="\t", quoting=3)
    encoder = sf.load_encoder(device="cpu", dtype="float32")
    values = encoder.embed([shared / "data" / path for path in table["path"]], pool="mean+std")
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(values, table["keyword"])
    assert sf.probe_layers(values[:, None], table["keyword"], folds)[0].score >= 0.99
