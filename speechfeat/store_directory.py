"""The directory of a store as its writers see it: locks, leftovers, what is done and what failed.

A lock belongs to the operating system: it is free again when its holder ends, however that ends.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from speechfeat.errors import ParameterError, StoreError
from speechfeat.store_config import (
    ERRORS_JSONL,
    SHARDS,
    STORE_JSON,
    StoreConfig,
    differences,
    disk_errors,
    read_config,
    write_config,
    write_text,
)
from speechfeat.store_shards import Failure, read_rows

# The dash keeps the names of two writers apart: "1-00000" is no shard of the writer without a prefix.
PREFIX = r"(\w+-)?"
SHARD_FILE = PREFIX + r"\d{5,}(\.part\.tmp|\.(safetensors|parquet)(\.tmp)?)"
SHARED_LOCK = ".lock.shared"
SHARED_TIMEOUT = 60.0


class Done(NamedTuple):
    """What a committed utterance was made of.

    Attributes:
        path: of the recording, as stored.
        size: of its file, in bytes.
        start: seconds into it.
        duration: seconds.
    """

    path: str
    size: int
    start: float
    duration: float


class StoreDirectory:
    """A store opened for writing, alone among the writers with its prefix.

    Args:
        path: of the store; made where there is none.
        config: that the store must have.
        prefix: of the names of this writer's shards.
        overwrite: remove what the store holds.

    Attributes:
        shards: directory of the shards.
        number: of the next shard.
        done: committed utterances, by id.
        failed: committed failures of inputs not done later, by id.

    Raises:
        StoreError: if the directory is in use, of another configuration, not a store, or cannot be written.
        ParameterError: if the prefix is not allowed.
    """

    def __init__(self, path: Path, config: StoreConfig, prefix: str = "", overwrite: bool = False) -> None:
        if not re.fullmatch(PREFIX, prefix):
            raise ParameterError(f"prefix={prefix!r} must be a word with a dash at its end, such as '3of8-'")
        if prefix and overwrite:
            raise ParameterError(
                f"overwrite would also remove the shards of the writers beside prefix={prefix!r}; "
                f"remove {path} before any of them starts"
            )
        self.path, self.shards = path, path / SHARDS
        self.number = 0
        self.done: dict[str, Done] = {}
        self.failed: dict[str, Failure] = {}
        self._config, self._prefix = config, prefix
        self._seen: set[str] = set()
        _check_directory(path)
        self._lock = _hold(path / f".lock-{prefix}".rstrip("-"), path)
        try:
            self._open(overwrite)
        except BaseException:
            self._lock.release()
            raise

    @property
    def info(self) -> dict[str, Any]:
        """For the record, as the writer that made the store gave it."""
        return self._config.info

    @property
    def name(self) -> str:
        """Of the next shard."""
        return f"{self._prefix}{self.number:05d}"

    def part(self, number: int) -> Path:
        """File for an utterance that arrives in pieces."""
        return self.shards / f"{self._prefix}{number:05d}.part.tmp"

    def refresh(self) -> None:
        """Take in the shards not seen yet, of this writer and of those beside it; derive `errors.jsonl`."""
        with self._together():
            for file in sorted(self.shards.glob("*.parquet")):
                if file.name not in self._seen:
                    self._take_in(file)
            failures = (asdict(self.failed[key]) for key in sorted(self.failed))
            text = "".join(json.dumps(failure, ensure_ascii=False) + "\n" for failure in failures)
            errors = self.path / ERRORS_JSONL
            if not errors.exists() or errors.read_text(encoding="utf-8") != text:
                write_text(errors, text)

    def remove_leftovers(self) -> None:
        """Remove what this writer, or one of its prefix before it, did not commit."""
        for ending in (".safetensors.tmp", ".parquet.tmp", ".part.tmp"):
            for name in self._own(ending):
                (self.shards / (name + ending)).unlink()
        for name in set(self._own(".safetensors")) - set(self._own(".parquet")):
            (self.shards / f"{name}.safetensors").unlink()

    def release(self) -> None:
        """Let the next writer in."""
        self._lock.release()

    def _open(self, overwrite: bool) -> None:
        with self._together(), disk_errors(f"open the store {self.path}"):
            found = read_config(self.path) if (self.path / STORE_JSON).exists() else None
            if overwrite:
                self._remove_everything()
            elif found and (fields := differences(found, self._config)):
                raise StoreError(
                    f"store {self.path} was made with another configuration ({fields}); "
                    "choose another directory (-o) or replace the store (--overwrite)"
                )
            if overwrite or not found:
                write_config(self.path, self._config)
            else:
                self._config = found
            self.shards.mkdir(exist_ok=True)
            self.remove_leftovers()
        numbers = [int(name.removeprefix(self._prefix)) for name in self._own(".parquet")]
        self.number = max(numbers, default=-1) + 1
        self.refresh()

    def _own(self, ending: str) -> list[str]:
        """Names, without the ending, of this writer's files."""
        pattern = re.compile(rf"({re.escape(self._prefix)}\d{{5,}}){re.escape(ending)}")
        return [match[1] for file in self.shards.iterdir() if (match := pattern.fullmatch(file.name))]

    def _remove_everything(self) -> None:
        """Remove what a store consists of and nothing else; `store.json` is replaced later."""
        for lock in self.path.glob(".lock-?*"):
            _hold(lock, self.path).release()
        for file in self.shards.iterdir() if self.shards.is_dir() else ():
            if re.fullmatch(SHARD_FILE, file.name):
                file.unlink()
        (self.path / ERRORS_JSONL).unlink(missing_ok=True)

    def _take_in(self, file: Path) -> None:
        table, failures = read_rows(file, self._config.fingerprint, ("id", *Done._fields))
        frames = file.with_suffix(".safetensors")
        if self._config.config["store"]["frames"] and table.num_rows and not frames.exists():
            raise StoreError(f"shard {file} has lost {frames.name}; remove it and run again to do it anew")
        ids, *columns = (table.column(name).to_pylist() for name in ("id", *Done._fields))
        self.done.update(zip(ids, map(Done, *columns), strict=True))
        self.failed.update((failure.id, failure) for failure in failures)
        for key in self.failed.keys() & self.done.keys():
            del self.failed[key]
        self._seen.add(file.name)

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What writers with different prefixes must do one after another."""
        lock = _hold(self.path / SHARED_LOCK, self.path, SHARED_TIMEOUT)
        try:
            yield
        finally:
            lock.release()


def _check_directory(path: Path) -> None:
    """Make the directory; refuse one that holds anything but a store, before any file is written to it."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file; a store is a directory, choose another name")
    with disk_errors(f"make the store {path}"):
        path.mkdir(parents=True, exist_ok=True)
        names = {file.name for file in path.iterdir()}
    foreign = sorted(name for name in names - {f"{STORE_JSON}.tmp"} if not name.startswith(".lock"))
    if foreign and STORE_JSON not in names:
        raise StoreError(f"{path} is not empty and is no store (it holds {foreign[0]!r}); choose another")


def _hold(file: Path, store: Path, timeout: float = 0.0) -> FileLock:
    """Take a lock, at once or within `timeout` seconds."""
    lock = FileLock(file, thread_local=False)
    with disk_errors(f"lock the store {store}"):
        try:
            lock.acquire(timeout=timeout)
        except Timeout as error:
            raise StoreError(
                f"store {store} is being written by another run; wait for it or choose another directory"
            ) from error
    return lock
