"""The path of texts on one machine: the same as that of recordings, with tokens for samples."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from speechfeat.config import TextConfig
from speechfeat.encoders.text import TextEncoder
from speechfeat.encoders.text_loading import as_text_encoder
from speechfeat.errors import TextError
from speechfeat.extracting import BaseExtractor, embed_found
from speechfeat.planning import Survey, Work, make_survey
from speechfeat.store import Store
from speechfeat.store_shards import Row, printable
from speechfeat.store_writer import StoreWriter
from speechfeat.streaming import Piece
from speechfeat.text_corpus import discover_texts, read_text
from speechfeat.texts import AHEAD_BATCHES, own_states
from speechfeat.types import Tokens, Utterance
from speechfeat.units import TOKENS

# Texts that are tokenized together.
TOKENIZED = 4096
# Of a shard; a thousand sentences have fewer.
SHARD_TOKENS = 200_000.0
# Of a token's name and characters in the store, uncompressed.
TOKEN_BYTES = 12


class TextMedium:
    """Texts: their tokens are there before the run, and pooling sees those that are the text's own."""

    measure = TOKENS
    shard_seconds = SHARD_TOKENS

    def __init__(self, encoder: TextEncoder, config: TextConfig) -> None:
        self.encoder = encoder
        self.chunking = encoder.windows(config.window, config.overlap)
        self.ahead_seconds = AHEAD_BATCHES * (config.batch_tokens or encoder.default_batch_seconds())
        self._keeps_tokens = config.frames
        self.pools_all_frames = encoder.pools_special(config.pooling, config.keep_special)

    def read(self, work: Work) -> Tokens:
        """The tokens that the survey found."""
        assert work.tokens is not None
        return work.tokens

    def pooled(self, piece: Piece) -> np.ndarray:
        """The states of the text's own tokens, or of all."""
        return piece.frames if self.pools_all_frames else own_states(self.encoder, piece)

    def row(self, work: Work, piece: Piece) -> Row:
        """The text among its labels, and its tokens where their states are stored."""
        tokenizer, tokens = self.encoder.tokenizer, self.read(work)
        return Row(
            id=work.utterance.id,
            path=work.utterance.path,
            start=None,
            duration=None,
            num_frames=piece.num_frames,
            sample_rate=None,
            flags=piece.flags,
            size=work.size,
            labels=work.utterance.labels,
            tokens=tokenizer.names(tokens) if self._keeps_tokens else (),
            offsets=tokenizer.offsets(tokens) if self._keeps_tokens else None,
        )


