"""Padded batches of recordings for training, as extraction would give them to the encoder.

Everything drawn at random is a function of the seed, the epoch and the place in it, so that a resumed training sees
what an undisturbed one sees.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from speechfeat.batching import pad, plan_batches
from speechfeat.distillation.ahead import make_ahead
from speechfeat.distillation.data import AudioCache
from speechfeat.encoders.base import Encoder
from speechfeat.errors import ParameterError
from speechfeat.types import Batch

# In an epoch, the length of an utterance counts for up to this much more than it is: utterances of like lengths then
# do not meet in every epoch.
LONGEST_BLUR = 1.3
# Of memory for utterances that are prepared already, so that those that are heard as they are wait for no front end.
CACHE_BYTES = 2**28

# What makes an utterance's samples `[N]` other samples, by what is drawn from the generator.
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class BatchPlan:
    """How batches are made.

    Attributes:
        batch_seconds: the most padded audio in a batch.
        batch_size: the most utterances in a batch.
        crop_seconds: of a longer utterance, a stretch of this length is taken in each epoch; None takes all.
        views: copies of each utterance in a training batch, of the same stretch: None for one as it is, else what
            augments it. Most objectives learn from the first alone.
        seed: of order, stretches and augmentation.

    Raises:
        ParameterError: for a value out of range.
    """

    batch_seconds: float = 30.0
    batch_size: int = 16
    crop_seconds: float | None = None
    views: tuple[Augment | None, ...] = (None,)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batch_seconds > 0 or self.batch_size < 1:
            raise ParameterError(
                f"batch_seconds={self.batch_seconds} must be above 0, batch_size={self.batch_size} at least 1"
            )
        if self.crop_seconds is not None and not self.crop_seconds > 0:
            raise ParameterError(f"crop_seconds={self.crop_seconds} must be above 0, or None")
        if not self.views:
            raise ParameterError("views=() leaves nothing to learn from; give (None,) for utterances as they are")
        if self.seed < 0:
            raise ParameterError(f"seed={self.seed} must be at least 0")


class TransferBatch(NamedTuple):
    """What an objective takes.

    Attributes:
        views: the utterances, once for each view of the plan; B each, in the same order.
        rows: `[B]`, which of the utterances each is.
        progress: how much of the training is done, from 0 to 1.
    """

    views: tuple[Batch, ...]
    rows: np.ndarray
    progress: float = 0.0

    @property
    def inputs(self) -> Batch:
        """The first view."""
        return self.views[0]


class UtteranceBatches:
    """Batches of some of the recordings.

    Args:
        encoder: for its input and its frame grid.
        audio: the recordings.
        rows: which of them.
        plan: how batches are made.

    Raises:
        ParameterError: if there is none, or one is longer than what the encoder takes at once.
    """

    def __init__(
        self, encoder: Encoder, audio: AudioCache, rows: Sequence[int] | np.ndarray, plan: BatchPlan = BatchPlan()
    ) -> None:
        self.encoder, self.audio, self.plan = encoder, audio, plan
        self.rows = np.asarray(rows, np.int64)
        if not len(self.rows):
            raise ParameterError("there is no utterance to make batches of")
        self._seconds = np.array([audio.seconds(int(row)) for row in self.rows])
        longest, most = int(self._seconds.argmax()), encoder.backbone.max_samples
        if most is not None and audio.sample_rate * self._seconds[longest] > most:
            raise ParameterError(
                f"utterance {self.rows[longest]} has {self._seconds[longest]:.1f} s, {encoder.name!r} takes at most "
                f"{most / audio.sample_rate:.1f} s at once; leave it out, or cut it in a manifest (start, end)"
            )
        self._epoch = lru_cache(maxsize=2)(self._plan_epoch)
        self._kept: dict[int, np.ndarray] = {}
        self._room = CACHE_BYTES

    def num_batches(self, epoch: int) -> int:
        """Of an epoch."""
        return len(self._epoch(epoch))

    def stream(self, places: Sequence[tuple[int, int]], num_workers: int = 0) -> Iterator[TransferBatch]:
        """The batches of epochs and places in them, made ahead in processes of their own (0: in this)."""
        return make_ahead(lambda place: self.make(*place), places, num_workers)

    def make(self, epoch: int, place: int) -> TransferBatch:
        """One batch of an epoch."""
        rng = np.random.default_rng((self.plan.seed, 1, epoch, place))
        chosen = self._epoch(epoch)[place]
        stretches = [self._stretch(item, rng) for item in chosen]
        return TransferBatch(
            tuple(self._pad(chosen, stretches, augment, rng) for augment in self.plan.views), self.rows[chosen]
        )

    def once(self) -> Iterator[TransferBatch]:
        """Each utterance once, whole and as it is, the longest first."""
        for chosen in plan_batches(self._seconds.tolist(), self.plan.batch_seconds, self.plan.batch_size):
            yield TransferBatch((self._pad(chosen, [None] * len(chosen)),), self.rows[chosen])

    def describe(self) -> dict[str, Any]:
        """What decides the batches, as JSON values."""
        plan = self.plan
        return {
            "batch_seconds": plan.batch_seconds,
            "batch_size": plan.batch_size,
            "crop_seconds": plan.crop_seconds,
            "views": [getattr(view, "__qualname__", repr(view)) for view in plan.views],
            "seed": plan.seed,
            "rows": hashlib.blake2b(self.rows.tobytes() + self._seconds.tobytes(), digest_size=16).hexdigest(),
        }

    def _plan_epoch(self, epoch: int) -> list[list[int]]:
        """Places in `rows` of utterances of like lengths, in random order."""
        rng = np.random.default_rng((self.plan.seed, 0, epoch))
        order = rng.permutation(len(self.rows))
        longest = self.plan.crop_seconds or np.inf
        blurred = np.minimum(self._seconds[order], longest) * rng.uniform(1, LONGEST_BLUR, len(order))
        batches = plan_batches(blurred.tolist(), self.plan.batch_seconds, self.plan.batch_size)
        return [order[batches[place]].tolist() for place in rng.permutation(len(batches))]

    def _stretch(self, item: int, rng: np.random.Generator) -> slice | None:
        """Which samples are taken; None for all."""
        if self.plan.crop_seconds is None or self._seconds[item] <= self.plan.crop_seconds:
            return None
        count = round(self.plan.crop_seconds * self.audio.sample_rate)
        start = int(rng.integers(round(self._seconds[item] * self.audio.sample_rate) - count + 1))
        return slice(start, start + count)

    def _pad(
        self,
        chosen: Sequence[int],
        stretches: Sequence[slice | None],
        augment: Augment | None = None,
        rng: np.random.Generator | None = None,
    ) -> Batch:
        inputs, counts = [], []
        for item, stretch in zip(chosen, stretches, strict=True):
            if stretch is None and augment is None:
                inputs.append(self._prepare_whole(item))
                counts.append(round(self._seconds[item] * self.audio.sample_rate))
                continue
            samples = self.audio.read(int(self.rows[item]))
            samples = samples if stretch is None else samples[stretch]
            if augment is not None:
                assert rng is not None
                samples = augment(samples, rng)
            inputs.append(self.encoder.prepare(samples))
            counts.append(len(samples))
        return pad(inputs, counts)

    def _prepare_whole(self, item: int) -> np.ndarray:
        """An utterance as it is; kept as long as there is room."""
        if item in self._kept:
            return self._kept[item]
        inputs = self.encoder.prepare(self.audio.read(int(self.rows[item])))
        if inputs.nbytes <= self._room:
            self._room -= inputs.nbytes
            self._kept[item] = inputs
        return inputs
