"""Long recordings with keywords at known times, made from clips of keywords and from other speech.

samples, events = make_long_recording(clips, speech, seconds=600)     # events: label, start, end ...
events = write_long_recordings("long", clips, speech, num=3)          # files, and events with the id of each
"""

import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import librosa
import numpy as np
import pandas as pd
import soundfile
import soxr

from speechfeat.audio import RESAMPLER_QUALITY, read_audio
from speechfeat.errors import ParameterError
from speechfeat.store_config import disk_errors, write_text
from speechfeat.types import Utterance

# Root mean square of the loud parts of all speech: no peak of it reaches full scale.
LEVEL = 0.05
# What is below the loudest of a clip by this much, at its ends, is not the word.
TRIM_DB = 30.0
# What is below the loudest of a recording by this much does not count for its level.
PAUSE_DB = 25.0
# Of the noise under everything, below the speech: no pause is digital silence, and none differs from another.
FLOOR_DB = -45.0
# How far a word may be moved from its place drawn at random to the quietest moment around.
REACH_SECONDS = 0.5
FADE_SECONDS = 0.01
# Levels are looked at in steps of 25 ms.
STEPS_PER_SECOND = 40

EVENTS, MADE_OF = "events.csv", "made_of.json"
_NAMES = dict.fromkeys(("id", "label", "group", "source"), str)


class _Word(NamedTuple):
    utterance: Utterance
    samples: np.ndarray
    source_rate: int


