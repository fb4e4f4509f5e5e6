"""The kinds of heads on frames: which body, which pooling, and the network around them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from speechfeat.errors import ParameterError
from speechfeat.heads.modules import (
    AttentiveStatisticsPooling,
    Convolutions,
    CosineClassifier,
    LayerMix,
    MeanPooling,
    NoBody,
    Recurrent,
    SelfAttentivePooling,
    Sized,
    Standardize,
    StatisticsPooling,
)

NORMALIZE = ("standard", "layer", "none")

# From dimension, width and dropout.
MakeBody = Callable[[int, int, float], Sized]


class _Kind(NamedTuple):
    body: MakeBody
    pooling: Callable[[int], Sized]


def _no_body(dim: int, width: int, dropout: float) -> Sized:
    del width, dropout
    return NoBody(dim)


def _convolutions(*shape: tuple[int, int, int]) -> MakeBody:
    """Multiple of the width, kernel and dilation of each."""

    def make(dim: int, width: int, dropout: float) -> Sized:
        return Convolutions(dim, [(times * width, kernel, dilation) for times, kernel, dilation in shape], dropout)

    return make


def _recurrent(cell: str, *, bidirectional: bool) -> MakeBody:
    def make(dim: int, width: int, dropout: float) -> Sized:
        return Recurrent(dim, width, cell, bidirectional=bidirectional, dropout=dropout)

    return make


KINDS = {
    "linear": _Kind(_no_body, MeanPooling),
    "stats": _Kind(_no_body, StatisticsPooling),
    "attentive": _Kind(_no_body, AttentiveStatisticsPooling),
    "self-attention": _Kind(_no_body, SelfAttentivePooling),
    "mlp-frames": _Kind(_convolutions((1, 1, 1), (1, 1, 1)), MeanPooling),
    "cnn": _Kind(_convolutions((1, 5, 1), (1, 5, 1), (1, 5, 1)), MeanPooling),
    # Frames t-2 to t+2; t-2, t and t+2; t-3, t and t+3; t; t with three times the channels, as in Snyder et al.
    "xvector": _Kind(_convolutions((1, 5, 1), (1, 3, 2), (1, 3, 3), (1, 1, 1), (3, 1, 1)), StatisticsPooling),
    "lstm": _Kind(_recurrent("lstm", bidirectional=False), MeanPooling),
    "bilstm": _Kind(_recurrent("lstm", bidirectional=True), MeanPooling),
    "gru": _Kind(_recurrent("gru", bidirectional=False), MeanPooling),
    "bigru": _Kind(_recurrent("gru", bidirectional=True), MeanPooling),
}


def check_kind(kind: str) -> None:
    """Refuse an unknown kind.

    Raises:
        ParameterError: that names the known ones.
    """
    if kind not in KINDS:
        raise ParameterError(f"kind={kind!r} is no head on frames; use {', '.join(KINDS)}")


class FrameNetwork(nn.Module):
    """From the frames of several layers to an embedding, and from that to a number for each class.

    Args:
        kind: one of `KINDS`.
        num_layers: L.
        dim: D.
        num_classes: C.
        width: of the body.
        hidden: sizes of the hidden layers, with ReLU, between the pooled vector and the embedding; none: it is linear.
        embedding_dim: E.
        dropout: probability, in the body and before every linear layer but the last.
        normalize: "standard" (see `Standardize`), "layer" (a norm of each frame) or "none".
        scale: of a `CosineClassifier`; None for a linear one.

    Raises:
        ParameterError: if the kind is not known.
    """

    def __init__(
        self,
        kind: str,
        num_layers: int,
        dim: int,
        num_classes: int,
        *,
        width: int = 128,
        hidden: Sequence[int] = (),
        embedding_dim: int = 128,
        dropout: float = 0.2,
        normalize: str = "standard",
        scale: float | None = None,
    ) -> None:
        super().__init__()
        check_kind(kind)
        self.standardize = Standardize(num_layers, dim) if normalize == "standard" else None
        self.mix = LayerMix(num_layers, normalize=normalize == "layer")
        self.body = KINDS[kind].body(dim, width, dropout)
        self.pooling = KINDS[kind].pooling(self.body.dim)
        sizes = [self.pooling.dim, *hidden]
        layers: list[nn.Module] = []
        for size, following in zip(sizes, hidden, strict=False):
            layers += [nn.Dropout(dropout), nn.Linear(size, following), nn.ReLU()]
        self.projection = nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(sizes[-1], embedding_dim))
        self.classifier = (
            nn.Linear(embedding_dim, num_classes)
            if scale is None
            else CosineClassifier(embedding_dim, num_classes, scale)
        )

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """The embeddings.

        Shape:
            frames `[B, L, T, D]`, lengths `[B]`, each at least 1 -> `[B, E]`
        """
        mixed = self.mix(frames if self.standardize is None else self.standardize(frames))
        return self.projection(self.pooling(self.body(mixed, lengths), lengths))

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """A number for each class, higher for what it rather is.

        Shape:
            frames `[B, L, T, D]`, lengths `[B]`, each at least 1 -> `[B, C]`
        """
        return self.classifier(self.embed(frames, lengths))
