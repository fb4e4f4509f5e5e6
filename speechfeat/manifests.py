"""Rows of lists, tables, JSON lines and Kaldi data: what they say of each utterance, with the line that says it."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from speechfeat.errors import ParameterError

LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})
JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
MANIFEST_SUFFIXES = LIST_SUFFIXES | JSON_SUFFIXES | {".csv", ".tsv"}

# Columns by what they hold, the first that a manifest has is taken: ours, then those of NeMo, Hugging Face,
# SpeechBrain, Kaldi and EmoBox. Compared in lower case. The rest of the columns are labels.
_COLUMNS = {
    "path": (
        *("path", "audio_filepath", "audio_path", "file_path", "filepath", "file", "file_name", "filename"),
        *("audio", "wav", "wav_path", "wav_file"),
    ),
    "id": ("id", "utt_id", "utterance_id", "utt", "key", "segment_id"),
    "start": ("start", "offset", "start_time"),
    "end": ("end", "end_time"),
    "duration": ("duration",),
}

# Python's own limit on a cell, 128 KiB, is less than a chapter.
MAX_CELL = 2**30

# Files of a Kaldi data directory whose second field is a label of the utterance named in the first.
_KALDI_LABELS = {"text": "text", "utt2spk": "speaker", "utt2lang": "lang", "utt2gender": "gender"}


@dataclass(frozen=True)
class Row:
    """An utterance as a manifest gives it.

    Attributes:
        path: as written.
        place: for messages, such as "line 3".
        id: None where the manifest has none.
        start: seconds; None is not given.
        duration: seconds; None is to the end of the recording.
        channel: None where the manifest has none.
        labels: the other columns.
    """

    path: str
    place: str
    id: str | None = None
    start: float | None = None
    duration: float | None = None
    channel: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def read_manifest(path: Path) -> list[Row]:
    """Rows of a list (`.txt`), a table (`.csv`, `.tsv`) or JSON lines, by the suffix of the file.

    Raises:
        ParameterError: if it cannot be read, is not UTF-8, or a line of it is malformed.
    """
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES:
        return [Row(line, place) for place, line in _lines(path)]
    return [manifest_row(path, place, cells) for place, cells in read_cells(path, needed=_COLUMNS["path"])]


def read_cells(path: Path, needed: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Cells of a table or of JSON lines by column, each with its place, such as "line 3".

    Args:
        path: of the file.
        needed: names of which a table must have one as a column, in any case; the first is the one to recommend.

    Raises:
        ParameterError: if it cannot be read, is not UTF-8, or a line of it is malformed.
    """
    return _json_rows(path) if path.suffix.lower() in JSON_SUFFIXES else _table_rows(path, needed)


def read_pairs(path: Path) -> list[tuple[str, str, str]]:
    """Place, id and value of each line of a Kaldi file.

    Raises:
        ParameterError: if it cannot be read, or a line has no value (only that of a file named `text` may be empty).
    """
    return [(place, *_pair(path, place, line)) for place, line in _lines(path)]


def read_kaldi_labels(folder: Path) -> dict[str, dict[str, str]]:
    """Labels of a Kaldi data directory, by their name and by utterance.

    Raises:
        ParameterError: as `read_pairs`.
    """
    return {
        label: {id: value for _, id, value in read_pairs(folder / name)}
        for name, label in _KALDI_LABELS.items()
        if (folder / name).is_file()
    }


def read_kaldi(scp: Path) -> list[Row]:
    """Rows of a Kaldi `wav.scp`, or of the `segments` beside it, with the labels beside it.

    Raises:
        ParameterError: if a file cannot be read, a line is malformed, or a recording is a command or an archive.
    """
    labels = read_kaldi_labels(scp.parent)
    recordings: dict[str, tuple[str, str]] = {}
    for place, line in _lines(scp):
        id, path = _pair(scp, place, line)
        if path.endswith("|") or path == "-" or re.search(r"\.ark:\d+$", path):
            raise ParameterError(
                f"{place} of {str(scp)!r} is a command or archive, {path!r}, which is not run;"
                " write the audio to files (wav-copy) and list those"
            )
        if id in recordings:
            raise ParameterError(f"{recordings[id][1]} and {place} of {str(scp)!r} have the same id {id!r}")
        recordings[id] = (path, place)
    segments = scp.with_name("segments")
    if not segments.is_file():
        return [Row(path, place, id, labels=_labels_of(id, labels)) for id, (path, place) in recordings.items()]
    return [_segment(segments, place, line, recordings, labels) for place, line in _lines(segments)]


def _segment(
    file: Path,
    place: str,
    line: str,
    recordings: Mapping[str, tuple[str, str]],
    labels: Mapping[str, Mapping[str, str]],
) -> Row:
    fields = line.split()
    if len(fields) not in {4, 5}:
        raise ParameterError(f"{place} of {str(file)!r} must be: utterance recording start end; it is {line!r}")
    id, recording = fields[:2]
    if recording not in recordings:
        raise ParameterError(f"{place} of {str(file)!r} names the recording {recording!r}, not in its wav.scp")
    end = "" if fields[3] == "-1" else fields[3]  # Kaldi's word for the end of the recording
    start, duration = _interval(file, place, fields[2], end, "")
    if len(fields) == 5 and not fields[4].isdecimal():
        raise ParameterError(f"{place} of {str(file)!r} has the channel {fields[4]!r}, not a number from 0")
    channel = int(fields[4]) if len(fields) == 5 else None
    return Row(recordings[recording][0], place, id, start, duration, channel, _labels_of(id, labels))


