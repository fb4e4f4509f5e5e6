"""The configuration of a store: `store.json`, its fingerprint, its comparison.

```
{"format": 1, "config": {...}, "info": {...}, "fingerprint": "..."}
```

`config` decides the features and is what gets compared; `info` (versions, date) is only for the record. Files
get their final name when they are whole and on the disk.
"""

import ctypes
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from speechfeat.errors import ParameterError, StoreError

FORMAT = 1
STORE_JSON = "store.json"
ERRORS_JSONL = "errors.jsonl"
SHARDS = "shards"

# Of Linux's fcntl.h: begin to write, wait for nothing.
SYNC_FILE_RANGE_WRITE = 2


class StoreConfig(NamedTuple):
    """The content of `store.json`.

    Attributes:
        config: what decides the features; nested, JSON values only.
        info: for the record.
    """

    config: dict[str, Any]
    info: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Equal for equal configurations, whatever the order of their fields."""
        canonical = json.dumps(self.config, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def make_config(config: Mapping[str, Any], info: Mapping[str, Any] | None = None) -> StoreConfig:
    """A configuration as it reads back from disk (tuples become lists), so that comparing it is exact.

    Raises:
        ParameterError: if a value is not JSON.
    """
    try:
        parts = [json.loads(json.dumps(dict(part or {}), allow_nan=False)) for part in (config, info)]
    except (TypeError, ValueError) as error:
        raise ParameterError(f"the configuration of a store must hold JSON values only: {error}") from error
    return StoreConfig(*parts)


def read_config(path: Path) -> StoreConfig:
    """Read `store.json` of the store at `path`.

    Raises:
        StoreError: if there is none, or it is damaged, edited or of another format.
    """
    file = path / STORE_JSON
    if not path.is_dir():
        raise StoreError(f"{path} is not a store: there is no such directory")
    if not file.is_file():
        raise StoreError(f"{path} is not a store: it has no {STORE_JSON}")
    with disk_errors(f"read {file}"):
        content = file.read_bytes()
    try:
        record = json.loads(content)
        found = StoreConfig(record["config"], record["info"])
        format_, recorded = record["format"], record["fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{file} is damaged or not of speechfeat ({type(error).__name__}: {error}); "
            "restore it or use another directory"
        ) from error
    if format_ != FORMAT:
        raise StoreError(f"{file} has format {format_!r}, this version reads {FORMAT}; install the one that wrote it")
    if recorded != found.fingerprint:
        raise StoreError(
            f"{file} was edited or damaged: its fingerprint is {recorded!r}, its configuration gives "
            f"{found.fingerprint!r}; restore it or use another directory"
        )
    return found


def write_config(path: Path, config: StoreConfig) -> None:
    """Write `store.json` of the store at `path`, atomically."""
    record = {"format": FORMAT, **config._asdict(), "fingerprint": config.fingerprint}
    write_text(path / STORE_JSON, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def differences(old: StoreConfig, new: StoreConfig) -> str:
    """The fields in which two configurations differ: `layers: "last" -> "penultimate", ...`; empty if none."""
    before, after = dict(_flatten(old.config)), dict(_flatten(new.config))
    fields = sorted(before.keys() | after.keys())
    return ", ".join(
        f"{field}: {before.get(field, 'absent')} -> {after.get(field, 'absent')}"
        for field in fields
        if before.get(field) != after.get(field)
    )


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(item, ensure_ascii=False)


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn what the operating system refuses into a StoreError that says what was being done."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {doing}: {error.strerror or error}") from error


def publish(temporary: Path, final: Path) -> None:
    """Give a finished file its name; once this returns, neither a kill nor a power cut takes it back."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
    sync_directory(final.parent)


def write_behind(file: BinaryIO, start: int, num_bytes: int) -> None:
    """Let the disk begin with bytes of a file while more are made, so that `publish` waits for the last ones only.

    Nothing is promised, and no error is taken from `publish`. Only Linux has this call; elsewhere nothing happens.
    """
    if begin := _sync_file_range():
        file.flush()
        begin(file.fileno(), start, num_bytes, SYNC_FILE_RANGE_WRITE)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """The system's call, where there is one."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; Windows has no such call and needs none."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(file: Path, text: str) -> None:
    """Write a small file, whole or not at all."""
    temporary = file.with_name(file.name + ".tmp")
    with disk_errors(f"write {file}"):
        temporary.write_text(text, encoding="utf-8")
        publish(temporary, file)


def free_disk_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes free on the disk that holds `path`, or will once it is made."""
    place = Path(path).absolute()
    with disk_errors(f"find the disk of {path}"):
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free
