"""What networks on frames are made of: a mix of layers, bodies over time, poolings, a classifier.

Everything takes padded frames with their lengths `[B]` and looks at no frame past them: an utterance alone and in a
batch gives the same. What is past a length may be anything (in training anything finite: it meets gradients of 0).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# Of a variance, below which its root would have no useful gradient.
LEAST_VARIANCE = 1e-5


def valid_frames(lengths: Tensor, num_frames: int) -> Tensor:
    """True where a frame is no padding.

    Shape:
        lengths `[B]` -> `[B, T]`, T = num_frames
    """
    return torch.arange(num_frames, device=lengths.device) < lengths[:, None]


def zero_padding(frames: Tensor, lengths: Tensor) -> Tensor:
    """The frames with zeros past each length, `[B, T, D]`."""
    return frames.masked_fill(~valid_frames(lengths, frames.shape[1])[..., None], 0.0)


class Sized(nn.Module):
    """A body or a pooling, for frames padded to `[B, T, D]` and their lengths `[B]`.

    Attributes:
        dim: of what it gives.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim


class Standardize(nn.Module):
    """Every dimension of every layer with mean 0 and deviation 1 over the training frames.

    Layers differ in scale by orders of magnitude, and some of their dimensions by more: without this, a mix of layers
    is a choice of the loudest, and its weights say nothing. A layer norm does not help against a few loud dimensions,
    and takes from every frame its level; so this is the default.

    Shape:
        `[B, L, T, D]` -> `[B, L, T, D]`
    """

    def __init__(self, num_layers: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_layers, 1, dim))
        self.register_buffer("factor", torch.ones(num_layers, 1, dim))
        self.mean: Tensor
        self.factor: Tensor

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take the statistics of the training frames, `[L, D]` each."""
        # Below the resolution of float16, in which frames are stored, what varies is rounding; a dimension that is
        # constant and zero tells nothing.
        scale = torch.maximum(std, 1e-3 * mean.abs())
        self.mean.copy_(mean[:, None])
        self.factor.copy_(torch.where(scale > 0, 1 / scale, 0.0)[:, None])

    def forward(self, frames: Tensor) -> Tensor:
        """Apply it."""
        return (frames - self.mean) * self.factor


class LayerMix(nn.Module):
    """A weighted sum of layers whose weights are a softmax over learnt numbers (SUPERB; Yang et al., 2021).

    One layer is passed through, and nothing is learnt.

    Args:
        num_layers: L.
        normalize: give each frame of each layer mean 0 and deviation 1 over its dimensions first, as SUPERB may.

    Shape:
        `[B, L, T, D]` -> `[B, T, D]`
    """

    def __init__(self, num_layers: int, *, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize
        self.logits = nn.Parameter(torch.zeros(num_layers)) if num_layers > 1 else None

    @property
    def weights(self) -> Tensor:
        """Of the layers, `[L]`; they sum to 1."""
        return torch.ones(1) if self.logits is None else self.logits.softmax(dim=0)

    def start_at(self, place: int, share: float = 0.9) -> None:
        """Give one layer a share of the weight, and the others the rest."""
        if self.logits is not None:
            with torch.no_grad():
                self.logits.zero_()
                self.logits[place] = math.log(share / (1 - share) * (len(self.logits) - 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Mix them."""
        if self.normalize:
            frames = F.layer_norm(frames, frames.shape[-1:])
        if self.logits is None:
            return frames[:, 0]
        # A matrix product, which needs no copy of the frames.
        return torch.matmul(self.weights, frames.flatten(2)).view(frames.shape[0], *frames.shape[2:])


class MaskedBatchNorm(nn.Module):
    """Batch norm whose statistics are of the valid frames only, so that padding does not count.

    A batch with a single frame has no variance: there the running statistics serve in training too.

    Shape:
        frames `[B, T, D]`, lengths `[B]` -> `[B, T, D]`; zeros past each length in training, anything otherwise
    """

    def __init__(self, dim: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.running_mean: Tensor
        self.running_var: Tensor

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Normalise them."""
        if not self.training:
            return self._normalize(frames.flatten(0, 1), training=False).view_as(frames)
        mask = valid_frames(lengths, frames.shape[1])
        valid = frames[mask]
        return torch.zeros_like(frames).masked_scatter(
            mask[..., None], self._normalize(valid, training=len(valid) > 1).to(frames.dtype)
        )

    def _normalize(self, values: Tensor, *, training: bool) -> Tensor:
        return F.batch_norm(
            values, self.running_mean, self.running_var, self.weight, self.bias, training, self.momentum
        )


class Convolutions(Sized):
    """Convolutions over time, each followed by ReLU, batch norm and dropout; as many frames go out as come in.

    With the contexts of Snyder et al. (ICASSP 2018) it is the x-vectors' TDNN; with kernels of 1, an MLP on each frame.

    Args:
        dim: of the frames.
        layers: channels, kernel (odd) and dilation of each.
        dropout: probability.

    Shape:
        frames `[B, T, D]`, lengths `[B]` -> `[B, T, channels]`, zeros past each length
    """

    def __init__(self, dim: int, layers: Sequence[tuple[int, int, int]], dropout: float) -> None:
        sizes = [dim, *(channels for channels, _, _ in layers)]
        super().__init__(sizes[-1])
        self.convolutions = nn.ModuleList(
            nn.Conv1d(size, channels, kernel, dilation=dilation, padding=dilation * (kernel // 2))
            for size, (channels, kernel, dilation) in zip(sizes, layers, strict=False)
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(size) for size in sizes[1:])
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Convolve them."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # An utterance alone meets zeros beyond its ends; so it must in a batch.
            clean = zero_padding(frames, lengths)
            frames = convolution(clean.transpose(1, 2)).transpose(1, 2).relu()
            frames = self.dropout(norm(frames, lengths))
        return zero_padding(frames, lengths)


class Recurrent(Sized):
    """An LSTM or GRU, over exactly the frames of each utterance in both directions.

    Args:
        dim: of the frames.
        width: of the states of a direction.
        cell: "lstm" or "gru".
        bidirectional: whether a second one runs from the end.
        dropout: probability, of what comes out.

    Shape:
        frames `[B, T, D]`, lengths `[B]` -> `[B, T, width or 2 * width]`, zeros past each length
    """

    def __init__(self, dim: int, width: int, cell: str, *, bidirectional: bool, dropout: float) -> None:
        super().__init__(2 * width if bidirectional else width)
        recurrent = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.recurrent = recurrent(dim, width, batch_first=True, bidirectional=bidirectional)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Run it."""
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=frames.shape[1])[0]
        return self.dropout(states)


