"""What travels along the path: an utterance, its audio, a padded batch with its lengths, features with their times."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speechfeat.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Utterance:
    """A stretch of a recording, not yet read.

    Attributes:
        id: unique in a run; printable UTF-8 whatever the file's name is.
        path: of the recording, as the operating system knows it (undecodable bytes as surrogates).
        start: seconds into the recording.
        duration: seconds; None means to the end of the recording.
        channel: "mean" for the average of the channels, or the number of one.
        labels: other columns of the manifest.
        copy: 0 for the utterance itself, else the number of a copy that is augmented when it is read.
        text: what is encoded, in a corpus of texts; None in one of recordings, and for a file that is yet to be read.
    """

    id: str
    path: str
    start: float = 0.0
    duration: float | None = None
    channel: str | int = "mean"
    labels: Mapping[str, str] = field(default_factory=dict)
    copy: int = 0
    text: str | None = None


class Audio(NamedTuple):
    """Samples ready for an encoder.

    Attributes:
        samples: `[N]` float32 at the rate asked for, mono.
        source_rate: of the recording, in Hz.
        flags: what a user should know of it: "silent", "narrowband", "truncated".
    """

    samples: np.ndarray
    source_rate: int
    flags: tuple[str, ...] = ()


class Tokens(NamedTuple):
    """A text ready for an encoder, to which a token is what a sample is to others.

    Attributes:
        samples: `[N]` int64 numbers of its tokens, without those that the tokenizer adds to every text.
        offsets: `[N, 2]` int32, the first character of each and one past its last.
        flags: what a user should know of it: "truncated".
    """

    samples: np.ndarray
    offsets: np.ndarray
    flags: tuple[str, ...] = ()


class Batch(NamedTuple):
    """Padded inputs with their lengths.

    Attributes:
        inputs: `[B, N]` samples or tokens, or `[B, N, F]` front-end frames; zeros past each size.
        sizes: valid entries along N, of each.
        num_samples: samples that each input was made from.
    """

    inputs: "Tensor"
    sizes: tuple[int, ...]
    num_samples: tuple[int, ...]


class Hidden(NamedTuple):
    """States of the layers asked for.

    Attributes:
        states: `[B, L, T, D]`, anything past each length.
        num_frames: `[B]` valid frames.
    """

    states: "Tensor"
    num_frames: tuple[int, ...]


class Wanted(NamedTuple):
    """What is wanted of the states of a batch, where the device can prepare it; a CPU gives float32 frames only.

    Attributes:
        dtype: of the frames, "float32" or "float16".
        pool: pooling over all frames of an utterance, or None.
        frames: whether frames are wanted, beside what is pooled.
    """

    dtype: str = "float32"
    pool: str | None = None
    frames: bool = True


ALL_FRAMES = Wanted()


class Landed(NamedTuple):
    """Features of one utterance.

    Attributes:
        values: `[L, T, D]` float32 or float16; None if only the embedding was wanted.
        embedding: `[L, D']` float32; None if it was not wanted or not prepared.
        is_finite: whether it is known that no value is NaN or infinite.
        error: why there are none.
    """

    values: np.ndarray | None
    embedding: np.ndarray | None = None
    is_finite: bool = False
    error: InputError | None = None

    @property
    def frames(self) -> np.ndarray:
        """`values`, where frames were wanted.

        Raises:
            InputError: if the utterance could not be encoded.
        """
        if self.error:
            raise self.error
        assert self.values is not None
        return self.values


@dataclass(frozen=True)
class Frames:
    """Features of one utterance; of a text, whose frames are its tokens, special ones included.

    Attributes:
        values: `[T, D]`, or `[L, T, D]` when several layers were asked for; float32.
        times: `[T]` centre of each frame, in seconds of the recording; empty for a text.
        id: of the utterance.
        flags: what a user should know of it: "short", "silent", "narrowband", "truncated", "chunked".
        tokens: their T names, for a text.
        offsets: `[T, 2]` int32, for a text: the first character of each token and one past its last; equal for tokens
            that stand for no characters.
    """

    values: np.ndarray
    times: np.ndarray
    id: str = ""
    flags: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    offsets: np.ndarray | None = None

    @property
    def num_frames(self) -> int:
        """T, the number of frames."""
        return self.values.shape[-2]
