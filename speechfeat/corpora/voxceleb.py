"""VoxCeleb1: speakers of interviews, to be told from each other or verified.

Lists and splits: Nagrani, Chung and Zisserman, "VoxCeleb: a large-scale speaker identification dataset", Interspeech
2017; the trials E and H, and those cleaned of errors, "VoxCeleb2: Deep Speaker Recognition", Interspeech 2018, and
www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from speechfeat.corpora.base import Corpus, Trial, find_folder, read_cells, recordings, refuse
from speechfeat.errors import ParameterError
from speechfeat.manifests import Row, read_manifest
from speechfeat.types import Utterance

# id10270/5r0dWxy17C8/00001, in wav/, dev/wav/, test/wav/ or anywhere below the root.
_PLACE = re.compile(r"(?:.*/)?((id\d{5})/([^/]+)/\d{5})\.\w+")
_IDENTIFICATION = "iden_split.txt"
_SPLITS = {"1": "train", "2": "validation", "3": "test"}

# Lists of trials, the cleaned one first.
_TRIALS = {
    "O": ("veri_test2.txt", "veri_test.txt"),
    "E": ("list_test_all2.txt", "list_test_all.txt"),
    "H": ("list_test_hard2.txt", "list_test_hard.txt"),
}


def read_identification(root: Path) -> Corpus:
    """VoxCeleb1 to tell 1,251 speakers apart, by `iden_split.txt`: 1 is training, 2 validation, 3 test."""
    file = find_folder(root, "VoxCeleb1 for identification", _IDENTIFICATION) / _IDENTIFICATION
    found = _utterances(root)
    splits: dict[str, list[str]] = {name: [] for name in _SPLITS.values()}
    rows = read_manifest(file)
    keys = []
    for row in rows:
        number, place = _fields(file, row, 2, tuple(_SPLITS), "3 id10001/1zcIwhmdeo4/00001.wav")
        keys.append(place)
        if place in found:
            splits[_SPLITS[number]].append(found[place].id)
    _refuse_missing(file, keys, found)
    refuse(sorted(set(found) - set(keys)), f"of {len(found)} recordings are not in {_IDENTIFICATION}", "remove them")
    note = "Speakers are those of training in all splits; no video is in two splits (label video)."
    return Corpus("voxceleb1-identification", list(found.values()), "speaker", splits=splits, note=note)


def read_verification(root: Path) -> Corpus:
    """VoxCeleb1 to verify speakers, with the trials O, E and H as far as their lists are in the root."""
    files = {name: _first(root, choices) for name, choices in _TRIALS.items()}
    present = {name: file for name, file in files.items() if file is not None}
    if not present:
        looked = ", ".join(choice for choices in _TRIALS.values() for choice in choices)
        raise ParameterError(
            f"{str(root)!r} is not VoxCeleb1 for verification: looked for {looked}; put the lists of trials there"
        )
    found = _utterances(root)
    trials = {name: _trials(file, found) for name, file in present.items()}
    splits = None
    if "O" in trials:
        ids = {id for trial in trials["O"] for id in (trial.enrol, trial.test)}
        tested = {one.labels["speaker"] for one in found.values() if one.id in ids}
        splits = {
            name: kept
            for name, is_test in (("train", False), ("test", True))
            if (kept := [one.id for one in found.values() if (one.labels["speaker"] in tested) == is_test])
        }
    note = (
        f"Trials: {', '.join(f'{name} of {file.name}' for name, file in present.items())}. E and H are of the speakers "
        "of the training split too: they are for models trained on other data."
    )
    name = "voxceleb1-verification"
    return Corpus(name, list(found.values()), "speaker", splits=splits, trials=trials, note=note)


def _utterances(root: Path) -> dict[str, Utterance]:
    """Recordings by speaker, video and number, as the lists name them less the suffix."""
    genders = {row.get("VoxCeleb1 ID"): row.get("Gender", "") for row in read_cells(root / "vox1_meta.csv", "\t")}
    found: dict[str, Utterance] = {}
    strange, twice = [], []
    listed = recordings(root, root)
    for utterance in listed:
        match = _PLACE.fullmatch(utterance.id)
        if match is None:
            strange.append(utterance.id)
        elif match[1] in found:
            twice.append(utterance.id)
        else:
            gender = {"m": "male", "f": "female"}.get(genders.get(match[2], ""), "")
            labels = {"speaker": match[2], "video": match[3], "gender": gender}
            found[match[1]] = replace(utterance, labels=labels)
    example = "id10001/1zcIwhmdeo4/00001.wav"
    refuse(
        strange,
        f"of {len(listed)} recordings are not named as those of VoxCeleb1 are ({example})",
        "give the directory of the corpus alone",
    )
    refuse(twice, f"of {len(listed)} recordings are in two folders", "keep one copy of the corpus")
    return found


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_file()), None)


def _fields(file: Path, row: Row, num: int, first: Sequence[str], example: str) -> list[str]:
    """Fields of a line: one of `first`, then recordings without their suffix."""
    fields = row.path.split()
    if len(fields) != num or fields[0] not in first:
        raise ParameterError(f"{row.place} of {str(file)!r} is {row.path!r}; a line is like {example!r}")
    return [fields[0], *(str(PurePosixPath(place).with_suffix("")) for place in fields[1:])]


def _trials(file: Path, found: dict[str, Utterance]) -> list[Trial]:
    example = "1 id10270/5r0dWxy17C8/00001.wav id10270/8jEAjG6SegY/00008.wav"
    pairs = [_fields(file, row, 3, ("0", "1"), example) for row in read_manifest(file)]
    _refuse_missing(file, [place for pair in pairs for place in pair[1:]], found)
    return [Trial(target == "1", found[enrol].id, found[test].id) for target, enrol, test in pairs]


def _refuse_missing(file: Path, places: Sequence[str], found: dict[str, Utterance]) -> None:
    named = dict.fromkeys(places)
    missing = [place for place in named if place not in found]
    refuse(
        missing, f"of {len(named)} recordings in {str(file)!r} are missing", "unpack the archives, or remove the list"
    )
