"""When each word of a transcript is said: forced alignment by a CTC head, and vectors of words from any encoder.

Example:
    words = sf.align("a.wav", "How are you?")
    speech = sf.pool_words(encoder.encode(["a.wav"])[0], words)  # [W, D]
    text = sf.pool_words(text_encoder.encode(["How are you?"])[0], words)  # [W, D'], of the same words
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import TokenSpan, forced_align, merge_tokens

from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.encoders.ctc import Recogniser, load_recogniser
from speechfeat.errors import AudioError, ParameterError, TextError
from speechfeat.pooling import Pooler
from speechfeat.recordings import Recording
from speechfeat.spelling import PAUSE, STAR, Speller, Spelling
from speechfeat.types import Frames

UNKNOWN = ("error", "star")
# Taken off the log probability of a blank. Heads are sure of blanks wherever no new letter is, also in silence, so that
# a last letter that nobody heard could be anywhere before the next word; pauses, of a class of their own, are free. Of
# 0, 0.25, 0.5, 1 and 2 the best for conformer-s on digits of FSDD.
BLANK_COST = 0.5


class Word(NamedTuple):
    """A word of a transcript in its recording.

    Attributes:
        text: as the transcript has it.
        start: seconds into the recording.
        end: seconds into the recording.
        score: mean log probability of its letters in the frames that they were given; NaN for a word that stands for
            anything.
        offsets: its first character in the transcript, and one past its last.
    """

    text: str
    start: float
    end: float
    score: float
    offsets: tuple[int, int]


class Aligner:
    """Finds the words of transcripts in their recordings.

    Made by `load_aligner`.

    Args:
        recogniser: an encoder with its CTC head.
    """

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser = recogniser
        self.speller = Speller(recogniser.tokenizer, recogniser.blank)

    def align(
        self,
        recordings: Sequence[Recording],
        transcripts: Sequence[str],
        *,
        sample_rate: int | None = None,
        unknown: str = "error",
    ) -> list[list[Word]]:
        """When the words of recordings are said.

        Words are what spaces part; those of punctuation alone are left out. Case, accents and punctuation that the head
        does not have are no obstacle. Times are edges of the encoder's frames.

        Args:
            recordings: as for `Encoder.encode`.
            transcripts: what is said in each.
            sample_rate: of arrays, in Hz; None means that of the encoder.
            unknown: what to do with a word that has letters or digits which the head does not have, such as "1999":
                "error", or "star": it stands for anything, and takes all the time that its neighbours leave.

        Raises:
            TextError: for a transcript without words, or with one that the head cannot spell.
            AudioError: if a recording cannot be read, or is too short for its transcript.
            ParameterError: if there is not one transcript a recording, or `unknown` is not known.
        """
        if unknown not in UNKNOWN:
            raise ParameterError(f"unknown={unknown!r} is not known; use {' or '.join(map(repr, UNKNOWN))}")
        if isinstance(transcripts, str) or len(recordings) != len(transcripts):
            given = "one string" if isinstance(transcripts, str) else f"{len(transcripts)} transcripts"
            raise ParameterError(f"{len(recordings)} recordings and {given}; give a list with one for each")
        # Before anything is run.
        spellings = [self._spell(number, text, unknown) for number, text in enumerate(transcripts)]
        found = self.recogniser.encoder.encode(recordings, sample_rate=sample_rate)
        return [self._words(number, *one) for number, one in enumerate(zip(found, spellings, strict=True))]

    def _spell(self, number: int, transcript: str, unknown: str) -> Spelling:
        try:
            return self.speller.spell(transcript, star=unknown == "star")
        except TextError as error:
            raise TextError(f"transcript {number}: {error}") from None

    def _words(self, number: int, frames: Frames, spelling: Spelling) -> list[Word]:
        grid = self.recogniser.encoder.grid
        if spelling.num_frames > frames.num_frames:
            raise AudioError(
                f"recording {number}: its transcript of {len(spelling.words)} words needs {spelling.num_frames} frames "
                f"and it has {frames.num_frames} ({frames.num_frames / grid.frame_rate:.1f} s); give the transcript "
                "of this recording"
            )
        emissions = self.recogniser.emissions(frames.values)
        own: list[list[TokenSpan]] = [[] for _ in spelling.words]
        for span, owner in zip(self._spans(emissions, spelling), spelling.owners, strict=True):
            if owner != PAUSE:
                own[owner].append(span)
        edges = np.maximum(grid.times(frames.num_frames + 1) - 0.5 / grid.frame_rate, 0.0).tolist()
        return [
            Word(text, edges[spans[0].start], edges[spans[-1].end], self._score(emissions, spans), offsets)
            for (text, offsets), spans in zip(spelling.words, own, strict=True)
        ]

    def _spans(self, emissions: Tensor, spelling: Spelling) -> list[TokenSpan]:
        """The frames of each class of a spelling."""
        blank, pause, star = self.recogniser.blank, self.speller.pause, emissions.shape[1]
        # What stands for anything is as likely as can be, everywhere.
        costs = torch.cat([emissions, torch.zeros(len(emissions), 1)], dim=1)
        if pause is not None:
            costs[:, pause] = torch.logaddexp(emissions[:, pause], emissions[:, blank])
            costs[:, blank] -= BLANK_COST
        classes = [star if one == STAR else one for one in spelling.classes]
        path, scores = forced_align(costs[None], torch.tensor([classes], dtype=torch.int32), blank=blank)
        return merge_tokens(path[0], scores[0], blank)

    def _score(self, emissions: Tensor, spans: Sequence[TokenSpan]) -> float:
        """Of the letters of a word; a pause between its parts is none."""
        if spans[0].token == emissions.shape[1]:
            return float("nan")
        letters = [span for span in spans if span.token != self.speller.pause]
        return float(torch.cat([emissions[span.start : span.end, span.token] for span in letters]).mean())


def load_aligner(
    source: str | os.PathLike | nn.Module = DEFAULT_MODEL,
    *,
    device: str | torch.device = "auto",
    dtype: str = "auto",
    **options: Any,
) -> Aligner:
    """Load what aligns recordings with their transcripts.

    Args:
        source: a catalogue name, hub id or checkpoint directory of a model with a CTC head, or one of transformers in
            memory, which is copied.
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.
        options: as for `load_encoder`: `revision`, `allow_pickle`, `trust_remote_code`; of a model in memory
            `feature_extractor` and `tokenizer`.

    Raises:
        ModelError: if the source has no CTC head, or one that spells no words.
        ParameterError: for a device or dtype that is not there.
    """
    return Aligner(load_recogniser(source, device=device, dtype=dtype, **options))


def align(
    recording: Recording,
    transcript: str,
    model: str | os.PathLike | nn.Module | Aligner = DEFAULT_MODEL,
    *,
    sample_rate: int | None = None,
    unknown: str = "error",
) -> list[Word]:
    """When the words of one recording are said; for more, load an aligner once and use its `align`.

    Args:
        recording: a path, or an array `[N]`.
        transcript: what is said in it.
        model: as for `load_aligner`, or an aligner.
        sample_rate: as for `Aligner.align`.
        unknown: as for `Aligner.align`.

    Raises:
        SpeechfeatError: as of `load_aligner` and `Aligner.align`.

    Example:
        for word in sf.align("a.wav", "How are you?"):
            print(word.start, word.end, word.text)
    """
    aligner = model if isinstance(model, Aligner) else load_aligner(model)
    return aligner.align([recording], [transcript], sample_rate=sample_rate, unknown=unknown)[0]


def word_rows(frames: Frames, words: Sequence[Word]) -> list[np.ndarray]:
    """Which frames of an encoder belong to each word: rows along T.

    Args:
        frames: of the recording, by any speech encoder, or of its transcript, by any text encoder.
        words: from `align`.

    Returns:
        Of recordings, the frames whose centre is in the word, or the one nearest to its middle if there is none; of
        texts, the tokens that have characters of the word.

    Raises:
        ParameterError: if there are no frames, or a word has no token, as in a text that was truncated.
    """
    if not frames.num_frames:
        raise ParameterError("there are no frames; give those of the recording or of its transcript")
    if frames.offsets is None:
        return [_rows_in_time(frames.times, word) for word in words]
    return [_rows_in_text(frames.offsets, word) for word in words]


def pool_words(frames: Frames, words: Sequence[Word], pool: str = "mean") -> np.ndarray:
    """A vector of each word, `[W, D']`, or `[W, L, D']` of several layers, float32.

    Args:
        frames: as for `word_rows`: of the recording or of its transcript.
        words: from `align`.
        pool: "mean", "std", "mean+std", "max", "first" or "last".

    Raises:
        ParameterError: as of `word_rows`, or if the pooling is not known.
    """
    vectors = []
    for rows in word_rows(frames, words):
        pooler = Pooler(pool)
        pooler.add(frames.values[..., rows, :])
        vectors.append(pooler.result())
    return np.stack(vectors)


def _rows_in_time(times: np.ndarray, word: Word) -> np.ndarray:
    rows = np.flatnonzero((times >= word.start) & (times < word.end))
    return rows if len(rows) else np.array([np.abs(times - (word.start + word.end) / 2).argmin()])


def _rows_in_text(offsets: np.ndarray, word: Word) -> np.ndarray:
    first, stop = word.offsets
    rows = np.flatnonzero((offsets[:, 0] < stop) & (offsets[:, 1] > first) & (offsets[:, 1] > offsets[:, 0]))
    if not len(rows):
        raise ParameterError(
            f"no token has characters of {word.text!r} (characters {first} to {stop}); encode the transcript that was "
            "aligned, whole"
        )
    return rows
