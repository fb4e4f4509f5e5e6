"""The faster modules compute what the stock ones do, and a GPU in half precision gives what it gives alone."""

import copy
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from speechfeat.batching import pad
from speechfeat.encoders import compiling, conformer_code, whisper
from speechfeat.encoders.backbone import Backbone
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.blocked_attention import attend
from speechfeat.encoders.catalog import EMBEDDED
from speechfeat.encoders.channels_last import by_spans, convolve, is_slow_of_groups, to_channels_last
from speechfeat.encoders.flights import pool_states
from speechfeat.encoders.loading import load_encoder
from speechfeat.encoders.onednn import gathered
from speechfeat.encoders.precision import OneDnnLinear
from speechfeat.pooling import POOLS, pool_frames
from tests.families import CASES, Case
from tests.families.case import encode_together, speech_like

LENGTHS = (16000, 9000, 9000, 23456, 31000)
# Of 16-bit products: root of the mean squared difference over the deviation.
HALF_TOLERANCE = 0.05

PREFIXES = ("Wav2Vec2", "Hubert", "WavLM", "UniSpeech", "Data2Vec", "SEW", "w2v-BERT", "Parakeet", "Whisper")
ACCELERATED = [case for case in CASES if case.name.startswith(PREFIXES)]


GROUP_NORMED = [case for case in ACCELERATED if "group norm" in case.name]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_is_off", True)


