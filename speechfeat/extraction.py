"""The path of recordings on one machine: a source of utterances in, a store out."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from speechfeat.audio import decoder_versions
from speechfeat.config import ExtractConfig
from speechfeat.corpus import discover
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.encoders.loading import as_encoder
from speechfeat.errors import AudioError
from speechfeat.extracting import BaseExtractor, embed_found
from speechfeat.media import RecordingMedium
from speechfeat.planning import Survey, Work, survey
from speechfeat.store import Store
from speechfeat.store_directory import Done
from speechfeat.store_writer import StoreWriter
from speechfeat.threads import default_readers
from speechfeat.types import Utterance

# The length by a header and that of the decoded samples may differ by a codec's frame.
SAME_SECONDS = 0.1


class Extractor(BaseExtractor):
    """One encoder of recordings and one configuration, ready to run over a corpus into a store.

    Args:
        encoder: from `load_encoder` or `wrap_module`.
        config: what to extract.

    Attributes:
        stop: set it, from a signal handler or another thread, to end a run after the batch in flight.
        batch_seconds: of padded audio in a batch.

    Example:
        extractor = Extractor(load_encoder("wavlm-base-plus"), ExtractConfig(pool="mean+std"))
        found = extractor.survey(extractor.discover("recordings"))
        summary = extractor.run(found, "features")
    """

    packages = ("speechfeat", "torch", "torchaudio", "transformers", "librosa")

    encoder: Encoder
    config: ExtractConfig

    def __init__(self, encoder: Encoder, config: ExtractConfig | None = None) -> None:
        config = config or ExtractConfig()
        super().__init__(encoder, config, RecordingMedium(encoder, config))

    def discover(self, source: str | os.PathLike, **options: Any) -> list[Utterance]:
        """The utterances of a source, or of this machine's share of it; see `corpus.discover`."""
        return self.share(discover(source, channel=self.config.channel, **options))

    def survey(self, utterances: Sequence[Utterance]) -> Survey:
        """Read the headers of the recordings; see `planning.survey`."""
        return survey(utterances, num_workers=max(4, self.config.num_workers or default_readers()))

    def definition(self) -> dict[str, Any]:
        """The frame grid, and how recordings are read and cut."""
        chunking = self.config.chunking
        return {
            "grid": self.encoder.grid.describe(),
            "channel": self.config.channel,
            "chunking": {"length": chunking.length, "overlap": chunking.overlap, "above": chunking.above},
            **({"augmentation": self.config.augmentation.describe()} if self.config.augmentation else {}),
        }

    def information(self) -> dict[str, Any]:
        """What is recorded in the store for the reader."""
        found = super().information()
        return {**found, "versions": {**found["versions"], **decoder_versions()}}

    def changed(self, works: Sequence[Work], writer: StoreWriter) -> list[Utterance]:
        """Utterances whose recording has another size, or that are another stretch of it."""
        return [work.utterance for work in works if _differs(work, writer.done[work.utterance.id])]


def _differs(work: Work, done: Done) -> bool:
    """Whether a recording has another size, or an utterance is another stretch of it."""
    # A copy of another speed has another length.
    is_segment = work.utterance.duration is not None and not work.utterance.copy
    moved = work.utterance.start != done.start or (is_segment and abs(work.seconds - done.duration) > SAME_SECONDS)
    return work.size != done.size or moved


def extract_features(
    source: str | os.PathLike,
    out: str | os.PathLike,
    model: str | nn.Module | Encoder = DEFAULT_MODEL,
    layers: Any = "penultimate",
    *,
    device: str = "auto",
    dtype: str = "auto",
    encoder_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Store:
    """Extract the features of a directory, list or manifest into a store, or go on where a store ends.

    Args:
        source: see `corpus.discover`.
        out: the store's directory.
        model: as for `load_encoder`, or an encoder, which has its layers, device and dtype already.
        layers: as for `load_encoder`.
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.
        encoder_options: further arguments of `load_encoder`.
        options: fields of `ExtractConfig`.

    Raises:
        SpeechfeatError: for a bad call; a bad recording is a line in the store's `errors.jsonl`.
    """
    encoder = as_encoder(model, layers, device=device, dtype=dtype, **(encoder_options or {}))
    extractor = Extractor(encoder, ExtractConfig(**options))
    extractor.run(extractor.survey(extractor.discover(source)), out)
    return Store(out)


def embed(
    source: str | os.PathLike,
    model: str | nn.Module | Encoder = DEFAULT_MODEL,
    pool: str = "mean",
    layers: Any = "penultimate",
    *,
    device: str = "auto",
    dtype: str = "auto",
    encoder_options: Mapping[str, Any] | None = None,
    channel: str | int = "mean",
) -> tuple[list[str], np.ndarray]:
    """One vector for every recording of a directory, list or manifest, in memory.

    Args:
        source: see `corpus.discover`.
        model: as for `load_encoder`, or an encoder, which has its layers, device and dtype already.
        pool: "mean", "std", "mean+std", "max", "first" or "last".
        layers: as for `load_encoder`.
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.
        encoder_options: further arguments of `load_encoder`.
        channel: "mean", "all", or the number of a channel.

    Returns:
        ids, sorted, and `[n, D']` or `[n, L, D']` float32. A recording that fails is left out, with a warning that
        names it; none left is an AudioError.
    """
    encoder = as_encoder(model, layers, device=device, dtype=dtype, **(encoder_options or {}))
    extractor = Extractor(encoder, ExtractConfig(pool=pool, frames=False, channel=channel))
    return embed_found(extractor, extractor.survey(extractor.discover(source)), AudioError)
