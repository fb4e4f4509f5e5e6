"""Features of a corpus, kept: what an experiment trains and tests on."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from speechfeat.augmentation import Augmentation
from speechfeat.cli import stopping, tell
from speechfeat.config import ExtractConfig, TextConfig
from speechfeat.corpora.base import Corpus
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import as_encoder
from speechfeat.errors import InputError
from speechfeat.extracting import BaseExtractor
from speechfeat.extraction import Extractor
from speechfeat.joining import join_stores
from speechfeat.progress import Progress
from speechfeat.store import Store
from speechfeat.types import Utterance

if TYPE_CHECKING:
    from speechfeat.encoders.text import TextEncoder

POOL = "mean+std"


@dataclass(frozen=True)
class CorpusFeatures:
    """A corpus and the features of those of its utterances that could be read.

    Attributes:
        corpus: with all its utterances.
        store: features, of these and maybe of others.
        utterances: that have features, in the order of the corpus.
        failures: id, path and reason of those that have none.
    """

    corpus: Corpus
    store: Store
    utterances: list[Utterance]
    failures: list[dict[str, str]]

    @property
    def ids(self) -> list[str]:
        """Of the utterances."""
        return [utterance.id for utterance in self.utterances]

    def values(self, label: str | None = None) -> list[str]:
        """A label of every utterance that has features; None is the one to be told."""
        wanted = self.corpus.label if label is None else label
        return [utterance.labels.get(wanted, "") for utterance in self.utterances]

    def of(self, store: Store) -> "CorpusFeatures":
        """Other features of the same utterances.

        Args:
            store: that has them all.
        """
        return replace(self, store=store)


def corpus_features(
    corpus: Corpus,
    folder: str | os.PathLike[str],
    model: str | nn.Module | Encoder,
    layers: Any = "all",
    *,
    pool: str = POOL,
    frames: bool = False,
    augmentation: Augmentation | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quiet: bool = False,
    **encoder_options: Any,
) -> CorpusFeatures:
    """Extract the features of a corpus into a store, or take them from there.

    Ctrl-C ends it with what is done kept.

    Args:
        corpus: from `open_corpus`.
        folder: of the store.
        model: as for `load_encoder`, or an encoder.
        layers: as for `load_encoder`.
        pool: of the embeddings.
        frames: whether frames are kept too.
        augmentation: of copies of utterances, see `copies_of`.
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.
        quiet: no progress bar.
        encoder_options: further arguments of `load_encoder`.

    Raises:
        SpeechfeatError: if the encoder cannot be loaded, or the store is of another configuration.
        InputError: if no recording could be read.
        KeyboardInterrupt: after Ctrl-C.
    """
    encoder = as_encoder(model, layers, device=device, dtype=dtype, **encoder_options)
    extractor = Extractor(encoder, ExtractConfig(pool=pool, frames=frames, augmentation=augmentation))
    return _extract(corpus, corpus.utterances, extractor, folder, quiet)


def corpus_text_features(
    corpus: Corpus,
    folder: str | os.PathLike[str],
    model: "str | os.PathLike[str] | nn.Module | TextEncoder",
    layers: Any = "last",
    *,
    text: str = "text",
    pool: str = "mean",
    frames: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    quiet: bool = False,
    **encoder_options: Any,
) -> CorpusFeatures:
    """Extract the features of a corpus's transcripts into a store, or take them from there; as `corpus_features`.

    Args:
        corpus: from `open_corpus`.
        folder: of the store.
        model: as for `load_text_encoder`, or an encoder.
        layers: as for `load_text_encoder`.
        text: the label that is the transcript; utterances without it are left out.
        pool: of the embeddings.
        frames: whether the states of tokens are kept too.
        device: as for `load_text_encoder`.
        dtype: as for `load_text_encoder`.
        quiet: no progress bar.
        encoder_options: further arguments of `load_text_encoder`.

    Raises:
        ParameterError: if no utterance has a transcript.
        SpeechfeatError: if the encoder cannot be loaded, or the store is of another configuration.
        InputError: if no text could be encoded.
        KeyboardInterrupt: after Ctrl-C.
    """
    # All of transformers, which takes seconds to import and classical features do not ask for.
    from speechfeat.encoders.text_loading import as_text_encoder
    from speechfeat.text_extraction import TextExtractor

    pairs = zip(corpus.utterances, corpus.values(text), strict=True)
    spoken = [replace(utterance, text=words) for utterance, words in pairs if words.strip()]
    if len(spoken) < len(corpus.utterances):
        count = len(corpus.utterances)
        tell(f"{count - len(spoken)} of {count} utterances have no {text!r} and are left out")
    encoder = as_text_encoder(model, layers, device=device, dtype=dtype, **encoder_options)
    extractor = TextExtractor(encoder, TextConfig(pool=pool, frames=frames))
    return _extract(corpus, spoken, extractor, folder, quiet)


def join_features(parts: Sequence[CorpusFeatures], folder: str | os.PathLike[str]) -> CorpusFeatures:
    """Embeddings of one corpus by several encoders side by side, of the utterances that all of them have.

    Args:
        parts: of the corpus.
        folder: of the store that is made; see `join_stores`.

    Raises:
        ParameterError: as of `join_stores`.
        StoreError: as of `join_stores`.
    """
    store = join_stores([part.store for part in parts], folder)
    utterances = [one for one in parts[0].utterances if one.id in store]
    return CorpusFeatures(parts[0].corpus, store, utterances, [row for part in parts for row in part.failures])


def _extract(
    corpus: Corpus,
    utterances: Sequence[Utterance],
    extractor: BaseExtractor,
    folder: str | os.PathLike[str],
    quiet: bool,
) -> CorpusFeatures:
    """Run an extractor over utterances of a corpus, as far as the store has them not."""
    found = extractor.survey(utterances)
    writer = extractor.open(folder, found)
    hours = extractor.forecast(found, folder, writer.done).hours
    shown = not quiet and hours > 0
    with stopping(extractor.stop), Progress(hours, shown=shown, measure=extractor.medium.measure) as progress:
        summary = extractor.run(found, writer, progress.update)
    if summary.interrupted:
        tell(f"interrupted; what was done is kept in {os.fspath(folder)}, and the same command goes on from here")
        raise KeyboardInterrupt
    store = Store(folder)
    known = {utterance.id for utterance in utterances}
    there = [one for one in corpus.utterances if one.id in known and one.id in store]
    failures = [failure for failure in store.errors() if failure["id"] in known]
    if not there:
        reason = f", first {failures[0]['id']}: {failures[0]['reason']}" if failures else ""
        raise InputError(f"none of the {len(known)} {extractor.inputs} of {corpus.name!r} could be read{reason}")
    if failures:
        tell(
            f"{len(failures)} of {len(known)} {extractor.inputs} failed and are left out, first {failures[0]['id']}: "
            f"{failures[0]['reason']}"
        )
    return CorpusFeatures(corpus, store, there, failures)


def features_folder(
    kept: str | os.PathLike[str], model: str, corpus: Corpus, *, pool: str = POOL, frames: bool = False
) -> Path:
    """Where the features of a corpus by a model are kept, below a directory of features."""
    parts = [model_slug(model), model_slug(corpus.name), *([] if pool == POOL else [model_slug(pool)])]
    return Path(kept) / "-".join([*parts, *(["frames"] if frames else [])])


def model_slug(model: str) -> str:
    """A name for files and folders of what was made with a model: its last part, without odd characters."""
    name = Path(model).name or model
    return re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "model"
