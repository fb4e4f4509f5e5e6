"""The recipes of soft labels and of self-training, as a user runs them: on a made corpus."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import speechfeat as sf
from tests.conftest import REPOSITORY

WORDS = {"ja": 300.0, "nein": 500.0, "doch": 800.0}


def write_words(folder: Path, speakers: int = 4, takes: int = 5, seed: int = 0) -> Path:
    """Words of three pitches by speakers of different loudness, and a table of them."""
    folder.mkdir()
    rng, times, rows = np.random.default_rng(seed), np.arange(6000) / 16000, []
    for speaker in range(speakers):
        for word, hertz in WORDS.items():
            for take in range(takes):
                name = f"{speaker}-{word}-{take}.wav"
                tone = np.sin(2 * np.pi * hertz * rng.uniform(0.9, 1.1) * times) * 0.1 * (speaker + 1)
                soundfile.write(folder / name, tone + 0.02 * rng.standard_normal(len(times)), 16000)
                rows.append({"path": name, "word": word, "speaker": f"s{speaker}"})
    pd.DataFrame(rows).to_csv(folder / "words.tsv", sep="\t", index=False)
    return folder / "words.tsv"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("corpus") / "words")


def run(monkeypatch: pytest.MonkeyPatch, recipe: str, manifest: Path, out: Path, *options: str | Path) -> dict:
    corpus = ("--corpus", "manifest", "--root", manifest, "--label", "word", "--group", "speaker")
    command = [recipe, *corpus, "-o", out, "-q", "--device", "cpu", *options]
    monkeypatch.setattr(sys, "argv", [str(part) for part in command])
    assert runpy.run_path(str(REPOSITORY / "recipes" / f"{recipe}.py"))["main"]() == 0
    assert "| " in (out / "report.md").read_text()
    return json.loads((out / "results.json").read_text())


def test_self_training_is_scored_by_round_and_speaker(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("-m", "mfcc", "--share", "0.3", "--seeds", "2", "--rounds", "2", "--copies", "1")
    found = run(monkeypatch, "self_training", manifest, tmp_path / "out", *options)
    assert found["protocol"] == "each of 4 left out in turn, by speaker"
    assert found["rows"][0]["head"] == "labels alone: logistic"
    together = [row for row in found["rows"] if row["head"].startswith("students together")]
    assert [row["head"].partition(", ")[2] for row in together] == ["round 0", "round 1", "round 2", "round taken"]
    assert together[-1]["uar"]["score"] > 0.7
    assert together[-1]["better draws"].endswith("of 2")
    assert all(0 <= number <= 2 for draw in found["rounds taken"] for number in draw)
    assert "students together, round taken" in capsys.readouterr().out


def test_nothing_is_gained_where_no_label_is_sure_enough(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("-m", "mfcc", "--share", "0.3", "--seeds", "1", "--threshold", "1.01")
    rows = run(monkeypatch, "self_training", manifest, tmp_path / "out", *options)["rows"]
    gains = [row["gain over round 0"] for row in rows[1:] if row["gain over round 0"] is not None]
    assert gains
    assert all(gain == {"score": 0.0, "low": 0.0, "high": 0.0} for gain in gains)


def test_directories_without_labels_are_learnt_from(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = write_words(tmp_path / "more", speakers=2, seed=1).parent
    options = ("-m", "mfcc", "--share", "0.3", "--seeds", "1", "--rounds", "1", "--unlabelled", more)
    found = run(monkeypatch, "self_training", manifest, tmp_path / "out", *options)
    assert found["unlabelled"] == 30
    head = sf.load_head(tmp_path / "out" / "head")
    assert head.classes == sorted(WORDS)
    assert head.record.options["rounds"][1]["taken"] == 30


def test_soft_labels_are_compared_with_hard_ones(
    manifest: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("-m", checkpoint, "-l", "last", "--teacher", "mfcc", "--teacher", f"{checkpoint}:1")
    sweep = ("--temperatures", "2,4", "--alphas", "0.5,1", "--tune", "1", "--limit", "2", "--epochs", "1")
    rows = run(monkeypatch, "distill_head", manifest, tmp_path / "out", *options, *sweep)["rows"]
    cells = [f"T={temperature}, alpha={alpha}" for temperature in (2, 4) for alpha in ("0.5", "1")]
    tuned = ["tuned, hard labels", "tuned, T=2, alpha=0.5", "tuned, T=2, alpha=1"]
    assert [row["student"] for row in rows] == ["teacher", "hard labels", *cells, *tuned]
    assert "gain over hard labels" not in rows[1]
    assert all(-1 <= row["gain over hard labels"]["score"] <= 1 for row in rows[2:6])


def test_a_teacher_of_no_weight_changes_nothing(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("-m", "mfcc", "--teacher", "logmel", "--temperatures", "4", "--alphas", "0")
    rows = run(monkeypatch, "distill_head", manifest, tmp_path / "out", *options)["rows"]
    assert rows[2]["gain over hard labels"]["score"] == 0
    assert rows[2]["uar"]["score"] == rows[1]["uar"]["score"]


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("self_training", ("--share", "0"), "--share 0.0 must be above 0"),
        ("self_training", ("--copies", "1", "--unlabelled", "more"), "--copies are of the corpus alone"),
        ("self_training", ("-m", "logmel"), "-m names 2 encoders"),
        ("self_training", ("--shrinkage", "2"), "shrinkage=2.0 must be above 0 and at most 1"),
        ("self_training", ("-l", "top"), "--layers 'top' must be all, or numbers"),
        ("distill_head", ("--teacher", "logmel", "--temperatures", "0"), "must be above 0"),
        ("distill_head", ("--teacher", "logmel", "--alphas", "0.5,2"), "must be from 0"),
        ("distill_head", ("--teacher", "mffc"), "did you mean 'mfcc'"),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(
    recipe: str,
    options: tuple[str, ...],
    message: str,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(sf.SpeechfeatError, match=message):
        run(monkeypatch, recipe, manifest, tmp_path / "out", "-m", "mfcc", *options)
    assert not (tmp_path / "out" / "results.json").exists()
