"""The recipes on speech and text, as a user runs them: on a made corpus, with tiny encoders of texts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import speechfeat as sf
from tests.conftest import REPOSITORY

# What is said in three pitches, and written so that mood is in the text and the word in the sound.
SOUNDS = {"low": 300.0, "mid": 600.0, "high": 1200.0}
SAID = ("the cat sat on the mat.", "a dog on a cart,", "the box in the road.", "far away in the hills,")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones by six speakers with sentences; the pitch tells half of the label, a dot at the end the other half."""
    folder, rng, rows = tmp_path_factory.mktemp("said"), np.random.default_rng(0), []
    for speaker in range(6):
        for sound, hertz in SOUNDS.items():
            for number, text in enumerate(SAID):
                times = np.arange(int(rng.uniform(1.6, 2.0) * 16000)) / 16000
                tone = 0.2 * np.sin(2 * np.pi * hertz * rng.uniform(0.98, 1.02) * times)
                name = f"{speaker}-{sound}-{number}.wav"
                soundfile.write(folder / name, tone + 0.01 * rng.standard_normal(len(times)), 16000)
                ending = "dot" if text.endswith(".") else "comma"
                rows.append({"path": name, "both": f"{sound} {ending}", "sound": sound, "text": text})
                rows[-1] |= {"speaker": f"s{speaker}"}
    rows += [{"path": rows[0]["path"], "both": "", "sound": "", "text": "", "speaker": ""}]
    rows[-1]["path"] = str(folder / "unlabelled.wav")
    soundfile.write(rows[-1]["path"], np.full(16000, 0.1), 16000)
    table = folder / "said.tsv"
    pd.DataFrame(rows).to_csv(table, sep="\t", index=False)
    return table


def run(recipe: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "recipes" / f"{recipe}.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_both_tell_what_each_alone_tells_in_part(manifest: Path, text_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (
        *("--root", manifest, "--where", "text", "--label", "both", "--group", "speaker", "-m", "mfcc", "-q"),
        *("--text-model", text_checkpoint, "--text-pool", "mean", "-o", out),
    )
    done = run("speech_text_fusion", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "results.json").read_text())["models"]["mfcc"]
    accuracy = {name: scores["accuracy"]["score"] for name, scores in found["scores"].items()}
    assert accuracy["speech + text"] > 0.95
    # Each alone tells one of three sounds, or one of two endings.
    assert accuracy["speech"] == pytest.approx(0.5, abs=0.2)
    assert accuracy["text"] == pytest.approx(1 / 3, abs=0.15)
    gain = found["gains"]["speech"]
    assert gain["low"] <= gain["score"] <= gain["high"]
    assert gain["low"] > 0
    assert found["utterances"] == 72
    assert found["protocol"] == "each of 6 left out in turn, by speaker"
    assert "| mfcc | speech + text |" in done.stdout
    assert "speech_text_fusion.py" in (out / "report.md").read_text()
    head = sf.load_head(out / "mfcc" / "head")
    store = sf.Store(next((out / "features").glob("mfcc*-*checkpoint*")))
    assert (head.predict(store)["label"] == [key.split("-")[1] for key in store.ids]).mean() < 1
    again = run("speech_text_fusion", *options)
    assert again.stdout == done.stdout


def test_speech_and_text_are_matched(manifest: Path, text_checkpoint: Path, tmp_path: Path) -> None:
    out, unseen = tmp_path / "out", tmp_path / "unseen.csv"
    unseen.write_text("speaker\ns0\ns1\n")
    options = (
        *("--root", manifest, "--where", "text", "-q", "--dtype", "float32", "--folds", "2", "--unseen", unseen),
        *("--text-model", text_checkpoint, "-o", out, "--spot", f"manifest:{manifest}:sound", "-l", "1,2"),
    )
    done = run("speech_text_match", *options)
    assert done.returncode == 0, done.stderr
