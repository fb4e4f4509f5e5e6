"""What goes along the path: how an utterance is read, what its pooling sees, what the store records of it."""

from typing import Protocol

import numpy as np

from speechfeat.audio import read_audio
from speechfeat.chunking import Chunking
from speechfeat.config import ExtractConfig
from speechfeat.encoders.base import Encoder
from speechfeat.planning import SHARD_SECONDS, Work
from speechfeat.store_shards import Row
from speechfeat.streaming import AHEAD_SECONDS, Piece
from speechfeat.types import Audio, Tokens
from speechfeat.units import HOURS, Measure


class Medium(Protocol):
    """One kind of input.

    Attributes:
        chunking: how long inputs are cut.
        measure: in which amounts are told.
        ahead_seconds: of the frame grid, that may lie read ahead of the encoder.
        shard_seconds: of the frame grid, the most in a shard.
        pools_all_frames: whether pooling sees every frame.
    """

    chunking: Chunking
    measure: Measure
    ahead_seconds: float
    shard_seconds: float
    pools_all_frames: bool

    def read(self, work: Work) -> Audio | Tokens:
        """The samples or tokens of an utterance."""

    def pooled(self, piece: Piece) -> np.ndarray:
        """The frames `[L, t, D]` of a piece that pooling sees."""

    def row(self, work: Work, piece: Piece) -> Row:
        """What the store records of an utterance, by its last piece."""


class RecordingMedium:
    """Recordings: decoded when they are read, every frame pooled."""

    measure = HOURS
    ahead_seconds = AHEAD_SECONDS
    shard_seconds = SHARD_SECONDS
    pools_all_frames = True

    def __init__(self, encoder: Encoder, config: ExtractConfig) -> None:
        self.chunking = config.chunking
        self._augmentation = config.augmentation
        self._rate = encoder.sample_rate

    def read(self, work: Work) -> Audio:
        """Samples at the rate of the encoder, augmented if the utterance is a copy."""
        utterance, rate = work.utterance, self._rate
        audio = read_audio(utterance.path, rate, utterance.channel, utterance.start, utterance.duration)
        if not utterance.copy or self._augmentation is None:
            return audio
        from speechfeat.augmentation import augmented_copy  # its scipy.signal takes a while to import

        return audio._replace(samples=augmented_copy(audio.samples, utterance, self._augmentation, rate))

    def pooled(self, piece: Piece) -> np.ndarray:
        """All frames."""
        return piece.frames

    def row(self, work: Work, piece: Piece) -> Row:
        """Where the utterance is in its recording, and its labels."""
        return Row(
            id=work.utterance.id,
            path=work.utterance.path,
            start=work.utterance.start,
            duration=piece.audio_seconds,
            num_frames=piece.num_frames,
            sample_rate=piece.source_rate,
            flags=piece.flags,
            size=work.size,
            labels=work.utterance.labels,
        )
