"""Networks of one's own, tapped by the paths of their blocks."""

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from speechfeat.encoders.base import Encoder
from speechfeat.encoders.wrapped import wrap_module
from speechfeat.errors import ModelError
from tests.families.case import encode_together, speech_like

OPTIONS = {"sample_rate": 16000, "device": "cpu", "dtype": "float32"}
LENGTHS = (16000, 24321, 8000, 1500)


class Cnn(nn.Module):
    """Three blocks and a classifier, on `[B, 1, N]`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv1d(1, 8, 80, 40), nn.ReLU(inplace=True))
        self.layer2 = nn.Sequential(nn.Conv1d(8, 12, 3, 2, padding=1), nn.ReLU(inplace=True))
        self.layer3 = nn.Sequential(nn.Conv1d(12, 16, 3, 2, padding=1), nn.ReLU(inplace=True))
        self.fc = nn.Linear(16, 4)

    def features(self, inputs: Tensor) -> Tensor:
        return self.layer3(self.layer2(self.layer1(inputs)))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(self.features(inputs).mean(-1))


CNN = {
    "hop": 160,
    "window": 320,
    "pad": (120, 120),
    "layout": "BDT",
    "forward": lambda net, inputs: net(inputs[:, None]),
}


class Transformer(nn.Module):
    """A transformer on frames of 160 samples that is told of lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(160, 32)
        block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, 3, norm=nn.LayerNorm(32), enable_nested_tensor=False)

    def forward(self, frames: Tensor, num_valid: Tensor | None = None) -> Tensor:
        mask = None
        if num_valid is not None:
            mask = torch.arange(frames.shape[1]) >= num_valid[:, None]
        return self.encoder(self.proj(frames), src_key_padding_mask=mask)


