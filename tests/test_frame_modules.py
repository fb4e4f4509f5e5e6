"""Laws of the modules of heads on frames: padding changes nothing, neither in use nor in training."""

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import ArcFaceLoss
from torch import nn

from speechfeat.heads.modules import (
    AttentiveStatisticsPooling,
    Convolutions,
    CosineClassifier,
    LayerMix,
    MaskedBatchNorm,
    MeanPooling,
    SelfAttentivePooling,
    Standardize,
    StatisticsPooling,
)
from speechfeat.heads.networks import KINDS, FrameNetwork

LENGTHS = torch.tensor([7, 1, 4, 12])
POOLINGS = [MeanPooling, StatisticsPooling, AttentiveStatisticsPooling, SelfAttentivePooling]


def padded(dim: int = 6, num_layers: int | None = None, fill: float = math.nan) -> torch.Tensor:
    """Frames `[B, T, D]` or `[B, L, T, D]`, with `fill` past each of LENGTHS."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(4, *([] if num_layers is None else [num_layers]), 12, dim, generator=generator)
    for row, length in zip(frames, LENGTHS, strict=True):
        row[..., length:, :] = fill
    return frames


def alone(module: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    return torch.cat(
        [module(row[None, ..., :length, :], length[None]) for row, length in zip(frames, LENGTHS, strict=True)]
    )


@pytest.mark.parametrize("normalize", ["standard", "layer", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_alone_equals_batched(kind: str, normalize: str) -> None:
    network = FrameNetwork(kind, 3, 6, 4, width=8, hidden=(5,), embedding_dim=7, normalize=normalize).eval()
    frames = padded(num_layers=3)
    with torch.inference_mode():
        batched = network(frames, LENGTHS)
        assert batched.shape == (4, 4)
        torch.testing.assert_close(batched, alone(network, frames), rtol=0, atol=1e-5)
        assert network.embed(frames, LENGTHS).shape == (4, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_in_the_padding_does_not_reach_gradients_or_statistics(kind: str) -> None:
    found = []
    for fill in (0.0, 1000.0):
        torch.manual_seed(0)
        network = FrameNetwork(kind, 2, 6, 4, width=8, dropout=0.0).train()
        network(padded(num_layers=2, fill=fill), LENGTHS).square().sum().backward()
        gradients = {name: value.grad for name, value in network.named_parameters()}
        found.append((gradients, dict(network.named_buffers())))
    assert any(value.abs().sum() > 0 for value in found[0][0].values())
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_look_at_valid_frames_only(pooling: type[nn.Module]) -> None:
    module, frames = pooling(6), padded()
    assert module(frames, LENGTHS).shape == (4, module.dim)
    torch.testing.assert_close(module(frames, LENGTHS), alone(module, frames))


def test_poolings_without_preference_are_mean_and_deviation() -> None:
    frames = padded()
    means = torch.stack([row[:length].mean(0) for row, length in zip(frames, LENGTHS, strict=True)])
    deviations = torch.stack(
        [row[:length].var(0, correction=0).clamp(min=1e-5).sqrt() for row, length in zip(frames, LENGTHS, strict=True)]
    )
    attentive, selfish = AttentiveStatisticsPooling(6), SelfAttentivePooling(6)
    for score in (attentive.score, selfish.score):
        for value in score.parameters():
            nn.init.zeros_(value)
    both = torch.cat([means, deviations], dim=1)
    torch.testing.assert_close(MeanPooling(6)(frames, LENGTHS), means)
    torch.testing.assert_close(StatisticsPooling(6)(frames, LENGTHS), both)
    torch.testing.assert_close(attentive(frames, LENGTHS), both)
    torch.testing.assert_close(selfish(frames, LENGTHS), means)


def test_batch_norm_is_torchs_over_the_valid_frames() -> None:
    ours, torchs, frames = MaskedBatchNorm(6), nn.BatchNorm1d(6), padded()
    valid = torch.cat([row[:length] for row, length in zip(frames, LENGTHS, strict=True)])
    mask = torch.arange(12) < LENGTHS[:, None]
    torch.testing.assert_close(ours(frames, LENGTHS)[mask], torchs(valid))
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)
    torch.testing.assert_close(ours.running_var, torchs.running_var)
    torch.testing.assert_close(ours.eval()(frames, LENGTHS)[mask], torchs.eval()(valid))


def test_batch_norm_bears_a_single_frame() -> None:
    norm = MaskedBatchNorm(6)
    found = norm(torch.full((1, 1, 6), 3.0), torch.tensor([1]))
    torch.testing.assert_close(found, torch.full((1, 1, 6), 3.0), atol=1e-4, rtol=0)
    assert not norm.running_mean.any()


def test_convolutions_see_their_context_and_no_more() -> None:
    torch.manual_seed(0)  # some draws leave ReLU nothing but zeros
    module = Convolutions(2, [(16, 5, 1), (16, 3, 2)], dropout=0.0).eval()
    frames = torch.randn(1, 20, 2)
    changed = frames.clone()
    changed[0, 10] += 1
    differing = (module(frames, torch.tensor([20])) != module(changed, torch.tensor([20]))).any(dim=2)[0]
    assert differing.nonzero().flatten().tolist() == [6, 7, 8, 9, 10, 11, 12, 13, 14]


def test_mix_is_the_weighted_sum() -> None:
    mix, frames = LayerMix(3), torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(mix(frames), frames.mean(dim=1))
    with torch.no_grad():
        mix.logits.copy_(torch.tensor([0.2, 0.3, 0.5]).log())
    torch.testing.assert_close(mix.weights, torch.tensor([0.2, 0.3, 0.5]))
    torch.testing.assert_close(mix(frames), 0.2 * frames[:, 0] + 0.3 * frames[:, 1] + 0.5 * frames[:, 2])


def test_mix_starts_at_a_layer() -> None:
    mix = LayerMix(5)
    mix.start_at(3)
    torch.testing.assert_close(mix.weights, torch.tensor([0.025, 0.025, 0.025, 0.9, 0.025]))


def test_one_layer_passes_through() -> None:
    mix, frames = LayerMix(1), torch.randn(2, 1, 5, 4)
    mix.start_at(0)
    assert torch.equal(mix(frames), frames[:, 0])
    assert mix.weights.tolist() == [1.0] and not list(mix.parameters())


def test_a_norm_of_each_layer_takes_its_scale() -> None:
    mix, frames = LayerMix(2, normalize=True), torch.randn(2, 2, 5, 8)
    scaled = torch.stack([1000 * frames[:, 0] + 5, frames[:, 1]], dim=1)
    torch.testing.assert_close(mix(scaled), mix(frames), atol=1e-3, rtol=0)


def test_standardised_dimensions_have_mean_0_and_deviation_1() -> None:
    frames = torch.randn(1, 2, 500, 4) * torch.tensor([1e-3, 1, 1e3, 0]) + torch.tensor([0.01, 5, -2e4, 0])
    module = Standardize(2, 4)
    module.set_statistics(frames[0].mean(dim=1), frames[0].std(dim=1, correction=0))
    found = module(frames)[0]
    torch.testing.assert_close(found.mean(dim=1), torch.zeros(2, 4), atol=1e-3, rtol=0)
    expected = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(2, 4)  # the last one never changes and tells nothing
    torch.testing.assert_close(found.std(dim=1, correction=0), expected, atol=1e-3, rtol=0)
    assert not module(frames + 1)[0, :, :, 3].any()


def test_the_margin_is_that_of_the_paper_and_its_unit_the_degree() -> None:
    classifier, embeddings, labels = CosineClassifier(5, 3, scale=30.0), torch.randn(8, 5), torch.arange(8) % 3
    logits = classifier(embeddings).detach().numpy() / 30.0
    angles = np.arccos(logits[np.arange(8), labels])
    margin = 0.2
    assert (angles + margin < math.pi).all()
    logits[np.arange(8), labels] = np.cos(angles + margin)
    expected = nn.functional.cross_entropy(torch.from_numpy(30.0 * logits), labels)
    criterion = ArcFaceLoss(3, 5, margin=math.degrees(margin), scale=30.0)
    criterion.W = classifier.weight
    torch.testing.assert_close(criterion(embeddings, labels), expected, rtol=1e-4, atol=1e-4)