class TextExtractor(BaseExtractor):
    """One encoder of texts and one configuration, ready to run over a corpus into a store.

    Args:
        encoder: from `load_text_encoder`.
        config: what to extract.

    Attributes:
        stop: set it, from a signal handler or another thread, to end a run after the batch in flight.
        batch_seconds: padded tokens in a batch.

    Example:
        extractor = TextExtractor(load_text_encoder("all-MiniLM-L6-v2", "last"), TextConfig(frames=False))
        found = extractor.survey(extractor.discover("sentences.txt"))
        summary = extractor.run(found, "features")
    """

    inputs = "texts"
    compared = "text"
    packages = ("speechfeat", "torch", "transformers", "tokenizers")
    has_tokens = True

    encoder: TextEncoder
    config: TextConfig

    def __init__(self, encoder: TextEncoder, config: TextConfig | None = None) -> None:
        config = config or TextConfig()
        super().__init__(encoder, config, TextMedium(encoder, config))

    @property
    def bytes_per_second(self) -> float:
        """Bytes of stored states, names and characters for a token."""
        return super().bytes_per_second + (TOKEN_BYTES if self.config.frames else 0)

    def discover(self, source: str | os.PathLike, **options: Any) -> list[Utterance]:
        """The texts of a source, or of this machine's share of it; see `text_corpus.discover_texts`."""
        return self.share(discover_texts(source, **options))

    def survey(self, utterances: Sequence[Utterance]) -> Survey:
        """Tokenize all texts; the labels of each then hold its text.

        Raises:
            ParameterError: if two utterances have one id.
        """
        works: list[Work] = []
        failures: list[tuple[Utterance, str]] = []
        for first in range(0, len(utterances), TOKENIZED):
            for utterance, found in self._tokenized(utterances[first : first + TOKENIZED]):
                if isinstance(found, Tokens):
                    size = len(str(utterance.labels["text"]).encode())
                    works.append(Work(utterance, float(len(found.samples)), size, found))
                else:
                    failures.append((utterance, str(found)))
        return make_survey(works, failures)

    def _tokenized(self, utterances: Sequence[Utterance]) -> Iterator[tuple[Utterance, Tokens | TextError]]:
        read: list[Utterance] = []
        texts: list[str] = []
        for utterance in utterances:
            try:
                text = read_text(utterance.path) if utterance.text is None else utterance.text
            except OSError as error:
                yield utterance, TextError(f"cannot be opened: {error.strerror or error}")
                continue
            read.append(replace(utterance, labels={**utterance.labels, "text": printable(text)}, text=None))
            texts.append(text)
        found = self.encoder.prepare_texts(texts, self.medium.chunking, truncate=self.config.truncate)
        yield from zip(read, found, strict=True)

    def definition(self) -> dict[str, Any]:
        """How texts are cut and which tokens are pooled."""
        chunking = self.medium.chunking
        return {
            "window": chunking.length + self.encoder.tokenizer.num_special,
            "overlap": chunking.overlap,
            "truncate": self.config.truncate,
            "keep_special": self.config.keep_special,
        }

    def changed(self, works: Sequence[Work], writer: StoreWriter) -> list[Utterance]:
        """Utterances of which the store has another text."""
        if not works:
            return []
        table = Store(writer.path).table()
        stored = dict(zip(table["id"], table["text"], strict=True))
        return [work.utterance for work in works if stored[work.utterance.id] != work.utterance.labels["text"]]


def extract_text_features(
    source: str | os.PathLike,
    out: str | os.PathLike,
    model: str | os.PathLike | nn.Module | TextEncoder,
    layers: Any = "penultimate",
    *,
    device: str = "auto",
    dtype: str = "auto",
    encoder_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Store:
    """Extract the features of texts into a store, or go on where a store ends.

    Args:
        source: see `text_corpus.discover_texts`.
        out: the store's directory.
        model: as for `load_text_encoder`, or an encoder, which has its layers, device and dtype already.
        layers: as for `load_text_encoder`.
        device: as for `load_text_encoder`.
        dtype: as for `load_text_encoder`.
        encoder_options: further arguments of `load_text_encoder`.
        source_options: further arguments of `discover_texts`.
        options: fields of `TextConfig`.

    Raises:
        SpeechfeatError: for a bad call; a bad text is a line in the store's `errors.jsonl`.
    """
    encoder = as_text_encoder(model, layers, device=device, dtype=dtype, **(encoder_options or {}))
    extractor = TextExtractor(encoder, TextConfig(**options))
    extractor.run(extractor.survey(extractor.discover(source, **(source_options or {}))), out)
    return Store(out)


def embed_texts(
    source: str | os.PathLike,
    model: str | os.PathLike | nn.Module | TextEncoder,
    pool: str = "mean",
    layers: Any = "penultimate",
    *,
    device: str = "auto",
    dtype: str = "auto",
    encoder_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[list[str], np.ndarray]:
    """One vector for every text of a file, table or directory, in memory.

    Args:
        source: see `text_corpus.discover_texts`.
        model: as for `load_text_encoder`, or an encoder, which has its layers, device and dtype already.
        pool: as for `TextEncoder.embed`.
        layers: as for `load_text_encoder`.
        device: as for `load_text_encoder`.
        dtype: as for `load_text_encoder`.
        encoder_options: further arguments of `load_text_encoder`.
        source_options: further arguments of `discover_texts`.
        options: further fields of `TextConfig`.

    Returns:
        ids, sorted, and `[n, D']` or `[n, L, D']` float32. A text that fails is left out, with a warning that names
        it; none left is a TextError.
    """
    encoder = as_text_encoder(model, layers, device=device, dtype=dtype, **(encoder_options or {}))
    extractor = TextExtractor(encoder, TextConfig(pool=pool, frames=False, **options))
    return embed_found(extractor, extractor.survey(extractor.discover(source, **(source_options or {}))), TextError)