def _labels_of(id: str, labels: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {label: values[id] for label, values in labels.items() if id in values}


def _pair(file: Path, place: str, line: str) -> tuple[str, str]:
    """The id before the first white space and what follows it, which may hold spaces."""
    fields = line.split(maxsplit=1)
    if len(fields) < 2 and file.name != "text":  # a transcript may be empty
        raise ParameterError(f"{place} of {str(file)!r} must be an id and a value; it is {line!r}")
    return fields[0], fields[1].rstrip() if len(fields) == 2 else ""


def find_column(cells: Iterable[str], role: str) -> str | None:
    """The column of a manifest that holds its paths, ids, starts, ends or durations, or None."""
    return first_column(cells, _COLUMNS[role])


def first_column(cells: Iterable[str], names: Sequence[str]) -> str | None:
    """The column that has the first of these names that is there, in any case."""
    lowered = {name.strip().lower(): name for name in reversed(list(cells))}
    return next((lowered[name] for name in names if name in lowered), None)


def manifest_row(file: Path, place: str, cells: Mapping[str, str]) -> Row:
    """A row from its cells.

    Raises:
        ParameterError: if there is no path in it, or a time is malformed.
    """
    column = {role: find_column(cells, role) for role in _COLUMNS}
    taken = {role: cells[name].strip() if name is not None else "" for role, name in column.items()}
    if column["path"] is None:
        known = ", ".join(cells)
        raise ParameterError(f"{place} of {str(file)!r} has no path, only: {known}; name its column 'path'")
    path = cells[column["path"]]
    if not path:
        raise ParameterError(f"{place} of {str(file)!r} has an empty path")
    used = {column["path"], column["id"], column["start"], column["end"]}
    if not taken["start"] and not taken["end"]:
        taken["duration"] = ""  # the length of the recording, for information
    else:
        used.add(column["duration"])
    start, duration = _interval(file, place, taken["start"], taken["end"], taken["duration"])
    labels = {name: value for name, value in cells.items() if name not in used}
    return Row(path, place, taken["id"] or None, start, duration, None, labels)


def _interval(file: Path, place: str, start: str, end: str, duration: str) -> tuple[float | None, float | None]:
    """Start and duration from cells of which any may be empty."""
    first = _seconds(file, place, "start", start)
    last = _seconds(file, place, "end", end)
    length = _seconds(file, place, "duration", duration)
    if last is not None:
        if last <= (first or 0.0):
            raise ParameterError(f"{place} of {str(file)!r} has end={end}, not after start={start or 0}")
        length = last - (first or 0.0)
    if length == 0:
        raise ParameterError(f"{place} of {str(file)!r} has duration={duration}; it must be above 0 seconds")
    return first, length


def _seconds(file: Path, place: str, name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ParameterError(
            f"{place} of {str(file)!r} has {name}={cell!r}; it must be a number of seconds, at least 0"
        )
    return value


def _table_rows(file: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Cells of a CSV or TSV file by column."""
    csv.field_size_limit(MAX_CELL)
    text = io.StringIO(_text(file), newline="")
    # Transcripts hold quotes, and no TSV of the field escapes them: there a quote is a character.
    if file.suffix.lower() == ".tsv":
        reader = csv.reader(text, csv.excel_tab, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(text, csv.excel, strict=True)
    header: list[str] = []
    try:
        for cells in reader:
            place = f"line {reader.line_num}"
            if not any(cells):
                continue
            if not header:
                header = cells
                _check_header(file, header, needed)
                continue
            if len(cells) != len(header):
                raise ParameterError(f"{place} of {str(file)!r} has {len(cells)} cells, its header has {len(header)}")
            yield place, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ParameterError(f"line {reader.line_num} of {str(file)!r} is malformed: {error}") from error


def _check_header(file: Path, header: list[str], needed: Sequence[str]) -> None:
    if needed and first_column(header, needed) is None:
        columns = ", ".join(header)
        raise ParameterError(f"{str(file)!r} has no column {needed[0]!r}; its first line has: {columns}")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ParameterError(f"{str(file)!r} has two columns {twice!r}; rename one")


def _json_rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Cells of JSON lines by key; a value that is not a string is a cell as JSON writes it."""
    for number, line in enumerate(_text(file).split("\n"), start=1):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise ParameterError(
                f"{place} of {str(file)!r} is not JSON ({error.msg}); write one object a line"
            ) from error
        if not isinstance(entry, dict):
            raise ParameterError(f"{place} of {str(file)!r} is not a JSON object but {line.strip()[:40]!r}")
        yield place, {name: _cell(value) for name, value in entry.items() if value is not None}


def _cell(value: object) -> str:
    if isinstance(value, dict) and isinstance(value.get("path"), str):  # an audio column of Hugging Face
        return value["path"]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(file: Path) -> str:
    """Contents of a UTF-8 file, with or without a byte order mark."""
    data = _bytes(file)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ParameterError(
            f"line {line} of {str(file)!r} is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8"
        ) from error


def read_lines(file: Path) -> list[str]:
    """All lines, blank ones too; bytes that are not UTF-8 become surrogates.

    Raises:
        ParameterError: if it cannot be read.
    """
    text = os.fsdecode(_bytes(file).removeprefix(b"\xef\xbb\xbf"))
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, as names of files are: what is not UTF-8 stays what it is on the disk."""
    text = os.fsdecode(_bytes(file).removeprefix(b"\xef\xbb\xbf"))
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", line.removesuffix("\r")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ParameterError(f"{str(file)!r} cannot be read: {error.strerror}") from error
