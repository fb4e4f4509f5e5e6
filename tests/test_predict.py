"""The predict command, as a user runs it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from speechfeat.detectors import train_detector
from speechfeat.errors import ModelError, ParameterError, SpeechfeatError, StoreError
from speechfeat.experiments.mixing import write_long_recordings
from speechfeat.extraction import extract_features
from speechfeat.heads.base import Head
from speechfeat.heads.opening import train_head
from speechfeat.predict import main
from speechfeat.progress import Progress
from speechfeat.store import Store
from tests.conftest import REPOSITORY
from tests.spoken import RATE, murmur, write_background, write_words

NAMES = {"high": 'früh, "spät"', "low": "東京"}


def run(*arguments: object) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "speechfeat.predict", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_words(folder, 6)
    return folder


@pytest.fixture(scope="module")
def features(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return extract_features(clips, tmp_path_factory.mktemp("features") / "store", "mfcc", pool="mean+std")


def told(store: Store) -> list[str]:
    return [NAMES["low" if key.startswith("low") else "high"] for key in store.ids]


@pytest.fixture(scope="module")
def classifier(features: Store, tmp_path_factory: pytest.TempPathFactory) -> Head:
    head = train_head(features, told(features), task="word")
    head.score(accuracy=0.5)
    head.save(tmp_path_factory.mktemp("classifier") / "head")
    return head


@pytest.fixture(scope="module")
def saved(classifier: Head, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("saved") / "head"
    classifier.save(path)
    return str(path)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_good_and_bad_files_through_the_command(
    clips: Path, saved: str, classifier: Head, features: Store, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(clips, mixed)
    (mixed / "broken.wav").write_text("no audio")
    (mixed / "empty.flac").write_bytes(b"")
    out = tmp_path / "new" / "out.csv"
    code, output, errors = run(saved, mixed, "-o", out, "--json", "-q")
    assert code == 3, errors
    summary = json.loads(output)
    assert (summary["done"], summary["failed"], summary["rows"]) == (12, 2, 12)
    found = rows(out)
    assert list(found[0]) == ["id", "path", "label", "probability", *(f"p_{name}" for name in classifier.classes)]
    assert [row["id"] for row in found] == features.ids
    assert [row["path"] for row in found] == [str(mixed / key) for key in features.ids]
    assert [row["label"] for row in found] == told(features)
    expected = classifier.probabilities(features)
    assert np.allclose([[float(row[f"p_{name}"]) for name in classifier.classes] for row in found], expected, atol=1e-4)
    failures = [json.loads(line) for line in Path(f"{out}.errors.jsonl").read_text().splitlines()]
    assert [failure["id"] for failure in failures] == ["broken.wav", "empty.flac"]
    assert str(out) + ".errors.jsonl" in errors
    (mixed / "broken.wav").unlink()
    (mixed / "empty.flac").unlink()
    assert main([saved, str(mixed), "-o", str(out), "-q"]) == 0
    assert not Path(f"{out}.errors.jsonl").exists()


def test_nothing_but_bad_files_is_a_table_without_rows(saved: str, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_text("no audio")
    assert main([saved, str(tmp_path), "-o", str(tmp_path / "out.csv"), "-q", "--tta", "1"]) == 3
    assert rows(tmp_path / "out.csv") == []
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").startswith("id,path,label,probability,")


def test_forms_of_the_table(
    clips: Path, saved: str, features: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in ("csv", "tsv", "jsonl"):
        assert main([saved, str(clips), "-o", str(tmp_path / f"out.{suffix}"), "-q"]) == 0
    assert main([saved, str(clips), "-q"]) == 0
    assert capsys.readouterr().out == (tmp_path / "out.csv").read_text()
    tables = [
        pd.read_csv(tmp_path / "out.csv"),
        pd.read_csv(tmp_path / "out.tsv", sep="\t"),
        pd.read_json(tmp_path / "out.jsonl", lines=True),
    ]
    for table in tables:
        assert table["label"].tolist() == told(features)
        assert np.allclose(table["probability"], tables[0]["probability"], atol=1e-5)


def test_below_the_threshold_there_is_no_label(
    clips: Path, saved: str, classifier: Head, features: Store, tmp_path: Path
) -> None:
    shares = classifier.probabilities(features).max(axis=1)
    threshold = float(np.median(shares))
    assert main([saved, str(clips), "-o", str(tmp_path / "out.csv"), "-q", "--threshold", str(threshold)]) == 0
    found = rows(tmp_path / "out.csv")
    assert [row["label"] == "" for row in found] == (shares < threshold).tolist()
    assert [float(row["probability"]) for row in found] == pytest.approx(shares, abs=1e-4)
    assert main([saved, str(clips), "-o", str(tmp_path / "out.jsonl"), "-q", "--threshold", "1"]) == 0
    assert {json.loads(line)["label"] for line in (tmp_path / "out.jsonl").read_text().splitlines()} == {None}


def test_the_likeliest_labels(clips: Path, saved: str, tmp_path: Path) -> None:
    assert main([saved, str(clips), "-o", str(tmp_path / "out.csv"), "-q", "--top-k", "5"]) == 0
    found = rows(tmp_path / "out.csv")
    assert list(found[0]) == ["id", "path", "label", "probability", "label_2", "probability_2"]
    for row in found:
        assert {row["label"], row["label_2"]} == set(NAMES.values())
        assert float(row["probability"]) + float(row["probability_2"]) == pytest.approx(1, abs=1e-5)


def test_answers_averaged_over_augmented_copies(
    clips: Path, saved: str, classifier: Head, features: Store, tmp_path: Path
) -> None:
    arguments = [saved, str(clips), "-q", "--tta", "2", "--features", str(tmp_path / "kept")]
    assert main([*arguments, "-o", str(tmp_path / "out.csv")]) == 0
    found = rows(tmp_path / "out.csv")
    assert [row["id"] for row in found] == features.ids
    copies = Store(tmp_path / "kept-copies2")
    assert copies.ids == [f"{key}#{number}" for key in features.ids for number in (1, 2)]
    shares = [classifier.probabilities(features)]
    shares += [classifier.probabilities(copies, [f"{key}#{number}" for key in features.ids]) for number in (1, 2)]
    expected = np.mean(shares, axis=0)
    assert np.allclose([[float(row[f"p_{name}"]) for name in classifier.classes] for row in found], expected, atol=1e-4)
    assert not np.allclose(expected, shares[0], atol=1e-3)
    # With what is kept, and without: the copies are the same.
    assert main([*arguments, "-o", str(tmp_path / "again.csv")]) == 0
    assert main([*arguments[:-2], "-o", str(tmp_path / "afresh.csv")]) == 0
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "out.csv").read_text()
    assert (tmp_path / "afresh.csv").read_text() == (tmp_path / "out.csv").read_text()


def test_what_a_head_is(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([saved, "--info"]) == 0
    shown = capsys.readouterr().out
    for expected in ("logistic", "word: ", "東京", "mfcc", "mean+std", "score accuracy", "trained on utterances"):
        assert expected in shown
    assert main([saved, "--info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["binding"]["layers"] == [0]


def test_a_head_on_frames(clips: Path, tmp_path: Path) -> None:
    store = extract_features(clips, tmp_path / "store", "mfcc", pool="none")
    head = train_head(store, told(store), "linear")
    head.save(tmp_path / "head")
    assert main([str(tmp_path / "head"), str(clips), "-o", str(tmp_path / "out.csv"), "-q"]) == 0
    assert [row["label"] for row in rows(tmp_path / "out.csv")] == head.predict(store)["label"].tolist()


def test_keywords_in_a_long_recording(tmp_path: Path) -> None:
    words, background = write_words(tmp_path / "words"), write_background(tmp_path / "background")
    events = write_long_recordings(tmp_path / "long", words, background, num=2, seconds=20, every=2)
    store = extract_features(tmp_path / "long", tmp_path / "store", "mfcc", pool="mean+std")
    train_detector(store, events, hop=0.02).save(tmp_path / "head")
    long = tmp_path / "long" / "0001.flac"
    assert main([str(tmp_path / "head"), str(long), "-o", str(tmp_path / "out.csv"), "-q"]) == 0
    found = pd.read_csv(tmp_path / "out.csv")
    spoken = events[events["id"] == "0001.flac"]
    assert list(found.columns) == ["id", "path", "label", "probability", "start", "end"]
    assert found["label"].tolist() == spoken["label"].tolist()
    assert np.abs(found["start"].to_numpy() - spoken["start"].to_numpy()).max() < 0.2
    assert set(found["path"]) == {str(long)}
    assert main([str(tmp_path / "head"), str(long), "-o", str(tmp_path / "more.csv"), "-q", "--threshold", "0"]) == 0
    assert len(rows(tmp_path / "more.csv")) > len(found)
    for option in ("--top-k", "--tta"):
        with pytest.raises(ParameterError, match=f"{option} is for heads with one answer"):
            main([str(tmp_path / "head"), str(long), option, "2"])


def test_interrupted_and_resumed(
    clips: Path, saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [saved, str(clips), "-o", str(tmp_path / "out.csv"), "-q", "--batch-size", "1", "-j", "1"]
    update = Progress.update

    def interrupt(progress: Progress, seconds: float, reasons: list[str]) -> None:
        update(progress, seconds, reasons)
        if seconds:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", interrupt)
        assert main(arguments) == 130
        assert "nothing is kept, but with --features DIR" in capsys.readouterr().err
        assert main([*arguments, "--features", str(tmp_path / "kept")]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    done = len(Store(tmp_path / "kept"))
    assert 0 < done < 12
    assert main([*arguments, "--features", str(tmp_path / "kept")]) == 0
    assert f"{12 - done} utterances done" in (errors := capsys.readouterr().err)
    assert f"{done} were in {tmp_path / 'kept'} already" in errors
    assert len(rows(tmp_path / "out.csv")) == 12


def test_a_store_that_is_kept_may_hold_other_recordings(clips: Path, saved: str, tmp_path: Path) -> None:
    kept = ["--features", str(tmp_path / "kept"), "-q"]
    (tmp_path / "broken.wav").write_text("no audio")
    assert main([saved, str(tmp_path), "-o", str(tmp_path / "a.csv"), *kept]) == 3
    assert main([saved, str(clips), "-o", str(tmp_path / "b.csv"), *kept]) == 0
    assert len(rows(tmp_path / "b.csv")) == 12
    extract_features(clips, tmp_path / "other", "mfcc", pool="max")
    with pytest.raises(StoreError, match=r'pool: "max" -> "mean\+std"'):
        main([saved, str(clips), "--features", str(tmp_path / "other")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such input: 'nowhere'"),
        ([".", "-o", "out.xls"], r"-o 'out.xls' must end in .csv, .tsv, .jsonl"),
        ([".", "-o", "folder.csv"], "is a directory"),
        ([".", "--json"], "--json prints a summary"),
        ([".", "--threshold", "50"], "--threshold 50.0 must be a probability"),
        ([".", "--top-k", "0"], "--top-k 0 must be"),
        ([".", "--tta", "-1"], "--tta -1 must be"),
        ([".", "--channel", "left"], "--channel 'left'"),
        ([".", "-m", "logmel"], "takes features of 'mfcc', and 'logmel' is another"),
        ([".", "-m", "mfc"], "did you mean 'mfcc'"),
    ],
)
def test_bad_calls_get_one_sentence(
    arguments: list[str], message: str, saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    soundfile.write("murmur.wav", murmur(0.5, np.random.default_rng(0)), RATE)
    with pytest.raises(SpeechfeatError, match=message) as caught:
        main([saved, *arguments])
    assert "\n" not in str(caught.value)


def test_heads_that_are_none(saved: str, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no head"):
        main([str(tmp_path), str(clips)])
    damaged = tmp_path / "damaged"
    shutil.copytree(saved, damaged)
    (damaged / "head.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="is damaged"):
        main([str(damaged), str(clips)])


def test_an_encoder_that_has_moved(clips: Path, checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint, tmp_path / "before")
    store = extract_features(clips, tmp_path / "store", str(tmp_path / "before"), pool="mean")
    train_head(store, told(store)).save(tmp_path / "head")
    (tmp_path / "before").rename(tmp_path / "after")
    arguments = [str(tmp_path / "head"), str(clips), "-o", str(tmp_path / "out.csv"), "-q"]
    with pytest.raises(SpeechfeatError, match="before"):
        main(arguments)
    assert main([*arguments, "-m", str(tmp_path / "after")]) == 0
    assert len(rows(tmp_path / "out.csv")) == 12


def test_the_default_encoder_through_the_command(tmp_path: Path) -> None:
    examples = REPOSITORY / "examples"
    store = extract_features(examples, tmp_path / "store", layers=1, pool="mean+std", frames=False)
    head = train_head(store, ["a", "b", "a", "b"])
    head.save(tmp_path / "head")
    code, output, errors = run(tmp_path / "head", examples, "-q")
    assert code == 0, errors
    (tmp_path / "out.csv").write_text(output)
    found = rows(tmp_path / "out.csv")
    assert [row["id"] for row in found] == store.ids
    assert [float(row["p_a"]) for row in found] == pytest.approx(head.probabilities(store)[:, 0], abs=1e-4)
