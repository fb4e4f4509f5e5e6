"""Batches of dirty speech and of what is to be learnt from it.

Everything drawn at random is a function of seed and step, so that a resumed training sees what an undisturbed one sees.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechfeat.augmentation import Augmentation
from speechfeat.batching import plan_batches
from speechfeat.distillation.ahead import make_ahead
from speechfeat.distillation.data import AudioCache, TeacherFrames
from speechfeat.encoders.base import Encoder
from speechfeat.errors import ParameterError
from speechfeat.regularisation import spec_augment


@dataclass(frozen=True)
class BatchConfig:
    """How batches are made.

    Attributes:
        batch_seconds: of padded audio.
        crop: share of the utterances of which a short stretch is taken, so that words without context are seen.
        crop_seconds: shortest and longest such stretch.
        clean: share of the utterances that are heard as they are.
        augmentation: of the student's input otherwise; the teacher's states stay those of the clean recording.
        spec_augment: share of the utterances with bands and stretches of their features masked.
        seed: decides order, stretches and dirt.

    Raises:
        ParameterError: for a value out of range.
    """

    batch_seconds: float = 60.0
    crop: float = 0.5
    crop_seconds: tuple[float, float] = (0.3, 2.5)
    clean: float = 0.3
    augmentation: Augmentation = field(default_factory=Augmentation)
    spec_augment: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batch_seconds > 0:
            raise ParameterError(f"batch_seconds={self.batch_seconds} must be above 0")
        for name in ("crop", "clean", "spec_augment"):
            if not 0 <= getattr(self, name) <= 1:
                raise ParameterError(f"{name}={getattr(self, name)} must be a probability, in [0, 1]")
        if self.seed < 0:
            raise ParameterError(f"seed={self.seed} must be at least 0")


class Example(NamedTuple):
    """A stretch of an utterance: which, from where, how long, in seconds."""

    item: int
    start: float
    duration: float


class DistillBatch(NamedTuple):
    """What one step of training takes.

    Attributes:
        inputs: `[B, N', F]` the student's prepared input.
        sizes: inputs of each utterance.
        targets: `[B, L, T, D]` float16, the teacher's layers at the student's frames; None without frame teacher.
        num_frames: `[B]` frames of the student.
        is_clean: `[B]` whether the utterance is heard as it is.
        vectors: `[B, D]` unit vectors of the utterance's speaker.
        has_vector: `[B]` where there is one.
        labels: transcripts as class numbers, one after another.
        label_lengths: `[B]`, 0 where there is none.
    """

    inputs: Tensor
    sizes: list[int]
    targets: Tensor | None
    num_frames: Tensor
    is_clean: Tensor
    vectors: Tensor | None
    has_vector: Tensor
    labels: Tensor
    label_lengths: Tensor

    def to(self, device: torch.device | str) -> "DistillBatch":
        """The same on a device."""
        return DistillBatch(*(one.to(device) if isinstance(one, Tensor) else one for one in self))  # type: ignore[arg-type]


class _Made(NamedTuple):
    """An example as the student hears it, and what it is to learn of it."""

    inputs: np.ndarray
    targets: np.ndarray | None
    num_frames: int
    speed: float
    is_clean: bool


class Batches:
    """Makes the batch of any step.

    Args:
        encoder: the student, for its input and its frame grid.
        audio: the recordings.
        items: numbers of the utterances to learn from.
        config: how batches are made.
        teacher: frames to learn; None for none.
        vectors: a vector of the speaker for some of the items.
        labels: a transcript as class numbers for some of the items.
    """

    def __init__(
        self,
        encoder: Encoder,
        audio: AudioCache,
        items: Sequence[int],
        config: BatchConfig,
        *,
        teacher: TeacherFrames | None = None,
        vectors: Mapping[int, np.ndarray] | None = None,
        labels: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        self.encoder, self.audio, self.items, self.config = encoder, audio, list(items), config
        self.teacher, self.vectors, self.labels = teacher, vectors or {}, labels or {}
        self._epoch = lru_cache(maxsize=2)(self._plan_epoch)

    def steps_per_epoch(self) -> int:
        """Batches of the first epoch; the others have about as many."""
        return len(self._epoch(0))

    def stream(self, first_step: int, num_steps: int, num_workers: int = 1) -> Iterator[DistillBatch]:
        """The batches of steps from `first_step` to `num_steps`, made ahead in processes of their own (0: in this)."""
        return make_ahead(self.make, range(first_step, num_steps), num_workers)

    def examples(self, step: int) -> list[Example]:
        """What the batch of a step is made of, in its order."""
        epoch, place = divmod(step, self.steps_per_epoch())
        plan = self._epoch(epoch)
        return plan[place % len(plan)]

    def make(self, step: int) -> DistillBatch:
        """The batch of a step."""
        examples = self.examples(step)
        rng = np.random.default_rng((self.config.seed, 1, step))
        return self._collate(examples, [self._make_one(example, rng) for example in examples])

    def _plan_epoch(self, epoch: int) -> list[list[Example]]:
        """Stretches of all utterances in batches of like length, in random order."""
        rng = np.random.default_rng((self.config.seed, 0, epoch))
        examples = []
        for item in self.items:
            seconds = self.audio.seconds(item)
            low, high = self.config.crop_seconds
            wanted = rng.uniform(low, high)
            if rng.random() < self.config.crop and wanted < seconds:
                examples.append(Example(item, rng.uniform(0, seconds - wanted), wanted))
            else:
                examples.append(Example(item, 0.0, seconds))
        # Lengths are blurred a little, so that the same utterances do not meet in every epoch.
        blurred = [example.duration * rng.uniform(0.95, 1.05) for example in examples]
        batches = plan_batches(blurred, self.config.batch_seconds)
        return [[examples[index] for index in batches[number]] for number in rng.permutation(len(batches))]

    def _make_one(self, example: Example, rng: np.random.Generator) -> "_Made":
        samples, speed = self.audio.read(example.item, example.start, example.duration), 1.0
        is_clean = rng.random() < self.config.clean
        if not is_clean:
            other = self.audio.read(self.items[rng.integers(len(self.items))])
            samples, speed = self.config.augmentation(samples, rng, [other])
        inputs = self.encoder.prepare(samples)
        if not is_clean and rng.random() < self.config.spec_augment:
            inputs = spec_augment(inputs, rng)
        num_frames = self.encoder.num_frames(len(samples))
        targets = None
        if self.teacher is not None:
            times = self.encoder.grid.times(num_frames) * speed + example.start
            hop = self.encoder.grid.hop / self.encoder.sample_rate * speed
            targets = self.teacher.at(example.item, times, hop).astype(np.float16)
        return _Made(inputs, targets, num_frames, speed, is_clean)

    def _collate(self, examples: Sequence[Example], made: Sequence["_Made"]) -> DistillBatch:
        inputs, targets, num_frames, speeds, is_clean = zip(*made, strict=True)
        # Another speed is another voice, and half a transcript is none.
        vectors = [
            self.vectors.get(example.item) if abs(speed - 1) < 0.03 else None
            for example, speed in zip(examples, speeds, strict=True)
        ]
        labels = [
            self.labels.get(example.item, ()) if example.start == 0 and self._is_whole(example) else ()
            for example in examples
        ]
        dim = len(next(iter(self.vectors.values()))) if self.vectors else 0
        return DistillBatch(
            torch.nn.utils.rnn.pad_sequence([torch.from_numpy(values) for values in inputs], batch_first=True),
            [len(values) for values in inputs],
            None if self.teacher is None else _pad_targets(targets),
            torch.tensor(num_frames),
            torch.tensor(is_clean),
            torch.from_numpy(np.stack([np.zeros(dim, np.float32) if v is None else v for v in vectors]))
            if dim
            else None,
            torch.tensor([vector is not None for vector in vectors]),
            torch.tensor([number for label in labels for number in label], dtype=torch.long),
            torch.tensor([len(label) for label in labels]),
        )

    def _is_whole(self, example: Example) -> bool:
        return example.duration == self.audio.seconds(example.item)


def _pad_targets(targets: Sequence[np.ndarray]) -> Tensor:
    longest = max(values.shape[1] for values in targets)
    padded = np.zeros((len(targets), len(targets[0]), longest, targets[0].shape[-1]), np.float16)
    for row, values in zip(padded, targets, strict=True):
        row[:, : values.shape[1]] = values
    return torch.from_numpy(padded)