def encoder_made_for(case: Case, device: str | None, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """The encoder of a case in float32 on a CPU, with the modules for a device, or with the library's own for None."""
    with monkeypatch.context() as patched:
        for backbone in _all_subclasses(Backbone):
            if "accelerate" in vars(backbone):
                patched.setattr(backbone, "accelerate", _for_device(backbone.accelerate, device))
        return case.encoder("all")


def have_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round lengths and share rows out in float32, as is done in half precision on a CPU with AMX."""
    for user in ("base", "wav2vec2", "fused_whisper", "fused_conformer"):
        monkeypatch.setattr(f"speechfeat.encoders.{user}.writes_code", lambda _device, _dtype: True)
    monkeypatch.setattr("speechfeat.encoders.shapes.SHARE_ROWS", 32)
    monkeypatch.setattr("speechfeat.encoders.fused_whisper.WANTED_UNIT", 8)


def prefer_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fuse in float32 as on a CPU with AVX-512."""
    for user in ("conformer_backbone", "whisper", "wav2vec2", "w2v_bert"):
        monkeypatch.setattr(f"speechfeat.encoders.{user}.prefers_onednn", lambda _device, _dtype: True)


def _all_subclasses(base: type) -> list[type]:
    return [found for one in base.__subclasses__() for found in (one, *_all_subclasses(one))]


def _for_device(accelerate: Callable, device: str | None) -> Callable:
    return lambda self, _: accelerate(self, torch.device(device)) if device else None


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("device", "blocks", "rounds"),
    [("cpu", True, False), ("cpu", False, False), ("cpu", False, True), ("cuda", False, False)],
)
@pytest.mark.parametrize("case", ACCELERATED, ids=lambda case: case.name)
def test_faster_modules_compute_the_same(
    case: Case, device: str, blocks: bool, rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speechfeat.encoders.wav2vec2.has_slow_mkl", lambda _device: blocks)
    monkeypatch.setattr("speechfeat.encoders.blocked_attention.has_slow_mkl", lambda _device: blocks)
    prefer_onednn(monkeypatch)
    monkeypatch.setattr("speechfeat.encoders.blocked_attention.MIN_FRAMES", 20)
    monkeypatch.setattr("speechfeat.encoders.blocked_attention.BLOCK_SCORES", 1000)
    clips = speech_like(*LENGTHS)
    stock = encode_together(encoder_made_for(case, None, monkeypatch), clips)
    if rounds:
        have_amx(monkeypatch)
    faster = encoder_made_for(case, device, monkeypatch)
    together = encode_together(faster, clips)
    alone = [faster.encode_prepared([faster.prepare(clip)], [len(clip)])[0] for clip in clips]
    for found in (together, alone):
        for values, expected in zip(found, stock, strict=True):
            assert np.abs(values - expected).max() / expected.std() < 1e-4


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("layer", ["penultimate", "last", 1])
def test_frames_that_nobody_asks_for_are_left_out_of_the_deepest_block(
    layer: str | int, rounds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer_onednn(monkeypatch)
    if rounds:
        have_amx(monkeypatch)
    case = next(case for case in CASES if case.name == "Whisper")
    clips = speech_like(*LENGTHS)
    encoder, everything = case.encoder(layer), case.encoder("all")
    batch = pad([encoder.prepare(clip) for clip in clips], [len(clip) for clip in clips])
    wanted = max(encoder.num_frames(len(clip)) for clip in clips)
    assert encoder.forward(batch).states.shape[2] == (-(-wanted // 8) * 8 if rounds else wanted)
    found, expected = encode_together(encoder, clips), encode_together(everything, clips)
    (index,) = encoder.selection.indices
    for values, of_all in zip(found, expected, strict=True):
        assert np.abs(values[0] - of_all[index]).max() / of_all[index].std() < 1e-5


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.0, 2.9])
def test_silence_behind_a_recording_is_not_convolved(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer_onednn(monkeypatch)
    monkeypatch.setattr("speechfeat.encoders.whisper.KEPT_UNIT", 4)
    case = next(case for case in CASES if case.name == "Whisper")
    stock, encoder = encoder_made_for(case, None, monkeypatch), case.encoder("all")
    clip = speech_like(round(seconds * 16000))[0] if seconds else np.zeros(16000, np.float32)
    run, widths = whisper.convolve, []

    def watch(conv: torch.nn.Conv1d, inputs: torch.Tensor, activation: torch.nn.Module) -> torch.Tensor:
        widths.append(inputs.shape[2])
        return run(conv, inputs, activation)

    monkeypatch.setattr(whisper, "convolve", watch)
    batch = pad([encoder.prepare(clip)], [len(clip)])
    found, expected = encoder.forward(batch).states, stock.forward(batch).states
    assert widths[0] <= min(300, 100 * seconds + 16)
    assert (found - expected).abs().max() / expected.std() < 1e-5


def test_lengths_are_rounded_to_few_widths_where_code_is_written_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    have_amx(monkeypatch)
    encoder = GROUP_NORMED[0].encoder("last")
    forward, widths = encoder.backbone.forward, set()

    def watch(inputs: torch.Tensor, sizes: Sequence[int]) -> object:
        widths.add(inputs.shape[1])
        return forward(inputs, sizes)

    monkeypatch.setattr(encoder.backbone, "forward", watch)
    clips = speech_like(*range(32000, 64000, 640))
    for clip in clips:
        (found,) = encoder.encode_prepared([encoder.prepare(clip)], [len(clip)])
        assert found.shape[1] == encoder.num_frames(len(clip))
    assert len(widths) < 20 < len(clips)


@pytest.mark.parametrize("name", ["Wav2Vec2 group norm", "WavLM layer norm", "w2v-BERT relative_key"])
def test_attention_with_amx_is_over_whole_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer_onednn(monkeypatch)
    have_amx(monkeypatch)
    encoder = next(case for case in ACCELERATED if case.name == name).encoder("last")
    attend_whole, frames = torch.nn.functional.scaled_dot_product_attention, set()

    def watch(query: torch.Tensor, key: torch.Tensor, *others: object, **options: object) -> torch.Tensor:
        frames.update((query.shape[2], key.shape[2]))
        return attend_whole(query, key, *others, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    encode_together(encoder, speech_like(*LENGTHS))
    assert frames
    assert {count % 16 for count in frames} == {0}


@pytest.mark.parametrize("name", ["Wav2Vec2Conformer relative layer norm", "Parakeet"])
def test_relative_attention_with_amx_is_over_whole_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer_onednn(monkeypatch)
    have_amx(monkeypatch)
    encoder = next(case for case in ACCELERATED if case.name == name).encoder("last")
    run, widths = conformer_code.relative_attention, []

    def watch(states: torch.Tensor, weights: object, places: object, width: int, lengths: object) -> torch.Tensor:
        widths.append((width, states.shape[1]))
        return run(states, weights, places, width, lengths)  # type: ignore[arg-type]

    monkeypatch.setattr(conformer_code, "relative_attention", watch)
    encode_together(encoder, speech_like(*LENGTHS))
    assert widths
    assert all(width % 16 == 0 and length <= width < length + 16 for width, length in widths)


@torch.inference_mode()
def assert_convolves(
    run: Callable[..., torch.Tensor], conv: torch.nn.Conv1d, inputs: torch.Tensor, tolerance: float
) -> None:
    """With each kind of activation, as the convolution in float64."""
    exact = copy.deepcopy(conv).double()(inputs.double())
    for activation in (None, torch.nn.GELU(), torch.nn.Tanh()):
        expected = exact if activation is None else activation(exact)
        found = run(conv, inputs, activation)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (10, 5), (3, 1)])
def test_convolutions_are_products(
    kernel: int, stride: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speechfeat.encoders.channels_last.has_slow_mkl", lambda _device: False)
    monkeypatch.setattr("speechfeat.encoders.shapes.PIECES", (32, 8, 2))
    torch.manual_seed(0)
    for bias in (False, True):
        conv = torch.nn.Conv1d(16, 24, kernel, stride, bias=bias).to(dtype)
        for count, length in ((1, 333), (3, 100), (2, kernel)):
            inputs = torch.randn(count, 16, length).to(dtype)
            assert_convolves(convolve, conv, inputs, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize(("kernel", "padding"), [(64, 32), (65, 3), (70, 0)])
def test_long_convolutions_of_groups_are_products_of_spans(
    kernel: int, padding: int, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    for bias in (False, True):
        conv = torch.nn.Conv1d(12, 18, kernel, padding=padding, groups=3, bias=bias).to(dtype)
        assert is_slow_of_groups(conv)
        for count, length in ((1, 130), (3, 101), (2, 70)):
            inputs = torch.randn(count, length, 12).to(dtype).transpose(1, 2)
            assert_convolves(by_spans, conv, inputs, tolerance)
    depthwise, of_tiles = torch.nn.Conv1d(96, 96, 31, groups=96), torch.nn.Conv1d(128, 128, 128, groups=2)
    assert not is_slow_of_groups(depthwise) and not is_slow_of_groups(of_tiles)


@pytest.mark.parametrize("case", GROUP_NORMED, ids=lambda case: case.name)
def test_a_folded_norm_bears_silence_and_offsets(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    (clip,) = speech_like(16000)
    stock, faster = (encoder_made_for(case, device, monkeypatch) for device in (None, "cpu"))
    for one in (clip, clip + np.float32(3.0), np.zeros_like(clip), np.ones_like(clip)):
        found, expected = (made.encode_prepared([one], [len(one)])[0] for made in (faster, stock))
        assert np.isfinite(found).all()
        # Of what does not change, the library normalises its own rounding.
        assert one.std() == 0 or np.abs(found - expected).max() / expected.std() < 1e-4


def test_attention_in_blocks_is_torchs() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 130, 16) for _ in range(3))
    bias = torch.randn(2, 3, 130, 130)

    def add_bias(scores: torch.Tensor, row: int, head: int, first: int) -> None:
        scores += bias[row, head, first : first + len(scores)]

    with torch.inference_mode():
        for mask, add in ((None, None), (bias, add_bias)):
            expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.3)
            found = attend(query, key, value, 0.3, add)
            assert torch.allclose(found.transpose(1, 2), expected, atol=1e-5)


def test_changed_weights_are_taken_in_the_other_layout() -> None:
    conv = torch.nn.Conv1d(16, 16, 3, stride=2)
    inputs = torch.randn(1, 16, 40)
    to_channels_last(conv)
    other = torch.nn.Parameter(torch.randn_like(conv.weight))

    def learn() -> None:
        conv.weight.mul_(2)

    def replace() -> None:
        conv.weight = other

    for change in (learn, replace, learn):
        expected = conv(inputs)
        assert expected.requires_grad
        with torch.inference_mode():
            assert torch.allclose(conv(inputs), expected, atol=1e-5)
        with torch.no_grad():
            change()


def test_weights_laid_out_are_made_anew_when_they_change_and_are_not_copied() -> None:
    layer = OneDnnLinear(24, 16)
    inputs = torch.randn(3, 24)
    for _ in range(2):
        expected = torch.nn.functional.linear(inputs, layer.weight, layer.bias)
        for one in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            with torch.inference_mode():
                assert torch.allclose(one(inputs), expected, atol=1e-5)
        with torch.no_grad():
            layer.weight.mul_(2)


def test_what_is_gathered_of_a_module_is_made_anew_when_anything_in_it_changes() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).requires_grad_(False)
    layer, norm = module[0], module[1]
    made = []

    def add() -> float:
        return sum(one.sum().item() for one in module.state_dict().values())

    def total() -> float:
        return gathered(module, lambda: made.append(None) or add())

    def wrap() -> None:
        module[0] = torch.nn.Sequential(layer)

    changes = (
        *(lambda: None, lambda: layer.weight.add_(1), lambda: norm.running_mean.add_(1)),
        *(lambda: setattr(layer, "bias", torch.nn.Parameter(torch.ones(4))), module.double, wrap),
    )
    for times, change in enumerate(changes, 1):
        change()
        for _ in range(2):
            assert total() == pytest.approx(add())
        assert len(made) == times
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not vars(copied)["_kept"].made


def test_weights_of_large_models_are_not_kept_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, kept in ((1e9, True), (0, False)):
        monkeypatch.setattr("speechfeat.encoders.onednn.MOST_BYTES", most)
        encoder = load_encoder(dtype="bfloat16")
        encoder.encode([speech_like(8000)[0]])
        modules = encoder.backbone.module.modules()
        assert any("_kept" in vars(one) for one in modules if isinstance(one, torch.nn.Linear)) is kept


def test_log_mel_is_the_extractors() -> None:
    extractor = AutoFeatureExtractor.from_pretrained(EMBEDDED / "conformer-s")
    backbone = load_encoder().backbone
    for clip in (*speech_like(16000, 401), np.zeros(4000, np.float32)):
        expected = extractor(clip, sampling_rate=16000, return_tensors="np")["input_features"][0]
        found = backbone.prepare(clip)
        assert found.dtype == np.float32 and found.flags.c_contiguous
        assert np.abs(found - expected).max() < 2e-6 * np.abs(expected).max()


@pytest.mark.gpu
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("case", ACCELERATED, ids=lambda case: case.name)
def test_half_precision_on_a_gpu_is_near_float32(case: Case) -> None:
    clips = speech_like(*LENGTHS)
    exact = encode_together(case.encoder(device="cuda"), clips)
    half = case.encoder(device="cuda", dtype="bfloat16")
    alone = [half.encode_prepared([half.prepare(clip)], [len(clip)])[0] for clip in clips]
    for batched, single, expected in zip(encode_together(half, clips), alone, exact, strict=True):
        for found in (batched, single):
            assert np.sqrt(np.square(found - expected).mean()) / expected.std() < HALF_TOLERANCE


def test_compiled_code_is_given_up_where_it_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: object, **_options: object) -> object:
        def call(*_args: object) -> None:
            raise torch._dynamo.exc.TorchDynamoException("no compiler here")

        return call

    monkeypatch.setattr(compiling, "_is_off", False)
    monkeypatch.setattr(torch, "compile", refuse)
    double = compiling.fused(lambda value: 2 * value)
    with pytest.warns(UserWarning, match="no compiler here"):
        assert double(3) == 6
    assert double(4) == 8


@pytest.mark.parametrize("pool", POOLS)
def test_pooling_on_the_device_is_that_of_the_store(pool: str) -> None:
    states, lengths = torch.randn(3, 2, 11, 5), (11, 4, 1)
    for row, vector in enumerate(pool_states(states, lengths, pool).numpy()):
        expected = pool_frames(states[row, :, : lengths[row]].numpy(), pool)
        assert np.abs(vector - expected).max() < 1e-5