def cut(samples: np.ndarray) -> np.ndarray:
    return samples[: len(samples) // 160 * 160].reshape(-1, 160)


class Neural(nn.Module):
    """What NeMo's Conformer looks like from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(160, 160) for _ in range(3)])

    def forward(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        states = audio_signal.transpose(1, 2)
        valid = torch.arange(states.shape[1]) < length[:, None]
        for layer in self.layers:
            # Something that would show padding: the mean over valid frames is added.
            mean = (states * valid[..., None]).sum(1) / length[:, None]
            states = torch.tanh(layer(states) + mean[:, None])
        return states.transpose(1, 2), length


def make(network: type[nn.Module]) -> Any:
    torch.manual_seed(0)
    return network().eval()


def assert_exact(encoder: Encoder) -> None:
    clips = speech_like(*LENGTHS)
    for clip, together in zip(clips, encode_together(encoder, clips), strict=True):
        (alone,) = encode_together(encoder, [clip])
        assert np.abs(together - alone).max() < 1e-5 * alone.std()
        assert alone.shape[1] == encoder.grid.num_frames(len(clip))


def test_the_last_block_of_a_cnn() -> None:
    network = make(Cnn)
    encoder = wrap_module(network, "layer1,layer2,layer3", layers="last", **CNN, **OPTIONS)
    (clip,) = speech_like(16001)
    with torch.no_grad():
        expected = network.features(torch.from_numpy(clip)[None, None])[0].T.numpy()
    (found,) = encode_together(encoder, [clip])
    np.testing.assert_array_equal(found[0], expected)
    assert_exact(encoder)
    assert network(torch.zeros(1, 1, 16000)).shape == (1, 4), "the network is still its owner's"


def test_a_network_can_be_wrapped_twice() -> None:
    network = make(Cnn)
    for layers in ("last", 3):
        encoder = wrap_module(network, "layer1, layer2, layer3", layers=layers, **CNN, **OPTIONS)
        assert encoder.dim == 16


def test_a_network_stays_its_owners() -> None:
    network = make(Cnn).double().train()
    # The older weight normalisation: what it computes cannot be copied by torch itself.
    nn.utils.weight_norm(network.layer2[0])
    encoder = wrap_module(network, "layer1,layer2,layer3", layers="last", **CNN, **{**OPTIONS, "dtype": "bfloat16"})
    assert encoder.dim == 16
    assert network.training
    assert all(value.requires_grad and value.dtype == torch.float64 for value in network.parameters())


def test_what_cannot_be_copied_is_an_error() -> None:
    network = make(Cnn)
    network.lock = threading.Lock()
    with pytest.raises(ModelError, match="Cnn cannot be copied"):
        wrap_module(network, "layer1,layer2,layer3", layers="last", **CNN, **OPTIONS)


def test_blocks_on_two_axes_fold_into_the_dimension() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1))
    spectral = {"forward": lambda net, inputs: net(inputs.transpose(1, 2)[:, None]), "layout": "BCFT"}
    encoder = wrap_module(network, "0,1", hop=160, window=160, prepare=cut, layers="last", **spectral, **OPTIONS)
    assert encoder.dim == 3 * 160
    assert_exact(encoder)


@pytest.mark.parametrize("layers", ["penultimate", "all"])
def test_a_transformer_with_lengths(layers: str) -> None:
    options = {"hop": 160, "window": 160, "prepare": cut, "final_norm": "encoder.norm", "layers": layers}
    encoder = wrap_module(make(Transformer), lengths="num_valid", **options, **OPTIONS)
    assert encoder.backbone.pads
    assert_exact(encoder)
    untold = wrap_module(make(Transformer), **options, **OPTIONS)
    assert not untold.backbone.pads
    assert_exact(untold)
    clips = speech_like(*LENGTHS)
    for one, other in zip(encode_together(encoder, clips), encode_together(untold, clips), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_lengths_may_be_made_into_any_keyword() -> None:
    options = {"hop": 160, "window": 160, "prepare": cut}
    encoder = wrap_module(make(Transformer), lengths=lambda sizes: {"num_valid": sizes}, **options, **OPTIONS)
    assert_exact(encoder)


def test_a_conformer_like_those_of_nemo() -> None:
    def forward(network: nn.Module, inputs: Tensor, length: Tensor) -> object:
        return network(audio_signal=inputs.transpose(1, 2), length=length)

    options = {"hop": 160, "window": 160, "prepare": cut, "forward": forward}
    encoder = wrap_module(make(Neural), "layers", lengths="length", layers="all", **options, **OPTIONS)
    assert encoder.num_layers == 3
    assert_exact(encoder)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("encoder.layer", r"no 'layer' in encoder; did you mean 'encoder.layers'.*it has layers, norm"),
        ("decoder.layers", r"no 'decoder' in Transformer.*it has proj, encoder"),
        ("proj", r"is a Linear and no stack of blocks.*here: encoder.layers"),
        ("proj,encoder.lairs", r"no 'lairs' in encoder"),
        ("proj,forward", r"is a method and no module"),
        ("proj.weight.x", r"no 'x' in proj.weight"),
    ],
)
def test_a_wrong_path_says_what_is_there(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        wrap_module(make(Transformer), path, hop=160, window=160, prepare=cut, **OPTIONS)


def test_a_stack_may_be_a_dict_or_a_list() -> None:
    network = make(Neural)
    network.named = nn.ModuleDict({str(index): layer for index, layer in enumerate(network.layers)})
    network.plain = list(network.layers)
    network.empty = nn.ModuleList()
    options = {"hop": 160, "window": 160, "prepare": cut, "lengths": "length"}

    def forward(net: nn.Module, inputs: Tensor, length: Tensor) -> object:
        return net(inputs.transpose(1, 2), length)

    for path in ("named", "plain", "plain.0,plain.1,plain.2"):
        assert wrap_module(network, path, forward=forward, **options, **OPTIONS).num_layers == 3
    with pytest.raises(ModelError, match="holds no modules"):
        wrap_module(network, "empty", forward=forward, **options, **OPTIONS)


def test_what_hop_and_window_do_not_explain_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"gave 50 frames .* promises 100; correct hop, window or pad"):
        wrap_module(make(Cnn), "layer1,layer2,layer3", layers="last", **{**CNN, "hop": 80}, **OPTIONS)


def test_an_unknown_keyword_for_lengths_is_an_error() -> None:
    with pytest.raises(
        ModelError, match=r"lengths='sizes' is no argument of forward, which takes \(frames, num_valid\)"
    ):
        wrap_module(make(Transformer), lengths="sizes", hop=160, window=160, prepare=cut, **OPTIONS)


def test_a_front_end_that_gives_nothing_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"prepare gave the shape \(0,\)"):
        wrap_module(make(Transformer), hop=160, window=160, prepare=lambda samples: samples[:0], **OPTIONS)
