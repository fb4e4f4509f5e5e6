"""Made recordings with keywords at known times, and what detections in them are worth."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from speechfeat.corpora.base import Corpus
from speechfeat.corpora.opening import open_corpus
from speechfeat.detection import BACKGROUND, detect
from speechfeat.encoders.loading import load_encoder
from speechfeat.errors import ParameterError
from speechfeat.experiments.listening import SpottingPlan, spot_keywords
from speechfeat.experiments.mixing import LEVEL, make_long_recording, without_words, write_long_recordings
from speechfeat.experiments.spot import evaluate_detections
from speechfeat.spotting import false_rejection_at, match_detections
from speechfeat.types import Utterance
from tests.spoken import RATE, WORDS, write_background, write_words


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    return write_background(tmp_path_factory.mktemp("background"), 24)


def share_of_tone(samples: np.ndarray, name: str) -> float:
    """Of the energy, within 5 % of a word's pitch and its overtone."""
    energy = np.abs(np.fft.rfft(samples)) ** 2
    pitch = np.fft.rfftfreq(len(samples), 1 / RATE) / WORDS[name]
    return float(energy[(np.abs(pitch - 1) < 0.05) | (np.abs(pitch - 2) < 0.1)].sum() / energy.sum())


def test_words_are_where_the_events_say(words: list[Utterance], background: list[Utterance]) -> None:
    samples, events = make_long_recording(words, background, 40, every=4)
    assert samples.dtype == np.float32
    assert len(samples) == 40 * RATE
    assert events["label"].value_counts().to_dict() == {"low": 5, "high": 5}
    assert events["source"].is_unique
    assert (events["start"].to_numpy()[1:] > events["end"].to_numpy()[:-1]).all()
    speakers = {one.id: one.labels["speaker"] for one in words}
    covered = np.zeros(len(samples), bool)
    for event in events.itertuples():
        assert event.source.startswith(event.label)
        assert event.group == speakers[event.source]
        span = slice(round(event.start * RATE), round(event.end * RATE))
        covered[span] = True
        assert 0.3 < event.end - event.start < 0.5
        assert share_of_tone(samples[span], event.label) > 0.95
        level = np.sqrt(np.mean(samples[span] ** 2))
        assert abs(20 * np.log10(level / LEVEL)) < 4, "within vary_db, apart from fades"
    assert max(share_of_tone(samples[~covered], name) for name in WORDS) < 0.3
    assert np.abs(samples).max() < 1


def test_equal_seeds_give_equal_recordings(words: list[Utterance], background: list[Utterance]) -> None:
    one, first = make_long_recording(words, background, 20, 3)
    same, again = make_long_recording(words, background, 20, 3)
    other, _ = make_long_recording(words, background, 20, 4)
    assert np.array_equal(one, same)
    pd.testing.assert_frame_equal(first, again)
    assert not np.array_equal(one, other)


def test_pauses_are_not_digital_silence(words: list[Utterance], background: list[Utterance]) -> None:
    samples, events = make_long_recording(words, background, 20, every=5, gap=(0.2, 0.2), band=None)
    for start in events["start"]:
        pause = samples[round((start - 0.19) * RATE) : round((start - 0.01) * RATE)]
        assert 0 < np.sqrt(np.mean(pause**2)) < LEVEL / 50


def test_the_band_is_that_of_the_narrowest_keyword(
    words: list[Utterance], background: list[Utterance], tmp_path: Path
) -> None:
    file = tmp_path / "narrow.wav"
    soundfile.write(file, 0.1 * np.sin(np.arange(4000) / 3), 8000)
    narrow = [*words, Utterance("narrow", str(file), labels={"keyword": "narrow"})]

    def high(**options: object) -> float:
        samples, _ = make_long_recording(narrow, background, 10, every=3, **options)  # type: ignore[arg-type]
        energy = np.abs(np.fft.rfft(samples)) ** 2
        return float(energy[np.fft.rfftfreq(len(samples), 1 / RATE) > 4200].sum() / energy.sum())

    assert high() < 1e-4
    assert high(band=8000) < 1e-4
    assert high(band=None) > 0.1
    wide = make_long_recording(words, background, 10, every=3)[0]
    assert np.array_equal(wide, make_long_recording(words, background, 10, every=3, band=None)[0])


