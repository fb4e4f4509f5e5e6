"""The whole experiment of keywords in long recordings: make them, train a detector, listen, compare.

result = spot_keywords(keywords, background, "runs/long")
print(result.report.text())
result.head.save("runs/long/head")
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from speechfeat.corpora.base import Corpus
from speechfeat.corpus import discover
from speechfeat.detection import Listening, detect
from speechfeat.detectors import train_detector
from speechfeat.encoders.base import Encoder
from speechfeat.encoders.catalog import DEFAULT_MODEL
from speechfeat.encoders.loading import as_encoder
from speechfeat.errors import ParameterError
from speechfeat.experiments.features import corpus_features, model_slug
from speechfeat.experiments.mixing import without_words, write_long_recordings
from speechfeat.experiments.spot import SpottingReport, evaluate_detections
from speechfeat.heads.pooled import PooledHead
from speechfeat.leaks import SPEAKER_COLUMNS
from speechfeat.store import Store
from speechfeat.types import Utterance

RECORDINGS, PARTS = "recordings", ("train", "test")
# Low enough that the curve reaches tens of false alarms an hour.
LOWEST = 0.01
_DIGITS = dict(enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]))


@dataclass(frozen=True)
class SpottingPlan:
    """How long recordings are made and listened to.

    Attributes:
        seconds: of a recording.
        num_train: recordings to train on.
        num_test: recordings to test on.
        train_every: seconds from one keyword to the next, where it is trained on.
        test_every: the same, where it is tested.
        test_share: of the speakers of the keywords, and of those of the background, that are kept for testing.
        test_groups: the speakers of keywords that are kept for testing, instead of that share.
        false_alarms_per_hour: that are allowed.
        seed: of everything that is drawn.
    """

    seconds: float = 600.0
    num_train: int = 6
    num_test: int = 6
    train_every: float = 3.0
    test_every: float = 6.0
    test_share: float = 0.4
    test_groups: Sequence[str] | None = None
    false_alarms_per_hour: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class SpottingResult:
    """What came of it.

    Attributes:
        head: that detects, with the threshold that gave the overall rate of the report.
        report: of the test recordings.
        events: of the test recordings: id, label, start, end, source.
        detections: in the test recordings, from a low threshold on.
        test_groups: speakers of the keywords that were tested.
        store: of the test recordings.
    """

    head: PooledHead
    report: SpottingReport
    events: pd.DataFrame
    detections: pd.DataFrame = field(repr=False)
    test_groups: list[str]
    store: Store


def spot_keywords(
    keywords: Corpus,
    background: Corpus | Sequence[Utterance] | str | os.PathLike[str],
    folder: str | os.PathLike[str],
    model: str | nn.Module | Encoder = DEFAULT_MODEL,
    layers: Any = "auto",
    *,
    kind: str = "logistic",
    plan: SpottingPlan | None = None,
    pool: str = "mean+std",
    device: str = "auto",
    dtype: str = "auto",
    quiet: bool = False,
    encoder_options: Any = None,
    **options: Any,
) -> SpottingResult:
    """Train a detector on made recordings of some speakers, and test it on made recordings of others.

    A second run takes the recordings and features that are there.

    Args:
        keywords: clips of single words; its group, such as the speaker, is what training and testing do not share.
        background: other speech, as a corpus, utterances, or what `corpus.discover` takes. Where there are transcripts
            (label "text"), what holds a keyword by them, or has none, is left out; speakers are kept apart too.
        folder: that gets recordings and features.
        model: as for `load_encoder`, or an encoder.
        layers: "auto" for the one that, on the training recordings, tells most of the words of other speakers, or the
            penultimate where speakers are not known; else as for `load_encoder`, several being laid side by side.
        kind: of head, one of `POOLED_KINDS`.
        plan: how; None for an hour to train on and an hour to test on.
        pool: of windows: "mean", "std", "mean+std" or "max".
        device: as for `load_encoder`.
        dtype: as for `load_encoder`.
        quiet: no progress bar.
        encoder_options: further arguments of `load_encoder`.
        options: of `train_detector`.

    Raises:
        ParameterError: if the speakers do not suffice, or as of `write_long_recordings` and `train_detector`.
        SpeechfeatError: as of `corpus_features`.
    """
    how = plan or SpottingPlan()
    words = _divide(keywords, how.test_share, how.seed, how.test_groups)
    events = _make_recordings(Path(folder) / RECORDINGS, keywords, words, background, how)
    # In folds of the same speakers the lower layers look best: they know the speakers.
    is_auto = layers == "auto" and keywords.group is not None
    if layers == "auto":
        layers = "all" if is_auto and not isinstance(model, Encoder) else "penultimate"
    encoder = as_encoder(model, layers, device=device, dtype=dtype, **(encoder_options or {}))
    made = Corpus("long recordings", discover(Path(folder) / RECORDINGS), keywords.label)
    store = corpus_features(
        made, _features_folder(Path(folder), encoder), encoder, "penultimate", pool=pool, frames=True, quiet=quiet
    ).store
    train, test = ([key for key in store.ids if key.startswith(f"{part}/")] for part in PARTS)
    head = train_detector(
        store,
        events,
        kind,
        ids=train,
        layers="auto" if is_auto else None,
        task=keywords.label,
        seed=how.seed,
        **options,
    )
    spoken = events[events["id"].isin(test)].reset_index(drop=True)
    detections = detect(head, store, test, threshold=LOWEST)
    durations = store.table().set_index("id")["duration"].loc[test].to_dict()
    report = evaluate_detections(detections, spoken, durations, false_alarms_per_hour=how.false_alarms_per_hour)
    _keep(head, report)
    tested = sorted(set(_groups(replace(keywords, utterances=words[1]))))
    return SpottingResult(head, report, spoken, detections, tested, store)


def _features_folder(folder: Path, encoder: Encoder) -> Path:
    """One for every encoder and choice of its layers."""
    chosen = "layers" if encoder.selection.stacked else "layer"
    return folder / "-".join([model_slug(encoder.name), chosen, *map(str, encoder.selection.indices)])


def _make_recordings(
    folder: Path,
    keywords: Corpus,
    words: tuple[list[Utterance], list[Utterance]],
    background: Corpus | Sequence[Utterance] | str | os.PathLike[str],
    how: SpottingPlan,
) -> pd.DataFrame:
    """Recordings to train on and to test on, from words that are divided already; their events."""
    speech = _divide(_other_speech(background, keywords), how.test_share, how.seed)
    numbers, spacings = (how.num_train, how.num_test), (how.train_every, how.test_every)
    tables = []
    for part, clips, others, num, every in zip(PARTS, words, speech, numbers, spacings, strict=True):
        events = write_long_recordings(
            folder / part,
            clips,
            others,
            num=num,
            seconds=how.seconds,
            every=every,
            seed=how.seed,
            label=keywords.label,
            group=keywords.group or "speaker",
        )
        tables.append(events.assign(id=f"{part}/" + events["id"]))
    return pd.concat(tables, ignore_index=True)


def _keep(head: PooledHead, report: SpottingReport) -> None:
    """Let the head report what gave the rate in the report, and say how good that is."""
    overall = report.overall
    how = Listening.of(head)
    if how is not None and overall["threshold"] <= 1:
        replace(how, threshold=overall["threshold"]).keep(head)
    head.score(
        false_alarms_per_hour=report.false_alarms_per_hour,
        false_rejection=[overall[name] for name in ("false_rejection", "low", "high")],
    )


def _other_speech(background: Corpus | Sequence[Utterance] | str | os.PathLike[str], keywords: Corpus) -> Corpus:
    """The background without utterances in which a keyword is, as far as there are transcripts."""
    if isinstance(background, str | os.PathLike):
        background = discover(background)
    corpus = background if isinstance(background, Corpus) else Corpus("background", background, "text")
    words = {_DIGITS[int(name)] if re.fullmatch("[0-9]", name) else name for name in keywords.values()}
    return replace(corpus, utterances=without_words(corpus.utterances, words))


def _divide(
    corpus: Corpus, share: float, seed: int, chosen: Sequence[str] | None = None
) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances to train on and to test on: groups chosen, or drawn until they have a share of the utterances.

    Where there is no group, each utterance is one.
    """
    groups = _groups(corpus)
    known = sorted(set(groups))
    if chosen is None:
        rng = np.random.default_rng(seed)
        drawn = [known[index] for index in rng.permutation(len(known))]
        counts = pd.Series(groups).value_counts()
        taken = np.cumsum([counts[name] for name in drawn])
        chosen = drawn[: max(1, int(np.searchsorted(taken, share * len(groups), side="right")))]
    if unknown := set(chosen).difference(known):
        raise ParameterError(f"{corpus.name!r} has no {sorted(unknown)[0]!r} to test; it has {', '.join(known[:12])}")
    sides: tuple[list[Utterance], list[Utterance]] = ([], [])
    for utterance, group in zip(corpus.utterances, groups, strict=True):
        sides[group in set(chosen)].append(utterance)
    if not all(sides):
        raise ParameterError(
            f"{corpus.name!r} has {len(known)} speakers or other groups, too few to test on some and train on others"
        )
    return sides


def _groups(corpus: Corpus) -> list[str]:
    """Of every utterance what training and testing do not share; its id where nothing is known."""
    labels = {name for utterance in corpus.utterances for name in utterance.labels}
    group = corpus.group or next((name for name in SPEAKER_COLUMNS if name in labels), None)
    return [one.labels.get(group, "") if group else one.id for one in corpus.utterances]
