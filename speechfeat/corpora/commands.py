"""Speech Commands: single words, and the task of ten of them among other words and silence.

The corpus and its lists: Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition",
arXiv:1804.03209, 2018.

Twelve classes are made as the training script of the paper makes them (`prepare_data_index` of
tensorflow/examples/speech_commands/input_data.py): to the recordings of the ten words in a split come a tenth as many
of other words (`_unknown_`) and a tenth as many of silence, rounded up. Two things differ, for the script leaves them
to chance: which other words are taken follows from a hash of their names rather than from the order in which files
are listed, and silence is cut from the noise files in even steps rather than at random (or zeros). SUPERB trains on
all other words instead, drawing all classes alike. The test set is the official one where it was unpacked beside the
corpus, as in the paper and in SUPERB.
"""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from speechfeat.audio import probe
from speechfeat.corpora.base import Corpus, find_folder, recordings, refuse, stem
from speechfeat.errors import ParameterError
from speechfeat.manifests import read_manifest
from speechfeat.types import Utterance

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "_unknown_", "_silence_"

_V1_WORDS = (
    *COMMANDS,
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"),
)
_WORDS = {"0.01": _V1_WORDS, "0.02": (*_V1_WORDS, "backward", "follow", "forward", "learn", "visual")}
_NOISE_FOLDER = "_background_noise_"
_NAME = re.compile(r"([0-9a-z]+)_nohash_\d+")
# In the official test set other words are six_0ab3b47d_nohash_0.wav.wav, silence is 1024.wav.
_UNKNOWN_NAME = re.compile(r"([a-z]+)_([0-9a-z]+)_nohash_\d+(\.wav)?")

# Silence of a split is cut from its own part of every noise file, so that no sample is in two splits.
_NOISE_PARTS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}


def read_commands(root: Path, name: str, version: str, *, twelve: bool) -> Corpus:
    """Speech Commands with its own lists of validation and test recordings.

    Args:
        root: directory that the archive was unpacked into, or one that holds it as `speech_commands_v0.02`; the
            official test set for twelve classes is `speech_commands_test_set_v0.02` in either.
        name: of the corpus.
        version: "0.01" (30 words) or "0.02" (35).
        twelve: ten words, `_unknown_` and `_silence_`; else all words.
    """
    archive = f"speech_commands_v{version}"
    top = find_folder(root, f"Speech Commands {version}", "testing_list.txt", (archive, f"SpeechCommands/{archive}"))
    splits = _splits(root, top, version)
    if not twelve:
        note = "No speaker is in two splits."
        return _corpus(name, splits, note)
    others = {split: [one for one in found if one.labels["keyword"] not in COMMANDS] for split, found in splits.items()}
    wanted = {split: [one for one in found if one.labels["keyword"] in COMMANDS] for split, found in splits.items()}
    noises = _noises(root, top)
    official = _official_test(root, top, version)
    made = {
        split: [*found, *_drawn(others[split], _tenth(found)), *_stretches(noises, split, _tenth(found))]
        for split, found in wanted.items()
        if split != "test" or not official
    }
    if official:
        made["test"] = official
    note = (
        "No speaker is in two splits. The test set is "
        + ("the official one" if official else f"made of the test list, for there is no {_test_folder(version)}")
        + ". Of silence, speaker names the noise."
    )
    return _corpus(name, made, note)


def _corpus(name: str, splits: dict[str, list[Utterance]], note: str) -> Corpus:
    utterances = [utterance for found in splits.values() for utterance in found]
    ids = {split: [utterance.id for utterance in found] for split, found in splits.items()}
    return Corpus(name, utterances, "keyword", "speaker", ids, note=note)


def _splits(root: Path, top: Path, version: str) -> dict[str, list[Utterance]]:
    """Recordings of words by split, with the word as keyword and the hash before `_nohash_` as speaker."""
    words = _WORDS[version]
    places: dict[str, Utterance] = {}
    strange = []
    for utterance in recordings(root, top):
        place = Path(utterance.path).relative_to(top)
        if place.parts[0] == _NOISE_FOLDER or place.parts[0].startswith("speech_commands_test_set_v"):
            continue
        match = _NAME.fullmatch(stem(utterance))
        if match is None or len(place.parts) != 2 or place.parts[0] not in words:
            strange.append(utterance.id)
            continue
        labels = {"keyword": place.parts[0], "word": place.parts[0], "speaker": match[1]}
        places[place.as_posix()] = replace(utterance, labels=labels)
    other = "read the version that it is, or unpack the archive afresh"
    refuse(strange, f"recordings are not of the {len(words)} words of version {version} (yes/0ab_nohash_0)", other)
    absent = sorted(set(words) - {utterance.labels["keyword"] for utterance in places.values()})
    refuse(absent, f"of the {len(words)} words of version {version} have no recordings in {str(top)!r}", other)
    found: dict[str, list[Utterance]] = {"train": [], "validation": [], "test": []}
    splits = _listed(top, "validation", places) | _listed(top, "testing", places)
    for listed, utterance in places.items():
        found[splits.get(listed, "train")].append(utterance)
    return found