def make_long_recording(
    keywords: Sequence[Utterance],
    background: Sequence[Utterance],
    seconds: float = 600.0,
    seed: int = 0,
    *,
    label: str = "keyword",
    group: str = "speaker",
    every: float = 6.0,
    gap: tuple[float, float] = (0.05, 0.25),
    vary_db: float = 3.0,
    band: int | str | None = "keywords",
    sample_rate: int = 16000,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Speech, one recording after another, with clips of keywords in its pauses.

    A clip is cut to its word (`librosa.effects.trim`), brought to the level of the speech, and put, between two short
    gaps, into the quietest moment near a place drawn at random. Faint noise lies under everything.

    Keywords recorded at 8 kHz among speech recorded at 16 kHz would be given away by their bandwidth alone, and scores
    would come out far too good. So everything is limited to the band of the narrowest keyword, unless `band` says
    otherwise.

    Args:
        keywords: clips of one word each. As many are taken as there is room for, equally many of each label; none may
            be given.
        background: other speech that does not hold the keywords, see `without_words`; taken in random order, each
            once at most.
        seconds: of the result.
        seed: of all that is drawn.
        label: which label of a clip names its keyword.
        group: which label of a clip, if it has it, names what is not to be both trained on and tested: who speaks.
        every: seconds from one keyword to the next, on average.
        gap: seconds without speech before and after a keyword, the least and the most.
        vary_db: a keyword is louder or softer than the speech around by up to this.
        band: sample rate in Hz whose band everything is limited to; "keywords" for the lowest of theirs, None for no
            limit.
        sample_rate: of the result, in Hz.

    Returns:
        Samples `[N]` float32, and a row an event: label, start and end in seconds, group, source (the id of the clip).

    Raises:
        ParameterError: if a number is out of range, a clip has no label, or there is too little background.
        AudioError: if a recording cannot be read.
    """
    if not (0 < seconds < np.inf and 0 < every < np.inf and 0 <= gap[0] <= gap[1] < np.inf and vary_db >= 0):
        raise ParameterError(
            f"seconds={seconds}, every={every}, gap={gap} and vary_db={vary_db} must be above 0, above 0, a least and "
            "a most number of seconds, and 0 or more"
        )
    rng = np.random.default_rng(seed)
    chosen = _choose(keywords, label, int(seconds / every), rng)
    words = [_Word(one, *_read_word(one, sample_rate)) for one in chosen]
    gaps = np.rint(rng.uniform(*gap, size=(len(words), 2)) * sample_rate).astype(int)
    count = round(seconds * sample_rate)
    room = count - int(gaps.sum()) - sum(len(word.samples) for word in words)
    if room <= 0:
        raise ParameterError(f"{len(words)} keywords do not fit into {seconds} s; raise seconds or every={every}")
    speech = _speech(background, room, sample_rate, rng)
    places = _quiet_places(speech, len(words), sample_rate, rng)
    gains = 10 ** (rng.uniform(-vary_db, vary_db, len(words)) / 20)
    loud = [word.samples * gain for word, gain in zip(words, gains, strict=True)]
    samples, starts = _insert(speech, loud, places, gaps, sample_rate)
    samples += LEVEL * 10 ** (FLOOR_DB / 20) * rng.standard_normal(count, np.float32)
    if band == "keywords":
        band = min((word.source_rate for word in words), default=sample_rate)
    ends = np.add(starts, [len(word.samples) for word in words])
    events = {
        "label": [word.utterance.labels[label] for word in words],
        "start": np.divide(starts, sample_rate),
        "end": np.divide(ends, sample_rate),
        "group": [word.utterance.labels.get(group, "") for word in words],
        "source": [word.utterance.id for word in words],
    }
    return _limited(samples, sample_rate, band), pd.DataFrame(events)


def write_long_recordings(
    folder: str | os.PathLike[str],
    keywords: Sequence[Utterance],
    background: Sequence[Utterance],
    *,
    num: int = 1,
    seconds: float = 600.0,
    seed: int = 0,
    sample_rate: int = 16000,
    **options: Any,
) -> pd.DataFrame:
    """Make long recordings and write them, unless a folder holds these already.

    No clip and no background is in two of them: each gets every `num`-th.

    Args:
        folder: that gets `0000.flac` and so on, and `events.csv`.
        keywords: as for `make_long_recording`.
        background: as for `make_long_recording`.
        num: of recordings.
        seconds: of each.
        seed: of the first; the next has the next.
        sample_rate: in Hz.
        options: further arguments of `make_long_recording`.

    Returns:
        A row an event: id (of the recording, as the extractor names it), label, start, end, group, source.

    Raises:
        ParameterError: as of `make_long_recording`, and if the folder holds recordings that were made otherwise.
        StoreError: if the disk refuses.
    """
    top = Path(folder)
    made_of = _describe(keywords, background, num=num, seconds=seconds, seed=seed, sample_rate=sample_rate, **options)
    with disk_errors(f"make {top}"):
        top.mkdir(parents=True, exist_ok=True)
    if (top / MADE_OF).exists():
        if (top / MADE_OF).read_text(encoding="utf-8") != made_of:
            raise ParameterError(f"{os.fspath(folder)!r} holds recordings made otherwise; remove it or name another")
        return pd.read_csv(top / EVENTS, dtype=_NAMES, keep_default_na=False)
    tables = []
    for number in range(num):
        samples, events = make_long_recording(
            keywords[number::num], background[number::num], seconds, seed + number, sample_rate=sample_rate, **options
        )
        name = f"{number:04d}.flac"
        with disk_errors(f"write {top / name}"):
            soundfile.write(top / name, samples, sample_rate)
        events.insert(0, "id", name)
        tables.append(events)
    table = pd.concat(tables, ignore_index=True)
    write_text(top / EVENTS, table.to_csv(index=False))
    write_text(top / MADE_OF, made_of)  # last: what has it is whole
    return table


def without_words(utterances: Iterable[Utterance], words: Collection[str], label: str = "text") -> list[Utterance]:
    """Utterances in whose transcripts none of the words is, in any case.

    Where some have transcripts, the others are left out: what is said in them is not known, and a keyword among it
    that is found would count as a false alarm. Words that only sound alike are kept: a detector that
    hears "four" in "for" has a false alarm.

    Args:
        utterances: such as the background of keywords.
        words: to avoid, spelt as the transcripts spell them.
        label: that holds the transcript.
    """
    given = list(utterances)
    if not any(one.labels.get(label) for one in given):
        return given
    avoided = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words) or r"(?!)", re.IGNORECASE)
    return [one for one in given if one.labels.get(label) and not avoided.search(one.labels[label])]


def _describe(keywords: Sequence[Utterance], background: Sequence[Utterance], **options: Any) -> str:
    """All that decides the recordings, as JSON."""
    parts = {"keywords": keywords, "background": background}
    hashes = {
        name: hashlib.sha256(json.dumps([asdict(one) for one in given], default=dict).encode()).hexdigest()[:32]
        for name, given in parts.items()
    }
    return json.dumps({**options, **hashes}, indent=2) + "\n"


def _choose(keywords: Sequence[Utterance], label: str, count: int, rng: np.random.Generator) -> list[Utterance]:
    """Up to `count` clips, equally many of each label, in random order."""
    missing = [one.id for one in keywords if not one.labels.get(label)]
    if missing:
        raise ParameterError(f"{len(missing)} of {len(keywords)} keywords have no {label!r}, first {missing[0]!r}")
    by_label = defaultdict(list)
    for index in rng.permutation(len(keywords)):
        by_label[keywords[index].labels[label]].append(keywords[index])
    turns = sorted((turn, name) for name, clips in by_label.items() for turn in range(len(clips)))
    chosen = [by_label[name][turn] for turn, name in turns[:count]]
    return [chosen[index] for index in rng.permutation(len(chosen))]


def _read(utterance: Utterance, sample_rate: int) -> tuple[np.ndarray, int]:
    """At the level of all speech, and the rate that it was recorded at."""
    audio = read_audio(utterance.path, sample_rate, utterance.channel, utterance.start, utterance.duration)
    energies = _energies(audio.samples, sample_rate)
    loud = energies[energies >= energies.max() * 10 ** (-PAUSE_DB / 10)].mean()
    return audio.samples * np.float32(LEVEL / max(np.sqrt(loud), 1e-9)), audio.source_rate


def _read_word(utterance: Utterance, sample_rate: int) -> tuple[np.ndarray, int]:
    samples, source_rate = _read(utterance, sample_rate)
    window = sample_rate // STEPS_PER_SECOND
    trimmed, _ = librosa.effects.trim(samples, top_db=TRIM_DB, frame_length=window, hop_length=window // 2)
    return _faded(trimmed, sample_rate), source_rate


def _speech(background: Sequence[Utterance], count: int, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """`count` samples of recordings in random order, the last one cut off."""
    pieces: list[np.ndarray] = []
    missing = count
    for index in rng.permutation(len(background)):
        if missing <= 0:
            break
        pieces.append(_faded(_read(background[index], sample_rate)[0][:missing], sample_rate))
        missing -= len(pieces[-1])
    if missing > 0:
        raise ParameterError(
            f"{len(background)} recordings of background have {(count - missing) / sample_rate:.0f} s, and "
            f"{count / sample_rate:.0f} s are needed; give more, or make fewer or shorter recordings"
        )
    return np.concatenate(pieces)


def _energies(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Mean square of every whole step, or of all if that is shorter than one."""
    step = sample_rate // STEPS_PER_SECOND
    count = max(1, len(samples) // step)
    return np.square(samples[: count * step].reshape(count, -1)).mean(axis=1)


def _faded(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """With its ends brought to 0, so that no joint clicks."""
    size = min(round(FADE_SECONDS * sample_rate), len(samples) // 2)
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    result = samples.copy()
    result[:size] *= ramp
    result[len(samples) - size :] *= ramp[::-1]
    return result


def _quiet_places(speech: np.ndarray, count: int, sample_rate: int, rng: np.random.Generator) -> list[int]:
    """Samples to insert before, rising: the speech is cut into `count` equal slots, and each has one."""
    step = sample_rate // STEPS_PER_SECOND
    energies = np.convolve(_energies(speech, sample_rate), np.ones(3) / 3, mode="same")
    slot = len(energies) / max(count, 1)
    reach = min(REACH_SECONDS * STEPS_PER_SECOND, 0.2 * slot)  # so that none leaves its slot
    places = []
    for number in range(count):
        drawn = (number + rng.uniform(0.2, 0.8)) * slot
        near = energies[int(drawn - reach) : int(drawn + reach) + 1]
        places.append((int(drawn - reach) + int(near.argmin())) * step + step // 2)
    return places


def _insert(
    speech: np.ndarray, words: Sequence[np.ndarray], places: Sequence[int], gaps: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, list[int]]:
    """The speech with words in it, each between its gaps, and the sample that each begins with."""
    pieces: list[np.ndarray] = []
    starts: list[int] = []
    length = before = 0
    for word, place, (lead, tail) in zip(words, places, gaps.tolist(), strict=True):
        starts.append(length + place - before + lead)
        pieces += [
            _faded(speech[before:place], sample_rate),
            np.zeros(lead, np.float32),
            word,
            np.zeros(tail, np.float32),
        ]
        length, before = starts[-1] + len(word) + tail, place
    return np.concatenate([*pieces, _faded(speech[before:], sample_rate)]).astype(np.float32), starts


def _limited(samples: np.ndarray, sample_rate: int, band: Any) -> np.ndarray:
    """What a recording at the rate `band` would have kept, within full scale."""
    if band is not None and not isinstance(band, int):
        raise ParameterError(f"band={band!r} must be a sample rate in Hz, 'keywords' or None")
    if band is not None and band < sample_rate:
        narrow = soxr.resample(samples, sample_rate, band, quality=RESAMPLER_QUALITY)
        wide = soxr.resample(narrow, band, sample_rate, quality=RESAMPLER_QUALITY)
        samples = np.pad(wide, (0, max(0, len(samples) - len(wide))))[: len(samples)]
    return np.clip(samples, -1, 1)
