"""A distillation from manifests to a checkpoint: everything that is done once before and after the training."""

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from speechfeat.cli import tell
from speechfeat.config import ExtractConfig
from speechfeat.distillation.batches import BatchConfig, Batches
from speechfeat.distillation.corpus import describe, read_corpus
from speechfeat.distillation.data import AudioCache, TeacherFrames, refuse_recordings, utterance_key
from speechfeat.distillation.model import Student, Tasks, fold_scale
from speechfeat.distillation.report import DistillReport, evaluate
from speechfeat.distillation.students import new_student, save_student
from speechfeat.distillation.training import DistillConfig, Distiller, refuse_differences
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.devices import choose_device
from speechfeat.encoders.loading import load_encoder
from speechfeat.encoders.precision import DTYPES
from speechfeat.errors import ParameterError
from speechfeat.extraction import Extractor
from speechfeat.progress import Progress
from speechfeat.store import Store
from speechfeat.store_config import write_text
from speechfeat.transcripts import Alphabet

PLAN, TEACHER, WORK = "plan.json", "teacher", "work"
TIMED_STEPS = 8


@dataclass(frozen=True)
class DistillPlan:
    """What is learnt, from whom, from what, for how long.

    Attributes:
        sources: manifests with the columns path and, where known, speaker and text.
        teacher: name, hub id or directory, as for `load_encoder`; None learns from vectors and transcripts alone.
        teacher_options: further arguments of `load_encoder`.
        student: see `new_student`.
        vectors: npz file of speaker vectors, or None.
        letters: alphabet of the transcripts, or "" to learn without them.
        held_out: share of the speakers kept out.
        seconds: shortest and longest recording taken.
        limit: the most recordings taken, or None.
        steps: of training; None takes as many as fit into `minutes`.
        minutes: of training, where steps is None.
        tasks: what is learnt in which block.
        batches: how batches are made.
        training: how the student is trained.
    """

    sources: Sequence[str]
    teacher: str | None
    teacher_options: Mapping[str, Any] = field(default_factory=dict)
    student: str = "conformer-s"
    vectors: str | None = None
    letters: str = ""
    held_out: float = 0.1
    seconds: tuple[float, float] = (1.0, 12.0)
    limit: int | None = None
    steps: int | None = None
    minutes: float = 60.0
    tasks: Tasks = field(default_factory=Tasks)
    batches: BatchConfig = field(default_factory=BatchConfig)
    training: DistillConfig = field(default_factory=DistillConfig)

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ParameterError: that names it.
        """
        if self.steps is not None and self.steps < 1:
            raise ParameterError(f"steps={self.steps} must be at least 1")
        if not self.minutes > 0:
            raise ParameterError(f"minutes={self.minutes} must be above 0")
        if bool(self.teacher) != bool(self.tasks.taps):
            raise ParameterError("a teacher and taps (student block: teacher layer) belong together; give both or none")
        if bool(self.vectors) != bool(self.tasks.speaker_blocks):
            raise ParameterError("speaker vectors and the blocks that learn them belong together; give both or none")
        if not (self.teacher or self.vectors or self.letters):
            raise ParameterError("there is nothing to learn; give a teacher, speaker vectors or letters of transcripts")


class Distillation:
    """A plan being carried out in a directory; the same plan in the same directory goes on.

    Args:
        plan: what to do.
        out: directory for the teacher's states, the decoded audio, checkpoints and the result.
        device: torch device, or "auto".
        tell: called with a line at every stage.

    Attributes:
        corpus: what is learnt from.
        distiller: the training; `run` it.

    Raises:
        SpeechfeatError: if the plan cannot be carried out, or the directory is that of another.
    """

    def __init__(
        self,
        plan: DistillPlan,
        out: str | os.PathLike[str],
        device: str = "auto",
        tell: Callable[[str], None] = tell,
    ) -> None:
        # What can be found wrong at once is, before hours are spent on the teacher.
        plan.check()
        self.plan, self.out, self.device = plan, Path(out), choose_device(device)
        self.alphabet = Alphabet(plan.letters) if plan.letters else None
        model, self.extractor = new_student(plan.student, self.alphabet or Alphabet(""), plan.training.seed)
        plan.tasks.check(len(model.encoder.layers))
        self._work = self.out / WORK
        self._work.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._work / "lock")
        teacher = self._open_teacher()
        self.corpus = read_corpus(
            plan.sources,
            alphabet=self.alphabet,
            vectors=plan.vectors,
            held_out=plan.held_out,
            seconds=plan.seconds,
            limit=plan.limit,
        )
        tell(describe(self.corpus))
        steps = self._begin(model.config.to_json_string())
        self._encoder = load_encoder(model, "last", device="cpu", dtype="float32", feature_extractor=self.extractor)
        tell(f"decoding into {self._work}, once")
        self._audio = AudioCache(self._work, self.corpus.utterances, self._encoder.sample_rate)
        tell(f"{sum(map(self._audio.seconds, self.corpus.training)) / 3600:.2f} h to learn from")
        self._teacher = None if teacher is None else self._teacher_frames(teacher, tell)
        batches = self._batches(self.corpus.training, plan.batches)
        _standardise(model, batches)
        vectors = self.corpus.vectors
        dims = (self._teacher.dim if self._teacher else 0, len(next(iter(vectors.values()))) if vectors else 0)
        student = Student(model, plan.tasks, *dims)
        if steps is None:
            steps = self._steps_in_time(student, batches, tell)
            self._write_plan(self._settings(model.config.to_json_string()), steps)
        tell(f"{steps} steps, {steps / batches.steps_per_epoch():.1f} epochs")
        self.distiller = Distiller(student, batches, plan.training, steps, self._work, device=self.device)

    def export(self, directory: str | os.PathLike[str], dtype: str = "float16") -> None:
        """Write the student as a checkpoint that `load_encoder` takes, its weights in a dtype of `--dtype`."""
        alphabet = self.alphabet or Alphabet("")
        save_student(directory, self.distiller.student.model, self.extractor, alphabet, DTYPES[dtype])

    def list_held_out(self, file: str | os.PathLike[str]) -> None:
        """Write a manifest of the utterances of the speakers kept out: path, speaker and other labels."""
        rows = []
        for number in self.corpus.held_out:
            one = self.corpus.utterances[number]
            stretch = {} if one.duration is None else {"start": one.start, "end": one.start + one.duration}
            rows.append({"path": one.path, **stretch, **one.labels})
        pd.DataFrame(rows).to_csv(file, index=False)

    def evaluate(self) -> DistillReport:
        """How good the student is now, on the speakers kept out.

        Raises:
            ParameterError: if none were.
        """
        if not self.corpus.held_out:
            raise ParameterError("no speaker was kept out, so there is nothing to evaluate on; raise held_out")
        batches = self._batches(self.corpus.held_out, replace(self.plan.batches, crop=0.0, clean=1.0))
        return evaluate(self.distiller.student, batches, self.corpus.utterances, self.alphabet, self.device)

    def _batches(self, items: Sequence[int], config: BatchConfig) -> Batches:
        # The dirt is made at the rate of what it falls on.
        augmentation = replace(config.augmentation, sample_rate=self._encoder.sample_rate)
        return Batches(
            self._encoder,
            self._audio,
            items,
            replace(config, augmentation=augmentation),
            teacher=self._teacher,
            vectors=self.corpus.vectors,
            labels=self.corpus.labels,
        )

    def _open_teacher(self) -> Encoder | None:
        if self.plan.teacher is None:
            return None
        layers = ",".join(map(str, self.plan.tasks.layers))
        return load_encoder(self.plan.teacher, layers, device=self.device, **self.plan.teacher_options)

    def _teacher_frames(self, teacher: Encoder, tell: Callable[[str], None]) -> TeacherFrames:
        tell(f"states of {self.plan.teacher}")
        extractor = Extractor(teacher, ExtractConfig(pool="none"))
        # Ids that are the same whatever the manifests call an utterance, and wherever they list it.
        ids = [utterance_key(one) for one in self.corpus.utterances]
        named = {key: replace(one, id=key, labels={}) for key, one in zip(ids, self.corpus.utterances, strict=True)}
        found = extractor.survey(list(named.values()))
        with Progress(found.hours) as progress:
            extractor.run(found, self.out / TEACHER, progress.update)
        store = Store(self.out / TEACHER)
        refuse_recordings([f"{named[row['id']].path!r}: {row['reason']}" for row in store.errors()], len(named))
        return TeacherFrames(store, ids)

    def _begin(self, student: str) -> int | None:
        """Steps of the run that this directory holds, or that are asked for; None if they are to be measured."""
        settings, file = self._settings(student), self.out / PLAN
        if not file.exists():
            self._write_plan(settings, self.plan.steps)
            return self.plan.steps
        known = json.loads(file.read_text())
        asked = {} if self.plan.steps is None or known["steps"] is None else {"steps": self.plan.steps}
        refuse_differences(self.out, {**known["settings"], "steps": known["steps"]}, {**settings, **asked})
        return known["steps"] or self.plan.steps

    def _write_plan(self, settings: dict[str, Any], steps: int | None) -> None:
        write_text(self.out / PLAN, json.dumps({"settings": settings, "steps": steps}, indent=1) + "\n")

    def _settings(self, student: str) -> dict[str, Any]:
        """What decides the result, by dotted names: the plan, and a digest of what its files hold."""
        plan = json.loads(json.dumps(asdict(self.plan)))
        plan["batches"]["augmentation"] = self.plan.batches.augmentation.describe()
        for name in ("steps", "minutes"):
            del plan[name]
        del plan["training"]["checkpoint_seconds"]
        corpus = self.corpus
        rows = [(utterance_key(one), one.labels.get("speaker"), one.labels.get("text")) for one in corpus.utterances]
        digest = hashlib.blake2b(f"{student}{rows}".encode(), digest_size=16)
        for vector in corpus.vectors.values():
            digest.update(vector.tobytes())
        return {**_flat(plan), "contents of the files": digest.hexdigest()}

    def _steps_in_time(self, student: Student, batches: Batches, tell: Callable[[str], None]) -> int:
        before = copy.deepcopy(student.state_dict())
        times = [time.perf_counter()]
        with TemporaryDirectory(prefix="speechfeat-") as folder:
            trial = Distiller(student, batches, self.plan.training, TIMED_STEPS, folder, device=self.device)
            trial.run(lambda *_: times.append(time.perf_counter()))
        student.load_state_dict(before)
        # The first steps wait for the workers to start.
        seconds = float(np.mean(np.diff(times)[TIMED_STEPS // 2 :]))
        tell(f"{seconds:.2f} s a step")
        return max(1, round(self.plan.minutes * 60 / seconds))


def _lock(file: Path) -> FileLock:
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ParameterError(
            f"{file.parent.parent} is in use by another run; wait for it, or choose another directory"
        ) from None
    return lock


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value})
    return flat


def _standardise(model: Any, batches: Batches) -> None:
    some = [batches.make(step) for step in range(min(4, batches.steps_per_epoch()))]
    rows = [row[:size].flatten() for batch in some for row, size in zip(batch.inputs, batch.sizes, strict=True)]
    values = torch.cat(rows)
    fold_scale(model, values.mean().item(), values.std().item())