def _listed(top: Path, name: str, places: dict[str, Utterance]) -> dict[str, str]:
    file = top / f"{name}_list.txt"
    listed = [row.path.strip() for row in read_manifest(file)]
    missing = [place for place in listed if place not in places]
    refuse(missing, f"of {len(listed)} recordings in {str(file)!r} are missing", "unpack all of the archive")
    return dict.fromkeys(listed, "test" if name == "testing" else name)


def _tenth(found: Sequence[Utterance]) -> int:
    return -(-len(found) // 10)


def _drawn(others: Sequence[Utterance], num: int) -> list[Utterance]:
    """Some of the other words, chosen by the hash of word and name, as `_unknown_`."""

    def rank(utterance: Utterance) -> bytes:
        return hashlib.sha1(f"{utterance.labels['word']}/{stem(utterance)}".encode()).digest()

    if len(others) < num:
        raise ParameterError(
            f"{len(others)} recordings of other words are too few for {num} of {UNKNOWN}; unpack the archive"
        )
    chosen = {utterance.id for utterance in sorted(others, key=rank)[:num]}
    kept = [utterance for utterance in others if utterance.id in chosen]
    return [replace(utterance, labels={**utterance.labels, "keyword": UNKNOWN}) for utterance in kept]


def _noises(root: Path, top: Path) -> list[tuple[Utterance, float]]:
    """Files of background noise with their durations."""
    if not (top / _NOISE_FOLDER).is_dir():
        raise ParameterError(f"{str(top)!r} has no folder {_NOISE_FOLDER}, which silence is cut from; unpack it")
    return [(noise, probe(noise.path).duration) for noise in recordings(root, top / _NOISE_FOLDER)]


def _stretches(noises: Sequence[tuple[Utterance, float]], split: str, num: int) -> list[Utterance]:
    """Stretches of 1 s, as many of every noise file, in even steps over the part that belongs to the split."""
    low, high = _NOISE_PARTS[split]
    found = []
    for index, (noise, duration) in enumerate(noises):
        count = num // len(noises) + (index < num % len(noises))
        first = math.ceil(low * duration * 1000)  # milliseconds: ids show no more
        room = math.floor(high * duration * 1000) - 1000 - first
        if count > room + 1:
            raise ParameterError(
                f"the noise {noise.id!r} lasts {duration:.1f} s, too short for {count} stretches of 1 s in its part for"
                f" {split}; files of the corpus last a minute or more"
            )
        for step in range(count):
            start = (first + round(step * room / max(count - 1, 1))) / 1000
            labels = {"keyword": SILENCE, "word": SILENCE, "speaker": f"{stem(noise)}/{split}"}
            id = f"{noise.id}#{start:.3f}-{start + 1:.3f}"
            found.append(replace(noise, id=id, start=start, duration=1.0, labels=labels))
    return found


def _test_folder(version: str) -> str:
    return f"speech_commands_test_set_v{version}"


def _official_test(root: Path, top: Path, version: str) -> list[Utterance]:
    """The test set for twelve classes, a folder a class; none where it was not unpacked."""
    folder = next(
        (place / _test_folder(version) for place in (top, root) if (place / _test_folder(version)).is_dir()), None
    )
    if folder is None:
        return []
    found, strange = [], []
    for utterance in recordings(root, folder):
        place = Path(utterance.path).relative_to(folder)
        keyword, name = place.parts[0], stem(utterance)
        if keyword == SILENCE:
            word, speaker = SILENCE, f"{SILENCE}/{name}"
        elif keyword == UNKNOWN and (match := _UNKNOWN_NAME.fullmatch(name)):
            word, speaker = match[1], match[2]
        elif keyword in COMMANDS and (match := _NAME.fullmatch(name)):
            word, speaker = keyword, match[1]
        else:
            strange.append(utterance.id)
            continue
        found.append(replace(utterance, labels={"keyword": keyword, "word": word, "speaker": speaker}))
    refuse(strange, f"recordings are not named as in the official test set {folder.name}", "remove them")
    absent = sorted({*COMMANDS, UNKNOWN, SILENCE} - {utterance.labels["keyword"] for utterance in found})
    refuse(absent, f"of 12 classes have no recordings in {str(folder)!r}", "unpack all of the archive")
    return found