def test_without_keywords_there_is_background_alone(background: list[Utterance]) -> None:
    samples, events = make_long_recording([], background, 10)
    assert len(samples) == 10 * RATE
    assert events.empty
    assert list(events.columns) == ["label", "start", "end", "group", "source"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds=0"),
        ({"every": 0}, "every=0"),
        ({"gap": (0.3, 0.1)}, r"gap=\(0.3, 0.1\)"),
        ({"every": 0.3, "seconds": 10}, "do not fit into 10"),
        ({"seconds": 500}, "24 recordings of background have 96 s, and 4.. s are needed"),
        ({"label": "word"}, "24 of 24 keywords have no 'word'"),
        ({"band": "narrow"}, "band='narrow'"),
    ],
)
def test_recordings_that_cannot_be_made(
    options: dict, message: str, words: list[Utterance], background: list[Utterance]
) -> None:
    with pytest.raises(ParameterError, match=message):
        make_long_recording(words, background, **{"seconds": 20, **options})


def test_written_recordings_share_nothing_and_are_made_once(
    words: list[Utterance], background: list[Utterance], tmp_path: Path
) -> None:
    made = write_long_recordings(tmp_path / "long", words, background, num=2, seconds=20, every=4)
    assert made["id"].value_counts().to_dict() == {"0000.flac": 5, "0001.flac": 5}
    assert made["source"].is_unique
    times = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "long").iterdir()}
    again = write_long_recordings(tmp_path / "long", words, background, num=2, seconds=20, every=4)
    pd.testing.assert_frame_equal(made, again)
    assert times == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "long").iterdir()}
    with pytest.raises(ParameterError, match="made otherwise"):
        write_long_recordings(tmp_path / "long", words, background[1:], num=2, seconds=20, every=4)


def test_what_holds_keywords_or_may_hold_them_is_left_out() -> None:
    texts = ["One, two.", "Someone else", "the ONE", "", "c++ is fun"]
    given = [Utterance(str(number), "x", labels={"text": text}) for number, text in enumerate(texts)]
    assert [one.id for one in without_words(given, ["one"])] == ["1", "4"]
    assert [one.id for one in without_words(given, [])] == ["0", "1", "2", "4"]
    assert len(without_words([replace(one, labels={}) for one in given], ["one"])) == 5, "nothing is known of any"


def detections_of(events: pd.DataFrame, shift: float = 0.0) -> pd.DataFrame:
    return events.assign(probability=0.9, start=events["start"] + shift, end=events["end"] + shift)


