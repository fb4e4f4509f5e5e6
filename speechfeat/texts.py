"""Texts in, states of their tokens out, all in memory: what `TextEncoder.encode` and `TextEncoder.embed` do."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from speechfeat.batching import plan_batches
from speechfeat.errors import ParameterError, TextError
from speechfeat.pooling import TEXT_POOLS, Pooler, check_pool
from speechfeat.streaming import Failure, Piece, stream
from speechfeat.types import Frames, Tokens

if TYPE_CHECKING:
    from speechfeat.encoders.text import TextEncoder

# Tokens are there before the first batch runs: reading ahead is nothing but the special tokens around them.
AHEAD_BATCHES = 8


@dataclass(frozen=True)
class TextOptions:
    """How texts are run.

    Attributes:
        window: tokens that are encoded together, special ones included; None for what the model was made for.
        overlap: tokens that neighbouring windows of a longer text share; None chooses.
        truncate: keep the first window of a longer text instead.
        batch_tokens: padded tokens in a batch; None chooses from the device.
    """

    window: int | None = None
    overlap: int | None = None
    truncate: bool = False
    batch_tokens: float | None = None


def encode_strings(encoder: "TextEncoder", texts: Sequence[str], options: TextOptions) -> list[Frames]:
    """States of the tokens of every text, in order."""
    pieces: dict[int, list[Piece]] = {}
    for piece in _run(encoder, texts, options):
        pieces.setdefault(piece.item, []).append(piece)
    return [_frames(encoder, pieces.pop(item)) for item in range(len(texts))]


def embed_strings(
    encoder: "TextEncoder", texts: Sequence[str], pool: str, keep_special: bool, options: TextOptions
) -> np.ndarray:
    """A vector of every text, in order, without keeping the states."""
    pool = check_pool(pool, TEXT_POOLS)
    keeps_all = encoder.pools_special(pool, keep_special)
    poolers = [Pooler(pool) for _ in texts]
    for piece in _run(encoder, texts, options):
        poolers[piece.item].add(piece.frames if keeps_all else own_states(encoder, piece))
    vectors = np.stack([pooler.result() for pooler in poolers])
    return vectors if encoder.selection.stacked else vectors[:, 0]


def own_states(encoder: "TextEncoder", piece: Piece) -> np.ndarray:
    """States `[L, t, D]` of the tokens in a piece that are the text's own, without special ones."""
    return piece.frames[:, encoder.tokenizer.inner(piece.num_frames)[piece.first_frame : piece.last_frame]]


def _frames(encoder: "TextEncoder", pieces: list[Piece]) -> Frames:
    values = pieces[0].frames if len(pieces) == 1 else np.concatenate([piece.frames for piece in pieces], axis=1)
    tokens = pieces[0].tokens
    assert tokens is not None
    return Frames(
        values=values if encoder.selection.stacked else values[0],
        times=np.empty(0),
        flags=pieces[0].flags,
        tokens=encoder.tokenizer.names(tokens),
        offsets=encoder.tokenizer.offsets(tokens),
    )


def _run(encoder: "TextEncoder", texts: Sequence[str], options: TextOptions) -> Iterator[Piece]:
    tokens = _tokens(encoder, texts, options)
    counts = [float(len(one.samples)) for one in tokens]
    budget = options.batch_tokens or encoder.default_batch_seconds()
    results = stream(
        encoder,
        plan_batches([encoder.cost(count) for count in counts], budget),
        tokens.__getitem__,
        seconds=counts,
        chunking=encoder.windows(options.window, options.overlap),
        num_workers=1,
        batch_seconds=budget,
        ahead_seconds=AHEAD_BATCHES * budget,
    )
    with closing(results):
        for result in chain.from_iterable(results):
            if isinstance(result, Failure):
                raise TextError(f"text {result.item} ({texts[result.item][:40]!r}): {result.reason}")
            yield result


def _tokens(encoder: "TextEncoder", texts: Sequence[str], options: TextOptions) -> list[Tokens]:
    if isinstance(texts, str):
        raise ParameterError("one text was given where a list of them is expected; put it into brackets")
    if not len(texts):
        raise ParameterError("no texts were given; give a list of strings")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ParameterError(f"text {number} is of type {type(text).__name__}; give strings")
    found = encoder.prepare_texts(texts, encoder.windows(options.window, options.overlap), truncate=options.truncate)
    for number, one in enumerate(found):
        if isinstance(one, TextError):
            raise TextError(f"text {number} ({texts[number][:40]!r}): {one}")
    return [one for one in found if isinstance(one, Tokens)]
