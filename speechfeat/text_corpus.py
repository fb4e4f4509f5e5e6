"""What to extract from texts: files of lines, tables, Kaldi's `text`, directories, manifests of recordings."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from speechfeat.corpus import printable, row_id, walk
from speechfeat.errors import ParameterError
from speechfeat.manifests import (
    JSON_SUFFIXES,
    LIST_SUFFIXES,
    find_column,
    first_column,
    manifest_row,
    read_cells,
    read_kaldi_labels,
    read_lines,
    read_pairs,
)
from speechfeat.types import Utterance

TABLE_SUFFIXES = JSON_SUFFIXES | {".csv", ".tsv"}

# Columns of transcripts in common corpora, the first that a table has is taken.
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription", "normalized_text", "raw_transcription", "raw_text")

# Ids of lines without one: sorted, they keep the order of the file, however many lines are added to it.
LINE_ID = "{:08d}"


def discover_texts(
    source: str | os.PathLike[str], *, text_column: str | None = None, skip_empty: bool = False
) -> list[Utterance]:
    """List the texts of a corpus.

    What `source` may be:

    * a text file, `.txt`, `.lst` or `.list`: a text a line, blank lines too. Its id is the number of the line.
    * a table, `.csv`, `.tsv` (never quoted), `.jsonl` or `.json` (an object a line): a text and optionally an id and
      labels. One that has paths of recordings too gives the ids that `corpus.discover` gives, so that features of both
      join; one without ids takes the number of the line.
    * Kaldi's `text`, its `wav.scp`, or the directory of both.
    * a directory: every `.txt` file in it and below is one text. Its id is its path relative to the directory.

    Args:
        source: of the corpus.
        text_column: of a table; by default the first of `TEXT_COLUMNS` that it has.
        skip_empty: leave out what has no text, such as the untranscribed part of a corpus.

    Returns:
        Utterances in the order of the file, or of their path; their `text` is None where it is a file yet to be read.

    Raises:
        ParameterError: if the source is missing, malformed, empty, or names two texts alike.
    """
    path = Path(os.fsdecode(source))
    listed = list(_texts(path, text_column))
    _check_ids(path, listed)
    utterances = [one for _, one in listed if not skip_empty or one.text is None or one.text.strip()]
    if not utterances:
        raise ParameterError(f"{str(path)!r} holds no texts")
    return utterances


def read_text(path: str) -> str:
    """The whole of a text file; bytes that are not UTF-8 become surrogates.

    Raises:
        OSError: if it cannot be read.
    """
    return os.fsdecode(Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf"))


def _texts(path: Path, text_column: str | None) -> Iterator[tuple[str, Utterance]]:
    """Utterances, each with its place for messages."""
    if path.is_dir():
        is_kaldi = (path / "wav.scp").is_file() or (path / "text").is_file()
        return _kaldi_texts(path / "text") if is_kaldi else _files(path)
    if path.name in ("text", "wav.scp"):
        return _kaldi_texts(path.with_name("text"))
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES:
        return (
            (f"line {number}", Utterance(LINE_ID.format(number), str(path), text=line))
            for number, line in enumerate(read_lines(path), start=1)
        )
    if suffix in TABLE_SUFFIXES:
        return _table_texts(path, text_column)
    raise ParameterError(
        f"{str(path)!r} has an unknown suffix; a source of texts is a directory, a file that ends in "
        f"{', '.join(sorted(LIST_SUFFIXES | TABLE_SUFFIXES))}, or Kaldi's 'text'"
    )


def _files(top: Path) -> Iterator[tuple[str, Utterance]]:
    names = sorted(name for name, listed in walk(top) if not listed or name.lower().endswith(".txt"))
    return ((repr(name), Utterance(printable(name), str(top / name))) for name in names)


def _kaldi_texts(file: Path) -> Iterator[tuple[str, Utterance]]:
    labels = read_kaldi_labels(file.parent)
    labels.pop("text", None)
    for place, id, text in read_pairs(file):
        own = {name: values[id] for name, values in labels.items() if id in values}
        yield place, Utterance(printable(id), str(file), labels=own, text=text)


def _table_texts(file: Path, text_column: str | None) -> Iterator[tuple[str, Utterance]]:
    names = TEXT_COLUMNS if text_column is None else (text_column.lower(),)
    for place, cells in read_cells(file, needed=names):
        column = first_column(cells, names)
        id, labels = _id_and_labels(file, place, cells)
        # A column "text" beside the one that was asked for would take the place of the text in the store.
        own = {"text_label" if name == "text" else name: value for name, value in labels.items() if name != column}
        yield place, Utterance(id, str(file), labels=own, text=cells[column] if column else "")


def _id_and_labels(file: Path, place: str, cells: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    if find_column(cells, "path") is not None:
        row = manifest_row(file, place, cells)
        return row_id(row), row.labels
    column = find_column(cells, "id")
    number = int(place.removeprefix("line "))
    id = printable(cells[column].strip()) if column else ""
    return id or LINE_ID.format(number), {name: value for name, value in cells.items() if name != column}


def _check_ids(source: Path, listed: Sequence[tuple[str, Utterance]]) -> None:
    places: dict[str, str] = {}
    for place, one in listed:
        other = places.setdefault(one.id, place)
        if other is not place:
            raise ParameterError(
                f"{other} and {place} of {str(source)!r} have the same id {one.id!r}; give each its own in an id "
                "column, or drop one"
            )