class NoBody(Sized):
    """The frames as they are."""

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Pass them on."""
        del lengths
        return frames


class MeanPooling(Sized):
    """The mean over the valid frames.

    Shape:
        frames `[B, T, D]`, lengths `[B]` -> `[B, D]`
    """

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Pool them."""
        return zero_padding(frames, lengths).sum(dim=1) / lengths[:, None]


class StatisticsPooling(Sized):
    """Mean and standard deviation over the valid frames, side by side (Snyder et al., ICASSP 2018).

    Shape:
        frames `[B, T, D]`, lengths `[B]` -> `[B, 2 * D]`
    """

    def __init__(self, dim: int) -> None:
        super().__init__(2 * dim)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Pool them."""
        shares = valid_frames(lengths, frames.shape[1])[..., None] / lengths[:, None, None]
        return _statistics(zero_padding(frames, lengths), shares)


class AttentiveStatisticsPooling(Sized):
    """Weighted mean and deviation (Okabe et al., Interspeech 2018), the weights by channel and with context.

    A frame's weights are told from it together with the mean and the deviation of all frames, and are of their own for
    every dimension, as in ECAPA-TDNN (Desplanques et al., Interspeech 2020).

    Args:
        dim: of the frames.
        bottleneck: size of the layer that tells the weights.

    Shape:
        frames `[B, T, D]`, lengths `[B]` -> `[B, 2 * D]`
    """

    def __init__(self, dim: int, bottleneck: int = 64) -> None:
        super().__init__(2 * dim)
        self.frame = nn.Linear(dim, bottleneck)
        self.context = nn.Linear(2 * dim, bottleneck, bias=False)
        self.score = nn.Linear(bottleneck, dim)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Pool them."""
        mask = valid_frames(lengths, frames.shape[1])[..., None]
        frames = frames.masked_fill(~mask, 0.0)
        context = self.context(_statistics(frames, mask / lengths[:, None, None]))
        scores = self.score(torch.tanh(self.frame(frames) + context[:, None]))
        return _statistics(frames, scores.masked_fill(~mask, -math.inf).softmax(dim=1))


class SelfAttentivePooling(Sized):
    """A mean whose weights are told from each frame, one weight a frame (SAP; Cai et al., Odyssey 2018).

    Shape:
        frames `[B, T, D]`, lengths `[B]` -> `[B, D]`
    """

    def __init__(self, dim: int, bottleneck: int = 64) -> None:
        super().__init__(dim)
        self.frame = nn.Linear(dim, bottleneck)
        self.score = nn.Linear(bottleneck, 1, bias=False)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Pool them."""
        mask = valid_frames(lengths, frames.shape[1])[..., None]
        frames = frames.masked_fill(~mask, 0.0)
        scores = self.score(torch.tanh(self.frame(frames)))
        return (frames * scores.masked_fill(~mask, -math.inf).softmax(dim=1)).sum(dim=1)


def _statistics(frames: Tensor, shares: Tensor) -> Tensor:
    """Mean and deviation by shares that sum to 1 over T and are 0 in padding, which holds no NaN."""
    mean = (frames * shares).sum(dim=1)
    variance = ((frames - mean[:, None]).square() * shares).sum(dim=1)
    return torch.cat([mean, variance.clamp(min=LEAST_VARIANCE).sqrt()], dim=1)


class CosineClassifier(nn.Module):
    """The cosine of the angle between an embedding and a vector of each class, times a scale.

    Shape:
        `[B, D]` -> `[B, C]`
    """

    def __init__(self, dim: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        # With the classes last, as the loss that trains it has them.
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, num_classes)))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Compare them."""
        return self.scale * F.normalize(embeddings, dim=1) @ F.normalize(self.weight, dim=0)
