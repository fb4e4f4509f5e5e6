"""Runs over a corpus into a store, whatever the corpus is made of."""

import math
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from speechfeat.config import RunConfig
from speechfeat.corpus import shard
from speechfeat.encoders.base import BaseEncoder
from speechfeat.errors import InputError, StoreError
from speechfeat.media import Medium
from speechfeat.memory import keep_freed_memory
from speechfeat.planning import Survey, Work, plan_shards
from speechfeat.pooling import pooled_dim
from speechfeat.running import Observer, Run, Summary
from speechfeat.store import Store
from speechfeat.store_config import STORE_JSON, disk_errors, free_disk_bytes
from speechfeat.store_shards import printable
from speechfeat.store_writer import StoreWriter
from speechfeat.threads import default_readers, enough_readers, fastest_threads, is_worth_measuring
from speechfeat.types import Utterance

# Of the parquet columns beside the embedding and of the safetensors header, for one utterance: 292 in a store of
# 20,000 clips.
ROW_BYTES = 300


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        utterances: to be done.
        hours: of audio, to be done.
        bytes: that they will take on disk.
        free_bytes: on that disk now.
    """

    utterances: int
    hours: float
    bytes: int
    free_bytes: int


class BaseExtractor(ABC):
    """One encoder and one configuration, ready to run over a corpus into a store.

    Args:
        encoder: what runs.
        config: what to extract.
        medium: what the corpus is made of.

    Attributes:
        stop: set it, from a signal handler or another thread, to end a run after the batch in flight.
        batch_seconds: of padded input in a batch, of the encoder's frame grid.
    """

    # What the inputs are called, what is compared of them, the packages whose versions are recorded, and whether the
    # frames are tokens.
    inputs = "recordings"
    compared = "size, start or end"
    packages: tuple[str, ...] = ("speechfeat", "torch", "transformers")
    has_tokens = False

    def __init__(self, encoder: BaseEncoder, config: RunConfig, medium: Medium) -> None:
        self.encoder = encoder
        self.config = config
        self.medium = medium
        self.stop = threading.Event()
        if config.num_threads is not None:
            encoder.use_threads(config.num_threads)
        self.batch_seconds = config.seconds_of_batch or encoder.default_batch_seconds()
        self._num_readers = config.num_workers
        self._speed: float | None = None

    @property
    def bytes_per_second(self) -> float:
        """Bytes of stored frames for a second of audio."""
        if not self.config.frames:
            return 0.0
        width = 2 if self.config.store_dtype == "float16" else 4
        return self.encoder.grid.frame_rate * self.encoder.dim * len(self.encoder.selection.indices) * width

    @property
    def embedding_shape(self) -> tuple[int, ...] | None:
        """Of an utterance's embedding: `[D']`, `[L, D']`, or None without pooling."""
        if self.config.pooling == "none":
            return None
        dim = pooled_dim(self.config.pooling, self.encoder.dim)
        return (len(self.encoder.selection.indices), dim) if self.encoder.selection.stacked else (dim,)

    def share(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """This machine's share of a corpus."""
        return shard(utterances, self.config.shard) if self.config.shard else list(utterances)

    @abstractmethod
    def discover(self, source: str | os.PathLike, **options: Any) -> list[Utterance]:
        """The utterances of a source, or of this machine's share of it."""

    @abstractmethod
    def survey(self, utterances: Sequence[Utterance]) -> Survey:
        """How long each utterance is, and which cannot be opened."""

    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """What decides the features beside the encoder and the pooling, as JSON values."""

    @abstractmethod
    def changed(self, works: Sequence[Work], writer: StoreWriter) -> list[Utterance]:
        """Utterances that the store holds and that are not any more what it was made of."""

    def forecast(self, found: Survey, out: str | os.PathLike, done: Mapping[str, Any] | None = None) -> Forecast:
        """What running over `found` into `out` will take."""
        works = [work for work in found.works if work.utterance.id not in (done or {})]
        seconds = sum(work.seconds for work in works)
        row = ROW_BYTES + 4 * math.prod(self.embedding_shape or (0,))
        size = int(seconds * self.bytes_per_second) + len(works) * row
        return Forecast(len(works), seconds / 3600, size, free_disk_bytes(out))

    def expected_seconds(self, found: Survey, done: Mapping[str, Any] | None = None) -> float:
        """How long the run will take, by the speed of the encoder on a few seconds of noise."""
        cost = self._cost(found, done or {})
        return cost / self._measured_speed() if cost else 0.0

    def num_readers(self, found: Survey, done: Mapping[str, Any] | None = None) -> int:
        """Threads that read: those asked for, or as many as keep up with the encoder."""
        if self._num_readers is None and is_worth_measuring(self.encoder, self._cost(found, done or {})):
            works = [work for work in found.works if work.utterance.id not in (done or {})]
            self._num_readers = enough_readers(self.encoder, self.medium, works, self._measured_speed())
        return self._num_readers or default_readers()

    def _cost(self, found: Survey, done: Mapping[str, Any]) -> float:
        return sum(self.encoder.cost(work.seconds) for work in found.works if work.utterance.id not in done)

    def _measured_speed(self) -> float:
        if self._speed is None:
            self._speed = self.encoder.measure_speed()
        return self._speed

    def choose_threads(self, found: Survey) -> None:
        """Let the encoder take the threads that it is fastest with, where none are asked for and it is worth trying."""
        on_cpu = self.encoder.device.type == "cpu" and self.encoder.num_weights > 0
        if on_cpu and self.config.num_threads is None and is_worth_measuring(self.encoder, self._cost(found, {})):
            self._speed = fastest_threads(self.encoder)
            self.batch_seconds = self.config.seconds_of_batch or self.encoder.default_batch_seconds()

    def check_room(self, forecast: Forecast, out: str | os.PathLike) -> None:
        """Refuse a run that the disk cannot hold.

        Raises:
            StoreError: with what is needed and what is free.
        """
        if forecast.bytes > forecast.free_bytes:
            raise StoreError(
                f"the features need about {forecast.bytes / 2**30:.2f} GiB and {os.fspath(out)!r} has "
                f"{forecast.free_bytes / 2**30:.2f} GiB free; use another disk, --no-frames, or fewer layers"
            )

    def configuration(self) -> dict[str, Any]:
        """What decides the features, recorded in the store and compared when it is opened again."""
        return {"encoder": self.encoder.describe(), "pool": self.config.pooling, **self.definition()}

    def information(self) -> dict[str, Any]:
        """What is recorded in the store for the reader."""
        return {
            "model": self.encoder.name,
            "device": str(self.encoder.device),
            "batch_seconds": self.batch_seconds,
            "threads": self.encoder.num_threads,
            "versions": {name: version(name) for name in self.packages},
        }

    def open(self, out: str | os.PathLike, found: Survey) -> StoreWriter:
        """Open the store for writing, and refuse if inputs changed since it was made.

        Raises:
            StoreError: if it is of another configuration, in use, or holds other recordings under the same ids, or
                if the disk cannot hold a new one.
        """
        with disk_errors(f"open the store {os.fspath(out)}"):
            begun = (Path(out) / STORE_JSON).exists()
        if not begun:  # a store that the disk cannot hold is refused before there is one
            self.check_room(self.forecast(found, out), out)
        if not begun or self.config.overwrite:
            self.choose_threads(found)
        labels = sorted({name for work in found.works for name in work.utterance.labels})
        writer = StoreWriter(
            out,
            self.configuration(),
            self.information(),
            prefix=self.config.shard.replace("/", "of") + "-" if self.config.shard else "",
            label_names=labels,
            embedding_shape=self.embedding_shape,
            store_dtype=self.config.store_dtype,
            frames=self.config.frames,
            tokens=self.has_tokens and self.config.frames,
            overwrite=self.config.overwrite,
        )
        try:
            self._check_unchanged(found.works, writer)
        except StoreError:
            writer.abort()
            raise
        # A resumed run makes the batches of the run that began the store, and rounds as it did where it has the cores.
        recorded = writer.info.get("threads")
        if self.config.num_threads is None and recorded not in (None, self.encoder.num_threads):
            self.encoder.use_threads(min(recorded, torch.get_num_threads()))
            self._speed = None
        if self.config.seconds_of_batch is None:
            self.batch_seconds = writer.info.get("batch_seconds", self.batch_seconds)
        return writer

    def run(
        self, found: Survey, out: str | os.PathLike | StoreWriter, observer: Observer = lambda seconds, reasons: None
    ) -> Summary:
        """Extract what the store does not hold yet.

        Args:
            found: from `survey`.
            out: the store's directory, or its open writer.
            observer: called with the seconds of input that were just done and the reasons of new failures.

        Raises:
            TooManyErrors: when more than `max_errors` inputs failed.
            StoreError: when the store cannot be written.
        """
        keep_freed_memory()
        writer = out if isinstance(out, StoreWriter) else self.open(out, found)
        with writer:
            self.check_room(self.forecast(found, writer.path, writer.done), writer.path)
            plan = plan_shards(
                found.works,
                self.encoder,
                batch_seconds=self.batch_seconds,
                max_batch_size=self.config.batch_size,
                bytes_per_second=self.bytes_per_second,
                shard_seconds=self.medium.shard_seconds,
            )
            num_readers = self.num_readers(found, writer.done)
            summary = Run(
                self.encoder,
                self.config,
                plan,
                found,
                writer,
                medium=self.medium,
                num_readers=num_readers,
                observer=observer,
                stop=self.stop,
            ).run()
        summary.failed = len(writer.failed)
        return summary

    def _check_unchanged(self, works: Sequence[Work], writer: StoreWriter) -> None:
        changed = self.changed([work for work in works if work.utterance.id in writer.done], writer)
        if changed:
            raise StoreError(
                f"{len(changed)} inputs differ in {self.compared} from those that the store {writer.path} was made of, "
                f"first {changed[0].id!r} ({printable(changed[0].path)}); use another -o, or --overwrite to start over"
            )


def embed_found(extractor: BaseExtractor, found: Survey, error_class: type[InputError]) -> tuple[list[str], np.ndarray]:
    """Ids, sorted, and embeddings of what was found, by way of a store that is removed again.

    Raises:
        InputError: of the class given, if not one could be done; the others are left out with a warning.
    """
    with TemporaryDirectory(prefix="speechfeat-") as folder:
        extractor.run(found, folder)
        store = Store(folder)
        failures = store.errors()
        if failures:
            first = f"{failures[0]['id']}: {failures[0]['reason']}"
            if not len(store):
                raise error_class(f"none of {len(failures)} {extractor.inputs} could be done; {first}")
            left_out = f"{len(failures)} {extractor.inputs} failed and are left out, the first is {first}"
            warnings.warn(left_out, stacklevel=3)
        return store.embeddings()
