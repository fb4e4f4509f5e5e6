"""Laws of models that are trained further: what learns, how fast, and what is saved."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from transformers import LasrFeatureExtractor, ParakeetCTCConfig, ParakeetForCTC

import speechfeat as sf
from speechfeat import extract, predict
from speechfeat.batching import pad
from speechfeat.pooling import pool_frames
from speechfeat.transfer.heads import POOLS, pool_padded
from speechfeat.transfer.model import ADAPTERS, FRONT, HEAD
from speechfeat.transfer.saving import save_encoder, save_head
from tests.families.case import encode_together, speech_like

CLIPS = speech_like(9000, 16000, 12345)


@pytest.fixture(scope="session")
def conformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint directory of a tiny FastConformer, whose blocks have batch norms."""
    path = tmp_path_factory.mktemp("conformer")
    torch.manual_seed(0)
    blocks = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    front = {"subsampling_factor": 4, "subsampling_conv_channels": 8, "num_mel_bins": 80}
    model = ParakeetForCTC(ParakeetCTCConfig(encoder_config={**blocks, **front, "dropout": 0.1}))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
    model.save_pretrained(path)
    LasrFeatureExtractor(feature_size=80).save_pretrained(path)
    return path


@pytest.fixture(params=["checkpoint", "conformer"])
def source(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def load(source: Path, layers: object = "last", **heads: sf.HeadShape) -> sf.TransferModel:
    return sf.TransferModel.load(source, heads or {"word": sf.new_head(3)}, layers, device="cpu")


def batch_of(model: sf.TransferModel, clips: Sequence[np.ndarray] = CLIPS) -> object:
    return pad([model.encoder.prepare(clip) for clip in clips], [len(clip) for clip in clips])


def shake(model: sf.TransferModel) -> None:
    """Give every part that can learn other weights, as training does."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part, weights in model.parts().items():
            for _, weight in weights:
                if part != FRONT:
                    weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)


def test_training_sees_the_numbers_of_extraction(source: Path) -> None:
    model = load(source, "all")
    model.train_parts([HEAD])
    states, lengths = model.states(batch_of(model))
    encoder = sf.load_encoder(source, "all", device="cpu", dtype="float32")
    for row, frames in enumerate(encode_together(encoder, CLIPS)):
        assert torch.equal(states[row, :, : lengths[row]], torch.from_numpy(frames))


@pytest.mark.parametrize("pool", POOLS)
def test_pooling_of_padded_frames_is_that_of_a_store(pool: str) -> None:
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((2, count, 3)).astype(np.float32) for count in (1, 5, 8)]
    padded = torch.full((3, 2, 8, 3), 7.0)
    for row, clip in enumerate(clips):
        padded[row, :, : clip.shape[1]] = torch.from_numpy(clip)
    padded.requires_grad_()
    found = pool_padded(padded, torch.tensor([1, 5, 8]), pool)
    for row, clip in enumerate(clips):
        assert np.allclose(found[row].detach(), pool_frames(clip, pool), atol=1e-6)
    found.sum().backward()
    assert padded.grad.isfinite().all()
    assert not padded.grad[0, :, 1:].any()


def test_every_weight_is_in_one_part_and_blocks_that_do_not_run_are_in_none(source: Path) -> None:
    model = load(source, 2)
    parts = model.parts()
    assert set(parts) == {HEAD, 2, 1, FRONT}
    names = [name for weights in parts.values() for name, _ in weights]
    assert len(names) == len(set(names))
    assert sum(len(weights) for weights in parts.values()) <= len(list(model.parameters()))
    assert all(name.startswith("heads.") == (part == HEAD) for part, weights in parts.items() for name, _ in weights)


def test_only_what_is_chosen_gets_gradients_and_train_mode(conformer: Path) -> None:
    model = load(conformer)
    model.train_parts([HEAD, 3])
    model(batch_of(model))["word"].sum().backward()
    with_gradient = {part for part, weights in model.parts().items() if any(w.grad is not None for _, w in weights)}
    assert with_gradient == {HEAD, 3}
    blocks = model.encoder.backbone.blocks
    assert [block.training for block in blocks] == [False, False, True]
    # As a whole it is not in train mode: no block is left out, and nothing is masked as in pretraining.
    assert not model.backbone.training


@pytest.mark.parametrize("norm_statistics", [False, True])
def test_batch_norms_keep_their_statistics_unless_asked(conformer: Path, norm_statistics: bool) -> None:
    model = load(conformer)
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    assert before
    model.train_parts([HEAD, 1, 2, 3], norm_statistics=norm_statistics)
    model(batch_of(model))
    same = {torch.equal(value, before[name]) for name, value in model.named_buffers() if name in before}
    assert same == {not norm_statistics}


def test_gradual_unfreezes_a_block_an_epoch_from_the_top() -> None:
    regime = sf.Gradual(rate=1e-4, decay=2.0, head_rate=1e-3, head_epochs=1)
    unfrozen = [[part for part in regime.rates(3, epoch) if part != HEAD] for epoch in range(6)]
    assert unfrozen == [[], [3], [3, 2], [3, 2, 1], [3, 2, 1], [3, 2, 1]]
    assert sf.Gradual(most=2).rates(8, 99).keys() == {HEAD, 8, 7}


def test_discriminative_rates_fall_from_block_to_block() -> None:
    rates = sf.Gradual(rate=8e-4, decay=2.0).rates(4, 9)
    assert [rates[block] for block in (4, 3, 2, 1)] == [8e-4, 4e-4, 2e-4, 1e-4]
    assert rates[HEAD] > rates[4]
    assert FRONT not in rates
    assert sf.Full(rate=8e-4, decay=2.0, front=True).rates(2, 0)[FRONT] == 4e-4
    assert len(set(sf.Full(rate=8e-4, head_rate=8e-4).rates(4, 0).values())) == 1


def test_the_head_is_alone_first_and_slow_with_the_top_blocks() -> None:
    regime = sf.TopBlocks(2, rate=1e-4, head_rate=1e-3, head_epochs=2)
    assert regime.rates(5, 0) == regime.rates(5, 1) == {HEAD: 1e-3}
    assert regime.rates(5, 2) == {HEAD: 1e-4, 5: 1e-4, 4: 1e-4}
    assert regime.rates(1, 2) == {HEAD: 1e-4, 1: 1e-4}


@pytest.mark.parametrize("kind", ["logistic", "attentive"])
@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c")])
def test_what_is_saved_answers_as_what_was_trained(
    source: Path, tmp_path: Path, kind: str, classes: tuple[str, ...]
) -> None:
    model = load(source, "1,2", word=sf.new_head(len(classes), kind))
    shake(model)
    model.eval()
    with torch.no_grad():
        expected = model(batch_of(model))["word"].softmax(dim=1).numpy()
    save_encoder(model, tmp_path / "encoder")
    task = sf.Task("word", classes, np.zeros(0, int))
    save_head(model, task, tmp_path / "encoder", tmp_path / "head")
    for number, clip in enumerate(CLIPS):
        soundfile.write(tmp_path / f"{number}.wav", clip, 16000, subtype="FLOAT")
    head = sf.load_head(tmp_path / "head")
    encoder = head.record.binding.open_encoder(device="cpu", dtype="float32")
    alone = [frames.values for frames in encoder.encode(CLIPS)]
    for one, together in zip(alone, encode_together(encoder, CLIPS), strict=True):
        assert np.abs(one - together).max() < 1e-5 * one.std()
    if kind == "logistic":
        found = head.answer(encoder.embed(CLIPS, "mean+std"))
    else:
        found = np.concatenate([head.answer(one[None]) for one in alone])
    assert np.allclose(found, expected, atol=1e-5)
    # Through the command, in bad company.
    command = [str(tmp_path / "head"), str(tmp_path), "-o", str(tmp_path / "answers.csv"), "-q"]
    assert predict.main([*command, "--device", "cpu", "--dtype", "float32"]) == 0
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert float(lines[1].split(",")[4]) == pytest.approx(expected[0, 0], abs=1e-5)


def test_a_saved_encoder_has_all_its_blocks_and_extracts_by_the_command(conformer: Path, tmp_path: Path) -> None:
    model = load(conformer, 2)
    shake(model)
    save_encoder(model, tmp_path / "encoder")
    soundfile.write(tmp_path / "clip.wav", CLIPS[0], 16000, subtype="FLOAT")
    arguments = [str(tmp_path / "clip.wav"), "-o", str(tmp_path / "store"), "-m", str(tmp_path / "encoder"), "-q"]
    assert extract.main([*arguments, "-l", "all", "--device", "cpu", "--dtype", "float32"]) == 0
    values = sf.Store(tmp_path / "store").frames(sf.Store(tmp_path / "store").ids[0]).values
    original = sf.load_encoder(conformer, "all", device="cpu", dtype="float32").encode(CLIPS[:1])[0].values
    assert len(values) == 4
    # The front end and the block above those that were trained are the original's.
    assert np.allclose(values[0], original[0], atol=1e-2)
    assert not np.allclose(values[2], original[2], atol=1e-2)
    states = sf.load_encoder(tmp_path / "encoder", "last", device="cpu").backbone.module.state_dict()
    known = sf.load_encoder(conformer, "last", device="cpu").backbone.module.state_dict()
    assert torch.equal(states["layers.2.norm_out.weight"], known["layers.2.norm_out.weight"])
    assert not torch.equal(states["layers.1.norm_out.weight"], known["layers.1.norm_out.weight"])


def test_merged_adapters_give_what_they_gave_beside_their_layers(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA needs peft")
    model = load(source)
    batch = batch_of(model)
    model.eval()
    before = model(batch)["word"]
    sf.LoRA(rank=2).prepare(model)
    assert torch.allclose(model(batch)["word"], before, atol=1e-6), "new adapters change nothing"
    assert {HEAD, ADAPTERS} <= set(model.parts())
    with torch.no_grad():
        for _, weight in model.parts()[ADAPTERS]:
            weight.add_(0.1)
    trained = model(batch)["word"]
    assert not torch.allclose(trained, before, atol=1e-3)
    save_encoder(model, tmp_path / "encoder")
    assert ADAPTERS not in model.parts()
    assert torch.allclose(model(batch)["word"], trained, atol=1e-5)
    encoder = sf.load_encoder(tmp_path / "encoder", "last", device="cpu", dtype="float32")
    states = model.states(batch)[0]
    frames = encoder.encode(CLIPS[1:2])[0].values
    assert np.allclose(states[1, 0, : len(frames)].detach(), frames, atol=1e-5)


def test_adapters_without_peft_are_one_sentence(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(sf.ModelError, match=r'LoRA needs peft .*; install it: pip install -e "\.\[train\]"'):
        sf.LoRA().prepare(load(checkpoint))


def test_a_directory_of_something_else_is_not_replaced(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(sf.ParameterError, match="is there already and no checkpoint"):
        save_encoder(load(checkpoint), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_what_cannot_be_trained_is_refused(checkpoint: Path) -> None:
    with pytest.raises(sf.ModelError, match="'mfcc' cannot be trained here"):
        sf.TransferModel.load("mfcc", {"word": sf.new_head(2)}, device="cpu")
    with pytest.raises(sf.ParameterError, match=r"a task cannot be called 'a\.b'"):
        load(checkpoint, **{"a.b": sf.new_head(2)})
    with pytest.raises(sf.ParameterError, match="kind='xvctor' is no head"):
        sf.new_head(2, "xvctor")
    encoder = sf.load_encoder(checkpoint, device="cpu", dtype="bfloat16")
    with pytest.raises(sf.ParameterError, match="in bfloat16 cannot be trained"):
        sf.TransferModel(encoder, {})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sf.Full(rate=0), "rate=0 must be above 0"),
        (lambda: sf.TopBlocks(0), "k=0 must be at least 1"),
        (lambda: sf.Gradual(decay=0.5), "decay=0.5 must be at least 1"),
        (lambda: sf.TopBlocks(head_epochs=-1), "head_epochs=-1 must be at least 0"),
        (lambda: sf.TrainConfig(dtype="float16"), "dtype='float16' must be"),
        (lambda: sf.TrainConfig(epochs=0), "epochs=0 must be at least 1"),
        (lambda: sf.BatchPlan(batch_seconds=0), "batch_seconds=0 must be above 0"),
        (lambda: sf.TuningPlan(head="attentive"), "cannot be fitted beforehand"),
    ],
)
def test_mistakes_are_named(make: object, message: str) -> None:
    with pytest.raises(sf.ParameterError, match=message):
        make()
