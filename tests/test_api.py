"""The Python API: arrays and paths in, features out."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import speechfeat as sf
from speechfeat.diagnosis import deviation
from tests.families import CASES
from tests.families.case import encode_together, speech_like
from tests.families.waveform import TINY, make


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> sf.Encoder:
    return sf.load_encoder(str(checkpoint), dtype="float32", device="cpu")


def test_import_is_light() -> None:
    code = (
        "import sys, speechfeat; print([name for name in ('torch', 'transformers', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_all_public_names_are_there() -> None:
    for name in sf.__all__:
        assert getattr(sf, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sf.nothing  # noqa: B018


def test_encode_takes_paths_and_arrays_in_any_order(encoder: sf.Encoder, corpus: Path) -> None:
    clips = speech_like(16000, 5000, 30000)
    path = str(corpus / "speaker0" / "clip00.flac")
    frames = encoder.encode([clips[0], path, clips[1], clips[2]])
    for clip, found in zip([clips[0], None, clips[1], clips[2]], frames, strict=True):
        if clip is not None:
            assert found.values.shape == (encoder.grid.num_frames(len(clip)), encoder.dim)
    assert frames[1].id == path
    alone = encoder.encode([clips[2]])[0].values
    assert np.abs(alone - frames[3].values).max() / alone.std() < 1e-5
    # Batches of a nanosecond hold one recording each, which then gives what it gives alone to the bit.
    assert np.array_equal(encoder.encode(clips, batch_seconds=1e-9)[2].values, alone)


def test_embed_is_the_pooled_encode(encoder: sf.Encoder) -> None:
    clips = speech_like(16000, 5000, 30000)
    frames = encoder.encode(clips)
    assert np.allclose(encoder.embed(clips), [one.values.mean(axis=0) for one in frames], atol=1e-5)
    assert encoder.embed(clips, pool="mean+std").shape == (3, 2 * encoder.dim)


def test_layers_are_stacked(checkpoint: Path) -> None:
    encoder = sf.load_encoder(str(checkpoint), layers="0,2", dtype="float32")
    (clip,) = speech_like(16000)
    assert encoder.encode([clip])[0].values.shape == (2, 49, 32)
    assert encoder.embed([clip]).shape == (1, 2, 32)


def test_integers_and_other_rates(encoder: sf.Encoder) -> None:
    (clip,) = speech_like(16000)
    integers = (clip * 32768).clip(-32768, 32767).astype(np.int16)
    floats = integers.astype(np.float32) / 32768
    assert np.array_equal(encoder.embed([integers]), encoder.embed([floats]))
    doubled = np.repeat(clip, 2)
    assert encoder.encode([doubled], sample_rate=32000)[0].num_frames == 49


@pytest.mark.parametrize(
    ("recordings", "message"),
    [
        ("a.wav", "put it into brackets"),
        ([], "no recordings"),
        ([np.zeros((2, 100))], "mono samples"),
        ([np.zeros(100, dtype=complex)], "floats"),
        ([np.zeros(0)], "no samples"),
        ([np.full(100, np.nan)], "NaN"),
        (["nowhere.wav"], "nowhere.wav"),
    ],
)
def test_bad_recordings_get_one_sentence(encoder: sf.Encoder, recordings: object, message: str) -> None:
    with pytest.raises(sf.SpeechfeatError, match=message):
        encoder.encode(recordings)  # type: ignore[arg-type]


def test_one_liner(corpus: Path) -> None:
    ids, vectors = sf.embed(corpus, "logmel")
    assert (len(ids), vectors.shape) == (12, (12, 80))
    soundfile.write(corpus / "nan.wav", np.full(100, np.nan, np.float32), 16000, subtype="FLOAT")
    with pytest.warns(UserWarning, match="1 recordings failed"):
        assert sf.embed(corpus, "logmel")[0] == ids


def test_extract_features_gives_the_store(corpus: Path, checkpoint: Path, tmp_path: Path) -> None:
    store = sf.extract_features(corpus, tmp_path / "out", checkpoint, pool="mean+std", store_dtype="float32")
    assert len(store) == 12
    assert store.embeddings()[1].shape == (12, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            len(sf.extract_features(corpus, tmp_path / "out", checkpoint, pool="mean+std", store_dtype="float32")) == 12
        )


def test_memory_that_runs_out_halves_the_batch(encoder: sf.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = speech_like(16000, 15000, 14000, 13000, 12000)
    inputs, counts = [encoder.prepare(clip) for clip in clips], [len(clip) for clip in clips]
    expected = encoder.encode_padded(inputs, counts)
    forward, sizes = encoder.forward, []

    def small_memory(batch):
        sizes.append(len(batch.sizes))
        if len(batch.sizes) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(batch)

    monkeypatch.setattr(encoder, "forward", small_memory)
    for found, whole in zip(encoder.encode_padded(inputs, counts), expected, strict=True):
        assert np.abs(found - whole).max() < 1e-5 * whole.std()
    assert max(sizes) == 5


def test_no_memory_for_one_is_an_error_of_that_recording(encoder: sf.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(batch):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(encoder, "forward", no_memory)
    with pytest.raises(sf.AudioError, match="do not fit into the memory"):
        encoder.encode(speech_like(16000))


def test_no_memory_for_one_leaves_the_others(
    corpus: Path, encoder: sf.Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(corpus / "long.wav", 0.1 * np.random.default_rng(0).standard_normal(96000), 16000)
    forward, encoded = encoder.forward, []

    def small_memory(batch):
        if max(batch.num_samples) >= 96000:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        encoded.extend(batch.num_samples)
        return forward(batch)

    monkeypatch.setattr(encoder, "forward", small_memory)
    store = sf.extract_features(corpus, tmp_path / "out", encoder)
    assert len(store) == len(encoded) == 12
    assert "do not fit into the memory" in (tmp_path / "out" / "errors.jsonl").read_text()


def test_a_model_in_memory_stays_its_owners() -> None:
    model, extractor = make("Wav2Vec2", {**TINY, "feat_extract_norm": "group"}, normalize=True)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clips = speech_like(16000, 5000)
    for layers, dtype in (("0", "bfloat16"), ("last", "float32"), ("last", "float32")):
        encoder = sf.load_encoder(model, layers, dtype=dtype, device="cpu", feature_extractor=extractor)
        assert encoder.num_layers == TINY["num_hidden_layers"]
    batched = encode_together(encoder, clips)
    for clip, together in zip(clips, batched, strict=True):
        assert np.abs(together - encode_together(encoder, [clip])[0]).max() < 1e-5 * together.std()
    assert model.training
    assert all(value.requires_grad for value in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(encoder.backbone.normalize(clips[0]))[None]).last_hidden_state[0]
    assert np.abs(encoder.encode([clips[0]])[0].values - expected.numpy()).max() < 1e-5


def test_a_model_in_half_precision_runs_in_float32() -> None:
    model, extractor = make("Wav2Vec2", TINY, normalize=True)
    encoder = sf.load_encoder(model.bfloat16(), dtype="float32", device="cpu", feature_extractor=extractor)
    assert encoder.encode(speech_like(8000))[0].values.dtype == np.float32


def test_one_encoder_serves_several_threads(encoder: sf.Encoder) -> None:
    clips = speech_like(16000, 5000, 30000, 8000)
    alone = [encoder.encode([clip])[0].values for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda clip: encoder.encode([clip])[0].values, clips * 3))
    for found, expected in zip(together, alone * 3, strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["Whisper", "Whisper short window"])
def test_windows_shorter_than_the_probe_of_speed(name: str) -> None:
    encoder = next(case for case in CASES if case.name == name).encoder()
    assert encoder.backbone.max_samples < 8 * 16000
    assert encoder.measure_speed() > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda encoder: sf.embed("nowhere", encoder, layers="last"), "give them to load_encoder"),
        (lambda encoder: encoder.encode([np.ones(99)], sample_rate=0), "sample_rate=0"),
        (lambda _: sf.load_encoder("mfcc", feature_extractor=object()), "for models in memory"),
        (lambda _: sf.load_encoder("mfcc", device=torch.device("cuda:99")), "not available"),
    ],
)
def test_what_would_be_ignored_is_an_error(encoder: sf.Encoder, call: Callable, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        call(encoder)


def test_features_that_are_not_finite_do_not_pass_as_equal() -> None:
    bad = [np.full((1, 5, 3), np.nan)]
    assert deviation(bad, bad).worst == np.inf
