"""What to learn from: utterances, their speakers' vectors and transcripts, and the speakers kept out."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from speechfeat.corpus import discover
from speechfeat.distillation.data import refuse_recordings
from speechfeat.errors import ParameterError
from speechfeat.planning import survey
from speechfeat.transcripts import Alphabet
from speechfeat.types import Utterance

# Cosine to a speaker's mean above which an utterance of an unnamed speaker is taken for theirs. With the vectors of
# WeSpeaker's ResNet34 and Common Voice, 96 % of a speaker's own utterances are above it; so are 10 % of all others to
# the nearest of 60 speakers, which are left out for nothing.
SAME_SPEAKER = 0.5


@dataclass(frozen=True)
class DistillCorpus:
    """Utterances and what is known of them, by their number.

    Attributes:
        utterances: all of them.
        training: numbers of those to learn from.
        held_out: numbers of those of the speakers kept out.
        vectors: of the speaker, less the mean of all, of unit length.
        labels: transcripts as class numbers.
        num_unfit: utterances left out for their length.
    """

    utterances: Sequence[Utterance]
    training: Sequence[int]
    held_out: Sequence[int]
    vectors: Mapping[int, np.ndarray]
    labels: Mapping[int, Sequence[int]]
    num_unfit: int = 0


def read_corpus(
    sources: Sequence[str | os.PathLike[str]],
    *,
    alphabet: Alphabet | None = None,
    vectors: str | os.PathLike[str] | None = None,
    held_out: float = 0.1,
    seconds: tuple[float, float] = (1.0, 12.0),
    limit: int | None = None,
) -> DistillCorpus:
    """Read manifests with the columns path and, where known, speaker and text.

    Args:
        sources: see `corpus.discover`; several are one corpus.
        alphabet: of the transcripts; None learns without them.
        vectors: an npz file with `path` (from the file's directory) and `embedding` `[n, D]`.
        held_out: share of the speakers kept out, chosen by a hash of their name. Of clips without a speaker, those
            that sound like one kept out are left out too; without vectors that cannot be told.
        seconds: shortest and longest recording taken.
        limit: the most utterances taken, spread over the corpus.

    Raises:
        AudioError: if a recording cannot be opened.
        ParameterError: if a value is out of range, the vectors cannot be read, or nothing is left to learn from.
    """
    if limit is not None and limit < 1:
        raise ParameterError(f"limit={limit} must be at least 1")
    if not 0 <= held_out < 1:
        raise ParameterError(f"held_out={held_out} must be a share of the speakers, in [0, 1)")
    found = [utterance for source in sources for utterance in discover(source)]
    utterances = _of_length(found, seconds)
    num_unfit = len(found) - len(utterances)
    if limit is not None and limit < len(utterances):
        utterances = [utterances[index] for index in np.linspace(0, len(utterances) - 1, limit).astype(int)]
    by_number = {} if vectors is None else _read_vectors(Path(vectors), utterances)
    kept_out = {
        number for number, one in enumerate(utterances) if _is_held_out(one.labels.get("speaker") or "", held_out)
    }
    unsafe = _resembling(kept_out, utterances, by_number)
    training = [number for number in range(len(utterances)) if number not in kept_out and number not in unsafe]
    if not training:
        raise ParameterError(
            f"{', '.join(map(str, sources))}: no recording of {seconds[0]} to {seconds[1]} s is left to learn from"
        )
    labels = {}
    if alphabet is not None:
        encoded = {number: alphabet.encode(one.labels.get("text") or "") for number, one in enumerate(utterances)}
        labels = {number: label for number, label in encoded.items() if label}
        if not labels:
            raise ParameterError(
                f"no recording has a transcript in the letters {alphabet.letters!r}; the manifest's column is text"
            )
    return DistillCorpus(utterances, training, sorted(kept_out), _centred(by_number), labels, num_unfit)


def _of_length(utterances: Sequence[Utterance], seconds: tuple[float, float]) -> list[Utterance]:
    """Those of the right length, in their order."""
    found = survey([replace(one, id=f"{number:09d}") for number, one in enumerate(utterances)])
    refuse_recordings([reason for _, reason in found.failures], len(utterances))
    fit = (int(work.utterance.id) for work in found.works if seconds[0] <= work.seconds <= seconds[1])
    return [utterances[number] for number in fit]


def _read_vectors(file: Path, utterances: Sequence[Utterance]) -> dict[int, np.ndarray]:
    try:
        with np.load(file) as archive:
            paths, values = archive["path"], archive["embedding"].astype(np.float32)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise ParameterError(
            f"speaker vectors {str(file)!r} cannot be read ({error}); give an npz with the arrays path and embedding"
        ) from None
    lengths = np.linalg.norm(values, axis=-1, keepdims=True)
    if values.ndim != 2 or len(values) != len(paths) or not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ParameterError(
            f"speaker vectors {str(file)!r} hold {len(paths)} paths and embeddings of the shape {values.shape}; "
            "give as many of both, [n, D], finite and none of them zero"
        )
    values /= lengths
    places = {os.path.realpath(file.parent / path): index for index, path in enumerate(paths.tolist())}
    found = {number: places.get(os.path.realpath(one.path)) for number, one in enumerate(utterances)}
    matched = {number: values[place] for number, place in found.items() if place is not None}
    if not matched:
        raise ParameterError(
            f"none of the {len(paths)} paths of {str(file)!r} is a recording to learn from, the first is "
            f"{paths.tolist()[:1]}; they start from the directory of that file"
        )
    return matched


def _centred(vectors: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Less their mean: a student would learn that first, and it tells nobody apart."""
    if not vectors:
        return {}
    values = np.stack(list(vectors.values()))
    values -= values.mean(axis=0)
    return dict(zip(vectors, values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-8), strict=True))


def _is_held_out(speaker: str, share: float) -> bool:
    """Whether a speaker is kept out: by the name alone, so that more data never moves one over."""
    digest = hashlib.blake2b(speaker.encode(), digest_size=8).digest()
    return bool(speaker) and int.from_bytes(digest, "big") / 2**64 < share


def _resembling(kept_out: set[int], utterances: Sequence[Utterance], vectors: Mapping[int, np.ndarray]) -> set[int]:
    """Utterances of unnamed speakers that sound like a speaker kept out."""
    by_speaker: dict[str, list[np.ndarray]] = {}
    for number in kept_out & set(vectors):
        by_speaker.setdefault(utterances[number].labels["speaker"], []).append(vectors[number])
    unnamed = [number for number in vectors if not utterances[number].labels.get("speaker")]
    if not by_speaker or not unnamed:
        return set()
    means = np.stack([np.mean(group, axis=0) for group in by_speaker.values()])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    nearest = (np.stack([vectors[number] for number in unnamed]) @ means.T).max(axis=1)
    return {number for number, cosine in zip(unnamed, nearest, strict=True) if cosine > SAME_SPEAKER}


def describe(corpus: DistillCorpus) -> str:
    """A line on what is learnt from."""
    speakers = {corpus.utterances[number].labels.get("speaker") for number in corpus.held_out}
    left = len(corpus.utterances) - len(corpus.training) - len(corpus.held_out)
    return (
        f"{len(corpus.utterances)} utterances, {corpus.num_unfit} others too short or too long; "
        f"{len(corpus.training)} to learn from, {len(corpus.held_out)} of {len(speakers)} speakers kept out, "
        f"{left} unnamed ones that sound like those left out; "
        f"{len(corpus.vectors)} speaker vectors, {len(corpus.labels)} transcripts"
    )