@pytest.fixture
def events() -> pd.DataFrame:
    """A word every 10 s of an hour, of two in turn."""
    starts = np.arange(3, 3600, 10.0)
    return pd.DataFrame({"id": "day", "label": ["a", "b"] * (len(starts) // 2), "start": starts, "end": starts + 0.4})


HOUR = {"day": 3600.0}


def test_all_found_is_no_miss_and_no_error(events: pd.DataFrame) -> None:
    report = evaluate_detections(detections_of(events), events, HOUR, num=20)
    assert report.keywords["label"].tolist() == ["a", "b"]
    assert report.keywords[["events", "false_rejection", "low", "high"]].to_numpy().tolist() == [[180, 0, 0, 0]] * 2
    assert report.overall == {"events": 360, "false_rejection": 0, "low": 0, "high": 0, "threshold": 0.9}
    assert report.times[["found", "median", "quantile_90", "close"]].to_numpy().tolist() == [[360, 0, 0, 1]] * 2
    assert report.hours == 1
    assert list(report.curves) == ["a", "b", "all keywords"]
    assert "all keywords    0.0 % (0.0-0.0) of 360" in report.text()
    assert json.loads(json.dumps(report.describe()))["overall"]["events"] == 360


def test_errors_of_times_are_those_of_the_spans(events: pd.DataFrame) -> None:
    late = detections_of(events, 0.3)
    late["end"] -= 0.2
    times = evaluate_detections(late, events, HOUR, num=2).times.set_index("time")
    assert times.loc["start", ["median", "quantile_90", "close"]].tolist() == pytest.approx([0.3, 0.3, 0])
    assert times.loc["end", ["median", "quantile_90", "close"]].tolist() == pytest.approx([0.1, 0.1, 1])


def test_rates_are_those_without_stretches(events: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    heard = detections_of(events, 0.1).assign(probability=rng.uniform(0.3, 1, len(events)))
    alarms = pd.DataFrame({"id": "day", "label": "a", "start": rng.uniform(0, 3599, 100)})
    alarms = alarms.assign(end=alarms["start"] + 0.4, probability=rng.uniform(0, 0.7, 100))
    found = pd.concat([heard[heard.index % 4 < 2], alarms])
    report = evaluate_detections(found, events, HOUR, false_alarms_per_hour=10, num=50)
    for row in report.keywords.to_dict("records"):
        own, spoken = found[found["label"] == row["label"]], events[events["label"] == row["label"]]
        whole = match_detections(
            [(one.id, (one.start + one.end) / 2, one.probability) for one in own.itertuples()],
            [(one.id, one.start, one.end) for one in spoken.itertuples()],
            HOUR,
        )
        assert row["false_rejection"] == false_rejection_at(whole.scores, whole.labels, whole.hours, 10)
        assert row["low"] <= row["false_rejection"] <= row["high"]
        assert row["low"] < row["high"]
    assert report.overall["false_rejection"] >= 0.5, "half of them is not heard at all"


def test_intervals_are_wide_where_misses_come_together(events: pd.DataFrame) -> None:
    scattered = evaluate_detections(detections_of(events)[lambda one: one.index % 4 > 1], events, HOUR)
    together = evaluate_detections(detections_of(events)[lambda one: one.index % 24 > 11], events, HOUR)
    assert scattered.overall["false_rejection"] == together.overall["false_rejection"] == 0.5
    assert together.overall["high"] - together.overall["low"] > 2 * (
        scattered.overall["high"] - scattered.overall["low"]
    )


def test_a_keyword_that_is_never_spoken_has_false_alarms(events: pd.DataFrame) -> None:
    spoken = events[events["label"] == "a"]
    report = evaluate_detections(detections_of(events), spoken, HOUR, num=2)
    assert report.keywords["label"].tolist() == ["a"]
    assert report.keywords["false_rejection"].tolist() == [0]
    assert report.overall["false_rejection"] == 1, "180 false alarms of b, at any threshold"
    assert report.times["found"].tolist() == [0, 0]
    assert report.describe()["overall"]["threshold"] is None
    assert "null" in json.dumps(report.describe(), allow_nan=False)


def test_what_cannot_be_compared(events: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match="no event"):
        evaluate_detections(detections_of(events), events[:0], HOUR)
    with pytest.raises(ParameterError, match="'night' has no duration"):
        evaluate_detections(detections_of(events).assign(id="night"), events, HOUR)


def test_the_whole_experiment(words: list[Utterance], background: list[Utterance], tmp_path: Path) -> None:
    keywords = Corpus("words", words, "keyword", "speaker")
    plan = SpottingPlan(seconds=12, num_train=2, num_test=1, train_every=2, test_every=3)
    result = spot_keywords(keywords, background, tmp_path, "mfcc", plan=plan, quiet=True, hop=0.02)
    assert result.report.overall["false_rejection"] == 0
    assert result.report.times["quantile_90"].max() < 0.1
    assert result.head.classes == [BACKGROUND, "high", "low"]
    assert len(detect(result.head, result.store, sorted(set(result.events["id"])))) == len(result.events)
    assert result.head.record.scores["false_rejection"][0] == 0
    by_id = {one.id: one.labels["speaker"] for one in words}
    assert {by_id[source] for source in result.events["source"]} == set(result.test_groups)
    trained = pd.read_csv(tmp_path / "recordings" / "train" / "events.csv")
    assert {by_id[source] for source in trained["source"]}.isdisjoint(result.test_groups)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.flac")}
    again = spot_keywords(keywords, background, tmp_path, "mfcc", plan=plan, quiet=True, hop=0.02)
    pd.testing.assert_frame_equal(again.detections, result.detections)
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.flac")}
    loaded = spot_keywords(keywords, background, tmp_path, load_encoder("mfcc"), plan=plan, quiet=True, hop=0.02)
    pd.testing.assert_frame_equal(loaded.detections, result.detections)
    with pytest.raises(ParameterError, match="has no 'nobody' to test"):
        spot_keywords(keywords, background, tmp_path, "mfcc", plan=replace(plan, test_groups=["nobody"]), quiet=True)
    alone = replace(keywords, utterances=[one for one in words if one.labels["speaker"] == "s0"])
    with pytest.raises(ParameterError, match="has 1 speakers or other groups, too few"):
        spot_keywords(alone, background, tmp_path, "mfcc", plan=plan, quiet=True)


@pytest.mark.shared
def test_digits_of_unknown_speakers_are_found_in_speech(shared: Path, tmp_path: Path) -> None:
    digits = open_corpus("manifest", shared / "data" / "fsdd.tsv", label="keyword", group="speaker")
    plan = SpottingPlan(seconds=120, num_train=3, num_test=1, train_every=2, test_every=4, false_alarms_per_hour=60)
    speech = shared / "data" / "common_voice_en.tsv"
    result = spot_keywords(digits, speech, tmp_path, layers="penultimate", plan=plan, quiet=True)
    assert result.report.overall["events"] == 30
    assert result.report.overall["false_rejection"] <= 0.5
    assert result.report.times["close"].min() >= 0.9
