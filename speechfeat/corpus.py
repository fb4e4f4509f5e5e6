"""What to extract: directories, lists, manifests and Kaldi data into utterances, before any audio is opened."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from speechfeat.audio import AUDIO_SUFFIXES
from speechfeat.errors import ParameterError
from speechfeat.manifests import MANIFEST_SUFFIXES, Row, read_kaldi, read_manifest
from speechfeat.types import Utterance

# Besides those of a manifest, the directories that its relative paths are looked for in: Common Voice keeps its
# recordings in "clips" beside the TSV files that name them.
_RECORDING_FOLDERS = (".", "clips")

# What has no place in an id: controls, line ends, and the bytes of a name that is not UTF-8.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def discover(
    source: str | os.PathLike[str],
    *,
    suffixes: Collection[str] | None = None,
    channel: str | int = "mean",
    root: str | os.PathLike[str] | None = None,
) -> list[Utterance]:
    """List the utterances of a corpus.

    What `source` may be:

    * a directory: every recording in it and below, by suffix; hidden names are skipped, links followed. A broken
      link or a directory that may not be listed is an utterance too, so that a run reports it.
    * a Kaldi data directory or its `wav.scp`, with `segments`, `utt2spk`, `text` and other `utt2*` beside it.
    * a manifest, `.csv`, `.tsv` (never quoted), `.jsonl` or `.json` (an object a line): a path and optionally id,
      start with end or duration (in seconds), and labels. `duration` without a start is the length of a recording,
      not a segment of it, and stays a label.
    * a list, `.txt`, `.lst` or `.list`: a path a line.
    * one recording.

    Ids are the path relative to the directory, the id of the manifest, or its path as written; a segment without
    an id of its own appends `#start-end`. Bytes that are not UTF-8 and control characters are escaped.

    Args:
        source: of the corpus.
        suffixes: of the recordings in a directory, in any case; by default `AUDIO_SUFFIXES`.
        channel: "mean", the number of a channel, or "all" (expand with `expand_channels`).
        root: directory that relative paths of a list or manifest start from. By default that of the manifest,
            then its `clips`, then the current one: the first in which the recording exists.

    Returns:
        Utterances in the order of the manifest, or of their path.

    Raises:
        ParameterError: if the source is missing, malformed, empty, or names two utterances alike.
    """
    path = _checked_source(source)
    channel = _checked_channel(channel)
    wanted = AUDIO_SUFFIXES if suffixes is None else {f".{suffix.lower().lstrip('.')}" for suffix in suffixes}
    if path.name == "wav.scp" or _exists(path / "wav.scp"):
        rows = read_kaldi(path if path.name == "wav.scp" else path / "wav.scp")
        return _from_rows(path, rows, channel, root)
    if path.is_dir():
        return _from_directory(path, wanted, channel)
    if path.suffix.lower() in MANIFEST_SUFFIXES:
        return _from_rows(path, read_manifest(path), channel, root)
    if path.suffix.lower() in wanted:
        return [Utterance(printable(path.name), str(path), channel=channel)]
    raise ParameterError(
        f"{str(path)!r} has an unknown suffix; a source is a directory, a recording,"
        f" or a manifest that ends in {', '.join(sorted(MANIFEST_SUFFIXES))} or is named wav.scp"
    )


def expand_channels(utterance: Utterance, num_channels: int) -> list[Utterance]:
    """An utterance for each channel of a recording, with `:ch0`, `:ch1` ... after its id.

    Args:
        utterance: with any channel; only "all" is expanded, another is returned alone.
        num_channels: of its recording, from `audio.probe`.
    """
    if utterance.channel != "all":
        return [utterance]
    return [replace(utterance, id=f"{utterance.id}:ch{k}", channel=k) for k in range(num_channels)]


def shard(utterances: Sequence[Utterance], part: str) -> list[Utterance]:
    """Every n-th utterance, from the i-th on: the parts of a corpus for n machines.

    Args:
        utterances: the same list in the same order on every machine.
        part: "i/n", with i from 1 to n.

    Raises:
        ParameterError: if `part` is not of that form.

    Example:
        >>> shard(["a", "b", "c", "d", "e"], "2/2")
        ['b', 'd']
    """
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ParameterError(f"shard {part!r} must be i/n with i from 1 to n, as in 1/8 ... 8/8")
    return list(utterances[index - 1 :: count])


def printable(name: str) -> str:
    r"""A name as printable UTF-8: control characters and undecodable bytes are escaped.

    Example:
        >>> printable("take\n1 \udcff")
        'take\\n1 \\xff'
    """
    if name.isprintable():
        return name
    return "".join(_escape(char) if unicodedata.category(char) in _UNPRINTABLE else char for char in name)


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte that os.fsdecode could not decode
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def _checked_source(source: str | os.PathLike[str]) -> Path:
    name = os.fsdecode(source)
    if not name:
        raise ParameterError("the source is an empty name; give a directory, a recording or a manifest")
    path = Path(name)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ParameterError(f"the source {name!r} cannot be opened: {reason}") from error
    return path


def _checked_channel(channel: str | int) -> str | int:
    if isinstance(channel, str) and channel.isdecimal():
        return int(channel)
    is_number = isinstance(channel, int) and not isinstance(channel, bool) and channel >= 0
    if channel not in ("mean", "all") and not is_number:
        raise ParameterError(f"channel={channel!r} must be 'mean', 'all' or the number of a channel, from 0")
    return channel


def _from_directory(top: Path, suffixes: Collection[str], channel: str | int) -> list[Utterance]:
    seen: Counter[str] = Counter()
    names = []
    for name, is_listed in walk(top):
        suffix = Path(name).suffix.lower()
        if not is_listed or suffix in suffixes:
            names.append(name)
        else:
            seen[suffix or "no suffix"] += 1
    if not names:
        found = ", ".join(f"{suffix} ({count})" for suffix, count in seen.most_common(8)) or "nothing"
        raise ParameterError(f"no recordings in {str(top)!r}: looked for {', '.join(sorted(suffixes))}; found {found}")
    names.sort()
    ids: dict[str, str] = {}
    for name in names:
        other = ids.setdefault(printable(name), name)
        if other != name:
            raise ParameterError(f"{name!r} and {other!r} in {str(top)!r} give the same id; rename one")
    return [Utterance(id, str(top / name), channel=channel) for id, name in ids.items()]


def walk(top: Path) -> Iterator[tuple[str, bool]]:
    """Names relative to `top` of all files below, with True; of directories that may not be listed, with False.

    Each directory is visited once, by its own name rather than by that of a link to it: this ends cycles, and a
    link beside its target doubles nothing.
    """
    visited = set()
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = (top / folder).stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(top / folder), key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise ParameterError(f"{str(top)!r} cannot be listed: {error.strerror}") from error
            yield folder, False
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            if not _is_folder(entry):
                yield name, True
            elif entry.is_symlink():
                links.append(name)
            else:
                folders.append(name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a directory that may not be entered
        return False


def _from_rows(
    source: Path, rows: Sequence[Row], channel: str | int, root: str | os.PathLike[str] | None
) -> list[Utterance]:
    if not rows:
        raise ParameterError(f"{str(source)!r} lists no recordings")
    folder = source if source.is_dir() else source.parent
    places = [folder / name for name in _RECORDING_FOLDERS] + [Path()]
    if root is not None:
        places = [Path(os.fsdecode(root))]
    utterances = []
    places_of: dict[str, str] = {}
    for row in rows:
        id = row_id(row)
        if id in places_of:
            raise ParameterError(
                f"{places_of[id]} and {row.place} of {str(source)!r} have the same id {id!r};"
                " give each its own in an id column, or drop one"
            )
        places_of[id] = row.place
        path = str(_resolve(row.path, places))
        of_row = channel if row.channel is None else row.channel
        utterances.append(Utterance(id, path, row.start or 0.0, row.duration, of_row, row.labels))
    return utterances


def row_id(row: Row) -> str:
    """The id of an utterance of a manifest: its own, or its path as written, and the segment of it."""
    return printable(row.id if row.id is not None else row.path + _segment_suffix(row))


def _segment_suffix(row: Row) -> str:
    if row.start is None and row.duration is None:
        return ""
    start = row.start or 0.0
    end = "" if row.duration is None else f"{start + row.duration:.3f}"
    return f"#{start:.3f}-{end}"


def _resolve(path: str, places: Sequence[Path]) -> Path:
    """The first of `places` that has the recording; the first of all if none has, for the run to report."""
    if len(places) > 1 and not Path(path).is_absolute():
        for place in places:
            if _exists(place / path):
                return place / path
    return places[0] / path
