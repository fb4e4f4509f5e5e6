"""Features of a corpus, kept: what an experiment trains and tests on."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from speechfeat.augmentation import Augmentation
from speechfeat.cli import stopping, tell
from speechfeat.config import ExtractConfig
from speechfeat.corpora.base import Corpus
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import as_encoder
from speechfeat.errors import AudioError
from speechfeat.extraction import Extractor
from speechfeat.progress import Progress
from speechfeat.store import Store
from speechfeat.types import Utterance

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
        AudioError: if no recording could be read.
        KeyboardInterrupt: after Ctrl-C.
    """
    encoder = as_encoder(model, layers, device=device, dtype=dtype, **encoder_options)
    extractor = Extractor(encoder, ExtractConfig(pool=pool, frames=frames, augmentation=augmentation))
    found = extractor.survey(corpus.utterances)
    writer = extractor.open(folder, found)
    hours = extractor.forecast(found, folder, writer.done).hours
    with stopping(extractor.stop), Progress(hours, shown=not quiet and hours > 0) as progress:
        summary = extractor.run(found, writer, progress.update)
    if summary.interrupted:
        tell(f"interrupted; what was done is kept in {os.fspath(folder)}, and the same command goes on from here")
        raise KeyboardInterrupt
    store = Store(folder)
    utterances = [utterance for utterance in corpus.utterances if utterance.id in store]
    known = {utterance.id for utterance in corpus.utterances}
    failures = [failure for failure in store.errors() if failure["id"] in known]
    if not utterances:
        reason = f", first {failures[0]['id']}: {failures[0]['reason']}" if failures else ""
        raise AudioError(f"none of the {len(known)} recordings of {corpus.name!r} could be read{reason}")
    if failures:
        tell(
            f"{len(failures)} of {len(known)} recordings failed and are left out, first {failures[0]['id']}: "
            f"{failures[0]['reason']}"
        )
    return CorpusFeatures(corpus, store, utterances, failures)


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
