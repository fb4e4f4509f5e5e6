"""What an experiment leaves behind: `results.json` for programs, `report.md` for people."""

import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd

from speechfeat.errors import ParameterError, StoreError
from speechfeat.store_config import disk_errors, write_text

RESULTS_JSON, REPORT_MD = "results.json", "report.md"
# What the figures may depend on beside the command.
PACKAGES = ("speechfeat", "torch", "transformers", "scikit-learn", "numpy")


class Section(NamedTuple):
    """A part of a report: its heading, and its text in Markdown."""

    title: str
    body: str


def write_results(folder: str | os.PathLike[str], results: Mapping[str, Any]) -> Path:
    """Write `results.json`, whole or not at all.

    Arrays become lists, tables `{"index", "columns", "data"}`, dataclasses and named tuples objects, and what is no
    number (NaN, infinity), which JSON does not have, null.

    Args:
        folder: made if it is not there.
        results: by name.

    Returns:
        The file.

    Raises:
        ParameterError: if a value has no form in JSON.
        StoreError: if the disk refuses.
    """
    text = json.dumps(_plain(results, "results"), indent=2, ensure_ascii=False, allow_nan=False)
    return _write(folder, RESULTS_JSON, text + "\n")


def read_results(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What `write_results` wrote to a folder; None if it has not.

    Raises:
        StoreError: if the file is damaged.
    """
    file = Path(folder) / RESULTS_JSON
    if not file.exists():
        return None
    with disk_errors(f"read {file}"):
        content = file.read_bytes()
    try:
        return json.loads(content)
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}); remove it and give the command again") from error


def markdown_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A table in Markdown.

    A score with its interval (`LayerScore`) is shown in per cent, as `score_cell` does; what is missing, None or NaN
    as "-".

    Args:
        rows: cells by column; not every row needs every column.
        columns: in their order; None: as they come up in the rows.

    Raises:
        ParameterError: if there is no column.
    """
    names = list(dict.fromkeys(name for row in rows for name in row)) if columns is None else list(columns)
    if not names:
        raise ParameterError("the table has no column; give rows that have cells, or columns")
    lines = [names, ["---"] * len(names), *([_cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines)


def score_cell(score: float, low: float, high: float, *, scale: float = 100, digits: int = 1) -> str:
    """A score and its interval as a cell.

    Args:
        score: as it was measured.
        low: end of its interval.
        high: end of its interval.
        scale: what it is multiplied by; 100 shows per cent.
        digits: after the point.

    Example:
        >>> score_cell(0.123, 0.1, 0.15)
        '12.3 (10.0-15.0)'
    """
    return "{:.{digits}f} ({:.{digits}f}-{:.{digits}f})".format(
        *(scale * value for value in (score, low, high)), digits=digits
    )


def write_report(
    folder: str | os.PathLike[str],
    title: str,
    command: str,
    sections: Sequence[Section],
    pictures: Mapping[str, str | os.PathLike[str]] | None = None,
) -> Path:
    """Write `report.md`: what was found, the command that finds it again, the pictures, the versions.

    Args:
        folder: made if it is not there.
        title: of the report.
        command: that was given.
        sections: in their order, after the command.
        pictures: files by what they show; linked to, relative to the folder.

    Returns:
        The file.

    Raises:
        StoreError: if the disk refuses.
    """
    shown = [
        f"![{_escape(caption)}]({quote(Path(os.path.relpath(file, folder)).as_posix())})"
        for caption, file in (pictures or {}).items()
    ]
    parts = [
        Section("Command", f"```\n{command}\n```"),
        *sections,
        *([Section("Pictures", "\n\n".join(shown))] if shown else []),
        Section("Versions", f"Python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in PACKAGES)),
    ]
    text = "\n\n".join([f"# {title}", *(f"## {part.title}\n\n{part.body}" for part in parts)])
    return _write(folder, REPORT_MD, text + "\n")


def _write(folder: str | os.PathLike[str], name: str, text: str) -> Path:
    file = Path(folder) / name
    with disk_errors(f"make {folder}"):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    return file


def _plain(value: Any, place: str) -> Any:
    """A value as JSON has it; `place` is for the error."""
    found = _as_builtin(value)
    if isinstance(found, Mapping):
        return {str(key): _plain(item, f"{place}.{key}") for key, item in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(found)]
    if isinstance(found, float) and not math.isfinite(found):
        return None
    if found is None or isinstance(found, bool | int | float | str):
        return found
    raise ParameterError(
        f"{place} is a {type(found).__name__}, which has no form in JSON; give numbers, texts or lists"
    )


def _as_builtin(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return value._asdict()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return next((convert(value) for kind, convert in _CONVERSIONS if isinstance(value, kind)), value)


_CONVERSIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (np.generic, lambda number: number.item()),
    (np.ndarray, lambda array: array.tolist()),
    (pd.DataFrame, lambda table: table.to_dict("split")),
    (os.PathLike, os.fspath),
)


def _cell(value: Any) -> str:
    if hasattr(value, "_asdict"):
        return score_cell(**value._asdict())
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return str(value)


def _escape(text: str) -> str:
    """Text that stays within its cell."""
    return " ".join(text.split()).replace("|", "\\|")
