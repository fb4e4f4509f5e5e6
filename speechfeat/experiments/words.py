"""Words and phrases of a corpus with their speech embeddings, by aligning recordings with their transcripts."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from torch import nn
from tqdm import tqdm

from speechfeat.alignment import Aligner, Word, pool_words, word_rows
from speechfeat.audio import read_audio
from speechfeat.cli import tell
from speechfeat.corpora.base import Corpus
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.loading import as_encoder
from speechfeat.errors import AudioError, InputError, StoreError
from speechfeat.experiments.features import POOL, CorpusFeatures
from speechfeat.pooling import check_pool, pooled_dim
from speechfeat.store import Store
from speechfeat.store_shards import EMBEDDING, FIXED_FIELDS, Row
from speechfeat.store_writer import StoreWriter
from speechfeat.types import Utterance

# Recordings that are committed together.
SHARD = 200
# Labels of words and phrases.
TEXT, RECORDING = "text", "recording"
# What is added to the id of a recording whose words could not be found, in the list of failures.
WORDLESS = "#words"
NO_LABELS = {field.name for field in FIXED_FIELDS} | {EMBEDDING}


class PhrasePlan(NamedTuple):
    """Which phrases of a transcript are taken, beside every word and the whole.

    Attributes:
        lengths: in words.
        most: of each length in a recording, drawn from all there are.
        seed: of what is drawn.
    """

    lengths: tuple[int, ...] = (2, 3, 4, 6)
    most: int = 3
    seed: int = 0


def word_features(
    corpus: Corpus,
    folder: str | os.PathLike[str],
    model: str | nn.Module | Encoder,
    aligner: Aligner,
    layers: Any = "penultimate",
    *,
    text: str = "text",
    pool: str = POOL,
    plan: PhrasePlan | None = None,
    quiet: bool = False,
    **encoder_options: Any,
) -> CorpusFeatures:
    """Extract the embeddings of recordings, their words and phrases into a store, or take them from there.

    A recording is encoded whole, and its frames are pooled over all of it and over each word and phrase. Those of
    "a.wav" are "a.wav#0-1", its first word, and so on; their label `text` is what is said in them, `recording` is
    "a.wav", and the other labels are its own.

    Args:
        corpus: from `open_corpus`, with transcripts.
        folder: of the store.
        model: as for `load_encoder`, or an encoder.
        aligner: from `load_aligner`.
        layers: as for `load_encoder`.
        text: the label that is the transcript; recordings without it are left out.
        pool: of the embeddings.
        plan: which phrases are taken.
        quiet: no progress bar.
        encoder_options: further arguments of `load_encoder`.

    Returns:
        Features of a corpus whose utterances are the recordings, words and phrases.

    Raises:
        ParameterError: if no utterance has a transcript.
        SpeechfeatError: if the encoder cannot be loaded, or the store is of another configuration or other transcripts.
        AudioError: if no recording could be read.
    """
    parts = _Parts(as_encoder(model, layers, **encoder_options), aligner, check_pool(pool), plan or PhrasePlan())
    spoken = [one for one, words in zip(corpus.utterances, corpus.values(text), strict=True) if words.strip()]
    with StoreWriter(
        folder,
        parts.config(),
        {"model": parts.encoder.name, "aligner": aligner.recogniser.encoder.name},
        label_names=sorted({name for one in spoken for name in one.labels} | {TEXT, RECORDING}),
        embedding_shape=parts.shape(),
        frames=False,
    ) as writer:
        _check_unchanged(spoken, text, writer)
        missing = [one for one in spoken if one.id not in writer.done]
        for number, one in enumerate(tqdm(missing, unit="recording", disable=quiet or not missing), start=1):
            try:
                parts.add(writer, one, one.labels[text])
            except InputError as error:
                writer.fail(one.id, one.path, str(error))
            if number % SHARD == 0:  # with all words of its recordings
                writer.commit()
    store, known = Store(folder), {one.id for one in spoken}
    failures = [failure for failure in store.errors() if failure["id"].removesuffix(WORDLESS) in known]
    first = f"first {failures[0]['id']}: {failures[0]['reason']}" if failures else ""
    utterances = [one for one in _stored(store) if one.labels[RECORDING] in known]
    if not utterances:
        raise AudioError(f"none of {len(known)} recordings of {corpus.name!r} could be read; {first}")
    if failures:
        tell(f"{len(failures)} of {len(known)} recordings cannot be read, or their words not found; {first}")
    return CorpusFeatures(replace(corpus, utterances=utterances, label=TEXT, splits=None), store, utterances, failures)


class _Parts(NamedTuple):
    """How recordings are taken apart."""

    encoder: Encoder
    aligner: Aligner
    pool: str
    plan: PhrasePlan

    def add(self, writer: StoreWriter, whole: Utterance, transcript: str) -> None:
        """Write words, phrases and last the whole of a recording."""
        rate = self.encoder.sample_rate
        samples = read_audio(whole.path, rate, whole.channel, whole.start, whole.duration).samples
        spans = {"": Word(transcript, 0.0, self.encoder.grid.seconds(len(samples)), 0.0, (0, len(transcript)))}
        try:
            (words,) = self.aligner.align([samples], [transcript], sample_rate=rate)
            spans = {**_phrases(words, transcript, self.plan, whole.id), **spans}
        except InputError as error:
            writer.fail(whole.id + WORDLESS, whole.path, str(error))
        (frames,) = self.encoder.encode([samples])
        rows = word_rows(frames, list(spans.values()))
        vectors = pool_words(frames, list(spans.values()), self.pool)
        for (name, span), own, vector in zip(spans.items(), rows, vectors, strict=True):
            labels = {**whole.labels, TEXT: span.text, RECORDING: whole.id}
            place = (whole.path, whole.start + span.start, span.end - span.start)
            row = Row(whole.id + name, *place, len(own), None, size=len(span.text.encode()), labels=labels)
            writer.add(row, None, vector)

    def shape(self) -> tuple[int, ...]:
        """Of an embedding."""
        dim, selection = pooled_dim(self.pool, self.encoder.dim), self.encoder.selection
        return (len(selection.indices), dim) if selection.stacked else (dim,)

    def config(self) -> dict[str, Any]:
        """What decides the features."""
        return {
            "encoder": self.encoder.describe(),
            "grid": self.encoder.grid.describe(),
            "pool": self.pool,
            "aligner": self.aligner.recogniser.encoder.describe(),
            "phrases": self.plan._asdict(),
        }


def _phrases(words: Sequence[Word], transcript: str, plan: PhrasePlan, key: str) -> dict[str, Word]:
    """Words and phrases, by what is added to the id of their recording."""
    rng = np.random.default_rng([plan.seed, *key.encode()])
    places = [(at, at + 1) for at in range(len(words))]
    for length in plan.lengths:
        starts = rng.permutation(max(0, len(words) - length + 1))[: plan.most]
        places += [(int(at), int(at) + length) for at in sorted(starts)]
    return {f"#{first}-{stop}": _joined(words[first:stop], transcript) for first, stop in places}


def _joined(words: Sequence[Word], transcript: str) -> Word:
    """A phrase as if it were one word."""
    first, stop = words[0].offsets[0], words[-1].offsets[1]
    score = float(np.mean([word.score for word in words]))
    return Word(transcript[first:stop], words[0].start, words[-1].end, score, (first, stop))


def _check_unchanged(spoken: Sequence[Utterance], text: str, writer: StoreWriter) -> None:
    """Refuse a store in which a recording has another transcript, as far as their lengths tell."""
    for one in spoken:
        done = writer.done.get(one.id)
        if done is not None and done.size != len(one.labels[text].encode()):
            raise StoreError(
                f"the transcript of {one.id!r} is not the one that the store {writer.path} was made of; use another "
                "directory"
            )


def _stored(store: Store) -> list[Utterance]:
    """What a store holds, as utterances."""
    table = store.table()
    fixed = ("id", "path", "start", "duration")
    labels = table[[name for name in table if name not in NO_LABELS]].fillna("").to_dict("records")
    places = zip(*(table[name].tolist() for name in fixed), strict=True)
    return [
        Utterance(key, path, start, duration, labels=own)
        for (key, path, start, duration), own in zip(places, labels, strict=True)
    ]
