"""Planted leaks are found, one kind at a time; clean splits are clean."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from speechfeat.errors import ParameterError
from speechfeat.leaks import leak_report, plain_text
from speechfeat.types import Utterance

TRAIN, TEST = [0, 1, 2, 3], [4, 5]
Plant = Callable[[list[Utterance]], None]


def label(rows: list[Utterance], row: int, **labels: str) -> None:
    rows[row] = replace(rows[row], labels={**rows[row].labels, **labels})


@pytest.fixture
def rows(tmp_path: Path) -> list[Utterance]:
    """Six recordings of one size, two a speaker; the speaker of the last two is tested."""
    rng = np.random.default_rng(0)
    result = []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(rng.bytes(1000))
        labels = {"speaker": f"s{number // 2}", "text": f"Sentence number {number}."}
        result.append(Utterance(f"u{number}", str(path), labels=labels))
    return result


def test_a_clean_split(rows: list[Utterance]) -> None:
    report = leak_report(rows, TRAIN, TEST)
    assert report.is_clean
    assert report.text().splitlines() == [
        "4 utterances to train on, 2 to test on",
        "speakers: none on both sides",
        "recordings: none on both sides",
        "sentences: none on both sides",
    ]


def plant_copy(rows: list[Utterance]) -> None:
    Path(rows[5].path).write_bytes(Path(rows[1].path).read_bytes())


def plant_link(rows: list[Utterance]) -> None:
    Path(rows[5].path).unlink()
    Path(rows[5].path).symlink_to(rows[1].path)


def plant_segment(rows: list[Utterance]) -> None:
    rows[1] = replace(rows[1], start=0.0, duration=1.0)
    rows[5] = replace(rows[5], path=rows[1].path, start=1.0, duration=1.0)


def plant_segment_of_a_missing_file(rows: list[Utterance]) -> None:
    plant_segment(rows)
    Path(rows[1].path).unlink()


@pytest.mark.parametrize("plant", [plant_copy, plant_link, plant_segment, plant_segment_of_a_missing_file])
def test_a_shared_recording(rows: list[Utterance], plant: Plant) -> None:
    plant(rows)
    report = leak_report(rows, TRAIN, TEST)
    assert not report.is_clean
    assert report.recordings == replace(
        report.recordings, count=1, train=1, test=1, unknown=0, examples=((rows[5].path, "u1", "u5"),)
    )
    assert report.speakers.count == report.sentences.count == 0


def test_a_shared_speaker(rows: list[Utterance]) -> None:
    label(rows, 4, speaker="s0")
    report = leak_report(rows, TRAIN, TEST)
    assert (report.speakers.count, report.speakers.train, report.speakers.test) == (1, 2, 1)
    assert report.speakers.examples == (("s0", "u0", "u4"),)
    assert report.recordings.count == report.sentences.count == 0
    assert "speakers: 1 on both sides: 1 of 2 utterances to test on have one that 2 to train on have" in report.text()
    assert "'s0': train 'u0', test 'u4'" in report.text()


def test_a_shared_sentence(rows: list[Utterance]) -> None:
    label(rows, 4, text="it's eleven O\u2019CLOCK")
    label(rows, 0, text="It's eleven o'clock!")
    report = leak_report(rows, TRAIN, TEST)
    assert (report.sentences.count, report.sentences.train, report.sentences.test) == (1, 1, 1)
    assert report.speakers.count == report.recordings.count == 0
    assert not report.is_clean


def test_the_same_within_one_side_is_no_leak(rows: list[Utterance]) -> None:
    Path(rows[1].path).write_bytes(Path(rows[0].path).read_bytes())
    label(rows, 1, text="Sentence number 0.")
    assert leak_report(rows, TRAIN, TEST).is_clean


def test_few_examples_of_many(rows: list[Utterance]) -> None:
    many = [replace(rows[0], id=f"u{n}", labels={"speaker": f"s{n % 10}"}) for n in range(20)]
    report = leak_report(many, np.arange(10), np.arange(10, 20))
    assert report.speakers.count == 10
    assert len(report.speakers.examples) == 3
    assert report.sentences is None
    assert "sentences: not checked" in report.text()


def test_a_table_is_like_utterances(rows: list[Utterance]) -> None:
    plant_copy(rows)
    label(rows, 4, speaker="s0")
    table = pd.DataFrame([{"id": row.id, "path": row.path, **row.labels} for row in rows])
    table.index = table.index + 100  # rows are counted, whatever their names
    assert leak_report(table, TRAIN, TEST) == leak_report(rows, TRAIN, TEST)


def test_columns_by_name(rows: list[Utterance]) -> None:
    renamed = [replace(row, labels={"who": row.labels["speaker"], "said": "the same"}) for row in rows]
    unnamed = leak_report(renamed, TRAIN, TEST)
    assert unnamed.speakers is None and unnamed.sentences is None and unnamed.is_clean
    named = leak_report(renamed, TRAIN, TEST, speaker="who", text="said")
    assert (named.speakers.count, named.sentences.count) == (0, 1)
    with pytest.raises(ParameterError, match="speaker='whom' is no label of the rows; they have who, said, id, path"):
        leak_report(renamed, TRAIN, TEST, speaker="whom")


def test_what_is_not_known_is_told(rows: list[Utterance]) -> None:
    label(rows, 4, speaker="")
    rows[1] = replace(rows[1], labels={"text": "?!"})
    Path(rows[5].path).unlink()
    report = leak_report(rows, TRAIN, TEST)
    assert (report.speakers.unknown, report.recordings.unknown, report.sentences.unknown) == (2, 1, 1)
    assert "recordings: none on both sides; unknown for 1 utterances" in report.text()


def test_a_changed_file_is_read_again(rows: list[Utterance]) -> None:
    assert leak_report(rows, TRAIN, TEST).is_clean
    plant_copy(rows)
    os.utime(rows[5].path, ns=(1, 1))
    assert leak_report(rows, TRAIN, TEST).recordings.count == 1


def test_it_can_be_written_as_json(rows: list[Utterance]) -> None:
    plant_copy(rows)
    report = leak_report(rows, TRAIN, TEST)
    read = json.loads(json.dumps(asdict(report)))
    assert read["recordings"]["count"] == 1
    assert read["num_train"] == 4


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Kids are talking by the door.", "kids are talking by the door"),
        ("  WELL-known,\tisn\u2019t it? ", "well known isnt it"),
        ("STRASSE stra\u00dfe", "strasse strasse"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947!", "\u0928\u092e\u0938\u094d\u0924\u0947"),
        ("...", None),
        (None, None),
    ],
)
def test_plain_text(text: str | None, plain: str | None) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        ([], [1], r"train has the shape \(0,\)"),
        ([0], [6], "test has rows from 6 to 6; there are 6, from 0"),
        ([-1], [1], "train has rows from -1"),
        ([0.5], [1], "type float64; give row numbers"),
    ],
)
def test_bad_sides_are_refused(rows: list[Utterance], train: list, test: list, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        leak_report(rows, train, test)


def test_a_table_without_paths_is_refused() -> None:
    with pytest.raises(ParameterError, match="no column path"):
        leak_report(pd.DataFrame({"id": ["a", "b"]}), [0], [1])
