"""The path on one machine: a source of utterances in, a store out."""

import math
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from speechfeat.audio import decoder_versions
from speechfeat.config import ExtractConfig
from speechfeat.corpus import discover, shard
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.encoders.loading import as_encoder
from speechfeat.errors import AudioError, StoreError
from speechfeat.memory import keep_freed_memory
from speechfeat.planning import Survey, Work, plan_shards, survey
from speechfeat.pooling import check_pool, pooled_dim
from speechfeat.running import Observer, Run, Summary
from speechfeat.store import Store
from speechfeat.store_config import STORE_JSON, disk_errors, free_disk_bytes
from speechfeat.store_directory import Done
from speechfeat.store_shards import printable
from speechfeat.store_writer import StoreWriter
from speechfeat.types import Utterance

# Of the parquet columns beside the embedding and of the safetensors header, for one utterance: 292 in a store of
# 20,000 clips.
ROW_BYTES = 300
# The length by a header and that of the decoded samples may differ by a codec's frame.
SAME_SECONDS = 0.1


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


class Extractor:
    """One encoder and one configuration, ready to run over a corpus into a store.

    Args:
        encoder: from `load_encoder` or `wrap_module`.
        config: what to extract.

    Attributes:
        stop: set it, from a signal handler or another thread, to end a run after the batch in flight.
        batch_seconds: of padded audio in a batch.

    Example:
        extractor = Extractor(load_encoder("wavlm-base-plus"), ExtractConfig(pool="mean+std"))
        found = extractor.survey(extractor.discover("recordings"))
        summary = extractor.run(found, "features")
    """

    def __init__(self, encoder: Encoder, config: ExtractConfig | None = None) -> None:
        self.encoder = encoder
        self.config = config or ExtractConfig()
        self.stop = threading.Event()
        self.batch_seconds = self.config.batch_seconds or encoder.default_batch_seconds()

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
        if self.config.pool == "none":
            return None
        dim = pooled_dim(check_pool(self.config.pool), self.encoder.dim)
        return (len(self.encoder.selection.indices), dim) if self.encoder.selection.stacked else (dim,)

    def discover(self, source: str | os.PathLike, **options: Any) -> list[Utterance]:
        """The utterances of a source, or of this machine's share of it; see `corpus.discover`."""
        utterances = discover(source, channel=self.config.channel, **options)
        return shard(utterances, self.config.shard) if self.config.shard else utterances

    def survey(self, utterances: Sequence[Utterance]) -> Survey:
        """Read the headers of the recordings; see `planning.survey`."""
        return survey(utterances, num_workers=max(4, self.config.num_workers))

    def forecast(self, found: Survey, out: str | os.PathLike, done: Mapping[str, Any] | None = None) -> Forecast:
        """What running over `found` into `out` will take."""
        works = [work for work in found.works if work.utterance.id not in (done or {})]
        seconds = sum(work.seconds for work in works)
        row = ROW_BYTES + 4 * math.prod(self.embedding_shape or (0,))
        size = int(seconds * self.bytes_per_second) + len(works) * row
        return Forecast(len(works), seconds / 3600, size, free_disk_bytes(out))

    def expected_seconds(self, found: Survey, done: Mapping[str, Any] | None = None) -> float:
        """How long the run will take, by the speed of the encoder on a few seconds of noise."""
        cost = sum(self.encoder.cost(work.seconds) for work in found.works if work.utterance.id not in (done or {}))
        return cost / self.encoder.measure_speed() if cost else 0.0

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
        chunking = self.config.chunking
        return {
            "encoder": self.encoder.describe(),
            "grid": self.encoder.grid.describe(),
            "pool": self.config.pool if self.config.pool == "none" else check_pool(self.config.pool),
            "channel": self.config.channel,
            "chunking": {"length": chunking.length, "overlap": chunking.overlap, "above": chunking.above},
            **({"augmentation": asdict(self.config.augmentation)} if self.config.augmentation else {}),
        }

    def information(self) -> dict[str, Any]:
        """What is recorded in the store for the reader."""
        packages = ("speechfeat", "torch", "torchaudio", "transformers", "librosa")
        return {
            "model": self.encoder.name,
            "device": str(self.encoder.device),
            "batch_seconds": self.batch_seconds,
            "versions": {**{name: version(name) for name in packages}, **decoder_versions()},
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
            overwrite=self.config.overwrite,
        )
        try:
            _check_unchanged(found.works, writer)
        except StoreError:
            writer.abort()
            raise
        # A resumed run makes the batches of the run that began the store.
        if self.config.batch_seconds is None:
            self.batch_seconds = writer.info.get("batch_seconds", self.batch_seconds)
        return writer

    def run(
        self, found: Survey, out: str | os.PathLike | StoreWriter, observer: Observer = lambda seconds, reasons: None
    ) -> Summary:
        """Extract what the store does not hold yet.

        Args:
            found: from `survey`.
            out: the store's directory, or its open writer.
            observer: called with the seconds of audio that were just done and the reasons of new failures.

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
            )
            summary = Run(self.encoder, self.config, plan, found, writer, observer=observer, stop=self.stop).run()
        summary.failed = len(writer.failed)
        return summary


def _check_unchanged(works: Sequence[Work], writer: StoreWriter) -> None:
    done = writer.done
    changed = [
        work.utterance for work in works if work.utterance.id in done and _differs(work, done[work.utterance.id])
    ]
    if changed:
        raise StoreError(
            f"{len(changed)} inputs differ in size, start or end from those that the store {writer.path} was made of, "
            f"first {changed[0].id!r} ({printable(changed[0].path)}); use another -o, or --overwrite to start over"
        )


def _differs(work: Work, done: Done) -> bool:
    """Whether a recording has another size, or an utterance is another stretch of it."""
    # A copy of another speed has another length.
    is_segment = work.utterance.duration is not None and not work.utterance.copy
    moved = work.utterance.start != done.start or (is_segment and abs(work.seconds - done.duration) > SAME_SECONDS)
    return work.size != done.size or moved


def extract_features(
    source: str | os.PathLike,
    out: str | os.PathLike,
    model: str | nn.Module | Encoder = DEFAULT_MODEL,
    layers: Any = "penultimate",
    *,
    device: str = "auto",
    dtype: str = "auto",
    encoder_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Store:
    """Extract the features of a directory, list or manifest into a store, or go on where a store ends.

    Args:
        source: see `corpus.discover`.
        out: the store's directory.
        model: as for `load_encoder`, or an encoder, which has its layers, device and dtype already.
        layers: as for `load_encoder`.
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.
        encoder_options: further arguments of `load_encoder`.
        options: fields of `ExtractConfig`.

    Raises:
        SpeechfeatError: for a bad call; a bad recording is a line in the store's `errors.jsonl`.
    """
    encoder = as_encoder(model, layers, device=device, dtype=dtype, **(encoder_options or {}))
    extractor = Extractor(encoder, ExtractConfig(**options))
    extractor.run(extractor.survey(extractor.discover(source)), out)
    return Store(out)


def embed(
    source: str | os.PathLike,
    model: str | nn.Module | Encoder = DEFAULT_MODEL,
    pool: str = "mean",
    layers: Any = "penultimate",
    *,
    device: str = "auto",
    dtype: str = "auto",
    encoder_options: Mapping[str, Any] | None = None,
    channel: str | int = "mean",
) -> tuple[list[str], np.ndarray]:
    """One vector for every recording of a directory, list or manifest, in memory.

    Args:
        source: see `corpus.discover`.
        model: as for `load_encoder`, or an encoder, which has its layers, device and dtype already.
        pool: "mean", "std", "mean+std", "max", "first" or "last".
        layers: as for `load_encoder`.
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.
        encoder_options: further arguments of `load_encoder`.
        channel: "mean", "all", or the number of a channel.

    Returns:
        ids, sorted, and `[n, D']` or `[n, L, D']` float32. A recording that fails is left out, with a warning that
        names it; none left is an AudioError.
    """
    encoder = as_encoder(model, layers, device=device, dtype=dtype, **(encoder_options or {}))
    extractor = Extractor(encoder, ExtractConfig(pool=pool, frames=False, channel=channel))
    with TemporaryDirectory(prefix="speechfeat-") as folder:
        extractor.run(extractor.survey(extractor.discover(source)), folder)
        store = Store(folder)
        failures = store.errors()
        if failures:
            first = f"{failures[0]['id']}: {failures[0]['reason']}"
            if not len(store):
                raise AudioError(f"none of {len(failures)} recordings of {os.fspath(source)!r} could be done; {first}")
            warnings.warn(f"{len(failures)} recordings failed and are left out, the first is {first}", stacklevel=2)
        return store.embeddings()
