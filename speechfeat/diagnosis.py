"""How far an encoder's features can be trusted here: measured, not assumed."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speechfeat.chunking import Chunking
from speechfeat.encoders.base import BaseEncoder, Encoder
from speechfeat.errors import ParameterError
from speechfeat.types import Tokens

if TYPE_CHECKING:
    from speechfeat.encoders.text import TextEncoder

# Lengths, in seconds, that share a batch: odd numbers of samples and frames, and a clip that is mostly padding.
CLIP_SECONDS = (4.0, 1.0001, 2.5037, 0.3, 3.3333)
SEAM_SECONDS = 75.0

# Of a word, a sentence, and several in other letters and numbers; the last is repeated beyond what models take.
TEXTS = ("yes", "How are you?", "She left at 9:45, as she had said.", "Она сказала: 你好, και έφυγε.")
LONG_TEXT = "The recordings of that winter were lost, and nobody could say when, or by whom. "


class Deviation(NamedTuple):
    """Distance between two computations of the same features.

    Attributes:
        worst: largest absolute difference, over the standard deviation of the features of that layer.
        typical: root of the mean squared difference, over the same.
        cosine: of the mean-pooled embeddings, the smallest.
    """

    worst: float
    typical: float
    cosine: float


def deviation(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Deviation:
    """Compare features `[L, T, D]` of several utterances; the worst of them, infinite if one is not finite."""
    worst = typical = 0.0
    cosine = 1.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            raise ParameterError(f"features of the shapes {one.shape} and {other.shape} cannot be compared")
        if not (np.isfinite(one).all() and np.isfinite(other).all()):
            return Deviation(math.inf, math.inf, -1.0)
        # By layer: they differ in scale.
        scale = np.maximum(other.std(axis=(1, 2), keepdims=True), 1e-12)
        error = (one.astype(np.float64) - other) / scale
        worst = max(worst, float(np.abs(error).max()))
        typical = max(typical, float(np.sqrt(np.square(error).mean())))
        cosine = min(cosine, _cosine(one.mean(axis=1).ravel(), other.mean(axis=1).ravel()))
    return Deviation(worst, typical, cosine)


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))


def test_clips(sample_rate: int, seconds: Sequence[float] = CLIP_SECONDS) -> list[np.ndarray]:
    """Noise with the slow loudness changes of speech, `[N]` float32 each; the same every time."""
    rng = np.random.default_rng(0)
    clips = []
    for length in seconds:
        count = round(length * sample_rate)
        envelope = 0.02 + 0.15 * np.square(np.sin(np.arange(count) * (2 * np.pi * 2.5 / sample_rate)))
        clips.append((envelope * rng.standard_normal(count)).astype(np.float32))
    return clips


def test_texts(encoder: "TextEncoder") -> list[np.ndarray]:
    """Tokens `[N]` of texts, the longest as long as the encoder takes in one window."""
    longest = int(encoder.windows().length)
    texts = [*TEXTS, LONG_TEXT * (1 + longest // len(LONG_TEXT.split()))]
    found = encoder.tokenizer.tokenize(texts)
    return [one.samples[:longest] for one in found if isinstance(one, Tokens)]


def encode_alone(encoder: BaseEncoder, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Features of clips or tokens, each run by itself."""
    return [encoder.encode_prepared([encoder.prepare(clip)], [len(clip)])[0] for clip in clips]


def invariance(encoder: BaseEncoder, clips: Sequence[np.ndarray]) -> Deviation:
    """Features in one padded batch, or as a device without batches runs them, against each clip alone."""
    encode = encoder.encode_padded if encoder.backbone.pads else encoder.encode_prepared
    together = encode([encoder.prepare(clip) for clip in clips], [len(clip) for clip in clips])
    return deviation(together, encode_alone(encoder, clips))


def seam(encoder: Encoder, clip: np.ndarray, chunking: Chunking) -> Deviation | None:
    """Features of a clip cut into chunks against the same clip whole; None where it cannot be run whole."""
    limit = encoder.backbone.max_samples
    if limit is not None and len(clip) > limit:
        return None
    cut = Chunking(chunking.length, chunking.overlap, chunking.length)
    whole = Chunking(chunking.length, chunking.overlap, above=2 * encoder.grid.seconds(len(clip)))
    values = [
        frames.values if encoder.selection.stacked else frames.values[None]
        for plan in (cut, whole)
        for frames in encoder.encode([clip], chunking=plan)
    ]
    return deviation(values[:1], values[1:])
