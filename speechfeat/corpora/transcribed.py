"""Corpora of read sentences with their transcripts and speakers: LibriSpeech and Common Voice."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from speechfeat.corpora.base import Corpus, find_folder, recordings, refuse
from speechfeat.corpus import printable
from speechfeat.errors import ParameterError
from speechfeat.manifests import Row, read_manifest
from speechfeat.types import Utterance

_SUBSETS = "train-clean-100|train-clean-360|train-other-500|dev-clean|dev-other|test-clean|test-other"
# train-clean-100/19/198/19-198-0001.flac, in the directory of SPEAKERS.TXT
_LIBRISPEECH = re.compile(rf"({_SUBSETS})/(\d+)/(\d+)/(\2-\3-\d+)\.\w+")
_LIBRISPEECH_SPLITS = {"train": "train", "dev": "validation", "test": "test"}

_COMMON_VOICE_LISTS = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
_VALIDATED = "validated.tsv"


def read_librispeech(root: Path) -> Corpus:
    """LibriSpeech: read books, with the subsets that the root has.

    Panayotov et al., "LibriSpeech: an ASR corpus based on public domain audio books", ICASSP 2015; layout and
    `SPEAKERS.TXT` (id, sex, subset, minutes, name) as in www.openslr.org/12. Splits are train-*, dev-* and test-*.
    """
    top = find_folder(root, "LibriSpeech", "SPEAKERS.TXT", ("LibriSpeech",))
    genders = _genders(top / "SPEAKERS.TXT")
    found = recordings(root, top)
    pairs = [(one, _LIBRISPEECH.fullmatch(Path(one.path).relative_to(top).as_posix())) for one in found]
    strange = [utterance.id for utterance, match in pairs if match is None]
    example = "train-clean-100/19/198/19-198-0001.flac"
    refuse(
        strange,
        f"of {len(found)} recordings are not where those of LibriSpeech are ({example})",
        "give the directory of the corpus alone",
    )
    named = [(utterance, match) for utterance, match in pairs if match]
    texts = dict(line for file in sorted(top.glob("*/*/*/[!.]*.trans.txt")) for line in _transcripts(file))
    utterances: list[Utterance] = []
    splits: dict[str, list[str]] = {name: [] for name in _LIBRISPEECH_SPLITS.values()}
    for utterance, match in named:
        labels = {
            "speaker": match[2],
            "gender": genders.get(match[2], ""),
            "chapter": match[3],
            "subset": match[1],
            "text": texts.pop(match[4], ""),
        }
        utterances.append(replace(utterance, labels=labels))
        splits[_LIBRISPEECH_SPLITS[match[1].split("-")[0]]].append(utterance.id)
    refuse(texts, "transcripts have no recording", "unpack all of the archive")
    for label, place in (("text", "the chapter's .trans.txt"), ("gender", "SPEAKERS.TXT")):
        without = [one.id for one in utterances if not one.labels[label]]
        refuse(without, f"of {len(utterances)} recordings have no {label} in {place}", "unpack the archive afresh")
    note = "No speaker is in two splits: to tell speakers apart, split the chapters or the utterances of a subset."
    kept = {name: ids for name, ids in splits.items() if ids}
    return Corpus("librispeech", utterances, "speaker", "speaker", kept, note=note)


def _genders(file: Path) -> dict[str, str]:
    # ; comments, then "14   | F | train-clean-360  | 25.03 | Kristin LeMoine"
    rows = [row.path.split("|") for row in read_manifest(file) if not row.path.startswith(";")]
    sexes = {"F": "female", "M": "male"}
    return {fields[0].strip(): sexes.get(fields[1].strip(), "") for fields in rows if len(fields) > 1}


def _transcripts(file: Path) -> Iterable[tuple[str, str]]:
    for row in read_manifest(file):
        name, _, text = row.path.partition(" ")
        yield name, text


def read_common_voice(root: Path) -> Corpus:
    """Common Voice of one language: the lists train, dev, test and validated that the root has.

    Ardila et al., "Common Voice: A Massively-Multilingual Speech Corpus", LREC 2020: `clips/` beside the TSV files,
    whose columns are labels here; `client_id` is the speaker and `sentence` the text. No speaker is in two of
    train, dev and test.
    """
    names = (*_COMMON_VOICE_LISTS.values(), _VALIDATED)
    present = [name for name in names if (root / name).is_file()]
    if not present or not (root / "clips").is_dir():
        raise ParameterError(
            f"{str(root)!r} is not Common Voice: looked for clips and one of {', '.join(names)}; give the directory of"
            " one language, such as cv-corpus-17.0-2024-03-15/en"
        )
    lists = {name: read_manifest(root / name) for name in present}
    rows: dict[str, tuple[str, Row]] = {}
    for name, listed in lists.items():
        for row in listed:
            rows.setdefault(row.path, (name, row))
    clips = {file.name for file in (root / "clips").iterdir()}
    missing = [path for path in rows if path not in clips]
    refuse(
        missing, f"of {len(rows)} clips in {', '.join(present)} are missing in {str(root / 'clips')!r}", "unpack them"
    )
    utterances = [_clip(root, name, row) for name, row in rows.values()]
    splits = {
        split: [printable(row.path) for row in lists[name]]
        for split, name in _COMMON_VOICE_LISTS.items()
        if name in lists
    }
    note = (
        "No speaker is in two splits; clips of validated.tsv that are in none of the splits are for whoever wants them."
    )
    return Corpus("common-voice", utterances, "speaker", "speaker", splits or None, note=note)


def _clip(root: Path, name: str, row: Row) -> Utterance:
    labels = dict(row.labels)
    for column, label in (("client_id", "speaker"), ("sentence", "text")):
        if column not in labels:
            raise ParameterError(
                f"{str(root / name)!r} has no column {column!r}; it has: path, {', '.join(row.labels)}"
            )
        labels[label] = labels.pop(column)
    return Utterance(printable(row.path), str(root / "clips" / row.path), labels=labels)
