"""The recipes on speech and text, as a user runs them: on a made corpus, with tiny encoders of texts."""

import itertools
import json
import runpy
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
        *("--text-model", text_checkpoint, "--text-pool", "mean", "-o", out, "--set", "C=0.1"),
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


WORDS = ("the", "cat", "sat", "on", "mat", "box", "cart", "road")


def write_sentences(folder: Path) -> tuple[Path, Path]:
    """Sentences of three words by six speakers, each once, and words by themselves; a word is a tone."""
    rng, times = np.random.default_rng(0), np.arange(8000) / 16000
    tones = {word: 0.2 * np.sin(2 * np.pi * 300 * 1.3**number * times) for number, word in enumerate(WORDS)}
    triples = rng.permutation(list(itertools.permutations(WORDS, 3)))[:36].tolist()
    sentences = [(f"s{number % 6}", words) for number, words in enumerate(triples)]
    tables = []
    for name, said in (("sentences", sentences), ("words", [("x", [word]) for word in WORDS])):
        rows = []
        for number, (speaker, words) in enumerate(said):
            samples = np.concatenate([tones[word] for word in words])
            noise = 0.01 * rng.standard_normal(len(samples))
            soundfile.write(folder / f"{name}{number}.wav", samples + noise, 16000)
            rows.append({"path": f"{name}{number}.wav", "speaker": speaker, "text": " ".join(words)})
        tables.append(folder / f"{name}.tsv")
        pd.DataFrame(rows).to_csv(tables[-1], sep="\t", index=False)
    return tables[0], tables[1]


def test_speech_and_text_are_matched(text_checkpoint: Path, tmp_path: Path) -> None:
    sentences, words = write_sentences(tmp_path)
    out, unseen = tmp_path / "out", tmp_path / "unseen.csv"
    unseen.write_text("speaker\ns0\ns1\n")
    done = run(
        *("speech_text_match", "--root", sentences, "-q", "--dtype", "float32", "--folds", "2", "-l", "1,2"),
        *("--text-model", text_checkpoint, "-o", out, "--unseen", unseen, "--spot", f"manifest:{words}:text"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "results.json").read_text())["models"]["conformer-s"]
    assert (found["sentences"], found["galleries"]) == (36, [18, 18])
    assert found["pairs"] > 4 * 36  # words and phrases too
    scores = found["scores"]
    assert {name: scores[name]["recordings"] for name in scores} == {
        "text for speech, all": 36,
        "text for speech, unseen by the encoder": 12,
        "speech for text, all": 36,
        "speech for text, unseen by the encoder": 12,
    }
    for one in scores.values():
        assert one["R@1"]["low"] <= one["R@1"]["score"] <= one["R@10"]["score"] <= one["R@10"]["high"]
    # Three of eight tones in any order, on which the first of 18 is right by chance in one of 18.
    assert scores["text for speech, all"]["R@10"]["score"] > 10 / 18
    (told,) = found["keywords"].values()
    assert (told["recordings"], told["words"], told["chance"], told["never heard"]) == (8, 8, 1 / 8, [])
    assert sf.load_matcher(out / "conformer-s" / "matcher").about["speech"] == ["conformer-s", "1,2", "mean+std"]
    assert "Keywords by typed words" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("speech_text_fusion", ("--label", "sound"), "have no 'sound', first '.*'; fill or drop those lines"),
        ("speech_text_fusion", ("--label", "sound", "--where", "mood"), "has no column 'mood'"),
        ("speech_text_match", (), "have no 'speaker', first '.*'; fill or drop those"),
        ("speech_text_match", ("--spot", "fsdd"), r"--spot 'fsdd' must be CORPUS:DIR\[:LABEL\]"),
    ],
)
def test_a_mistake_is_told_before_anything_is_extracted(
    recipe: str,
    options: tuple[str, ...],
    message: str,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    command = [recipe, "--root", str(manifest), *options, "--text-model", "any", "-o", str(out), "-q"]
    monkeypatch.setattr(sys, "argv", command)
    main = runpy.run_path(str(REPOSITORY / "recipes" / f"{recipe}.py"))["main"]
    with pytest.raises(sf.ParameterError, match=message):
        main()
    assert not out.exists()
