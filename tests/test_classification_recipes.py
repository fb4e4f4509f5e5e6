"""The classification recipes, as a user runs them: on a made corpus, with MFCC."""

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
from tests.spoken import write_background, write_words

WORDS = {"ja, klar": 300.0, "nein": 500.0, "नहीं": 800.0}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of three pitches by four speakers of different loudness, and a table of them."""
    folder, rng, rows = tmp_path_factory.mktemp("words"), np.random.default_rng(0), []
    times = np.arange(6000) / 16000
    for speaker in range(4):
        for word, hertz in WORDS.items():
            for number in range(4):
                name = f"{speaker}-{list(WORDS).index(word)}-{number}.wav"
                tone = np.sin(2 * np.pi * hertz * rng.uniform(0.97, 1.03) * times) * 0.1 * (speaker + 1)
                soundfile.write(folder / name, tone + 0.01 * rng.standard_normal(len(times)), 16000)
                side = "test" if speaker == 3 else "train"
                rows.append({"path": name, "word": word, "speaker": f"s{speaker}", "part": side, "take": number})
    table = folder / "words.tsv"
    pd.DataFrame(rows).to_csv(table, sep="\t", index=False)
    return table


def run(recipe: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "recipes" / f"{recipe}.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_experiment_ends_with_scores_pictures_a_report_and_a_head(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--corpus", "manifest", "--root", manifest, "--label", "word", "--group", "speaker", "-m", "mfcc", "-q")
    first = run("keyword_spotting", *options, "-o", out, "--tta", "1", "--shots", "1")
    assert first.returncode == 0, first.stderr
    results = json.loads((out / "results.json").read_text())
    scores = results["models"]["mfcc"]["scores"]
    assert scores["accuracy"]["score"] > 0.9
    assert scores["accuracy"]["low"] <= scores["accuracy"]["score"] <= scores["accuracy"]["high"]
    assert scores["accuracy_tta"]["score"] > 0.9
    (episodes,) = results["models"]["mfcc"]["few_shot"]
    assert (episodes["ways"], episodes["shots"]) == (3, 1)
    assert episodes["accuracy"]["score"] > 0.8
    assert results["protocol"] == "each of 4 left out in turn, by speaker"
    assert "| mfcc | 0 |" in first.stdout
    report = (out / "report.md").read_text()
    assert "keyword_spotting.py" in report
    for picture in ("confusion", "tsne", "pca"):
        assert (out / "mfcc" / f"{picture}.png").stat().st_size > 1000
        assert f"mfcc/{picture}.png" in report
    answers = pd.read_csv(out / "mfcc" / "answers.csv")
    assert len(answers) == 48
    assert set(answers["label"]) == set(WORDS)
    assert np.mean(answers["label"] == answers["answer"]) == pytest.approx(scores["accuracy"]["score"])
    head = sf.load_head(out / "mfcc" / "head")
    assert head.classes == sorted(WORDS)
    assert head.record.scores["accuracy"]["score"] == scores["accuracy"]["score"]
    changed = {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}
    again = run("keyword_spotting", *options, "-o", out, "--tta", "1", "--shots", "1")
    assert "holds the results of this experiment already" in again.stderr
    assert again.stdout == first.stdout
    assert changed == {file: file.stat().st_mtime_ns for file in out.rglob("*.safetensors")}


def test_a_head_on_frames_mixes_layers_and_follows_the_split_of_the_corpus(manifest: Path, tmp_path: Path) -> None:
    done = run(
        *("emotion", "--corpus", "manifest", "--root", manifest, "--label", "word", "--split-column", "part", "-q"),
        *("-m", "conformer-s", "--dtype", "float32", "-o", tmp_path, "--head", "linear", "--set", "epochs=3"),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["protocol"] == "the split of the corpus"
    assert results["metric"] == "uar"
    assert results["models"]["conformer-s"]["layers"] == [list(range(9))]
    assert (tmp_path / "conformer-s" / "mix.png").stat().st_size > 1000


def test_keywords_are_found_in_long_recordings(tmp_path: Path) -> None:
    for name, recordings in (("words", write_words(tmp_path)), ("speech", write_background(tmp_path, 24))):
        rows = [{"path": one.id, **one.labels} for one in recordings]
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False)
    out = tmp_path / "out"
    done = run(
        *("keyword_spotting", "--corpus", "manifest", "--root", tmp_path / "words.tsv", "--label", "keyword", "-q"),
        *("--group", "speaker", "-m", "mfcc", "--long", tmp_path / "speech.tsv", "--long-seconds", "24"),
        *("--long-count", "1", "-o", out),
    )
    assert done.returncode == 0, done.stderr
    assert "in long recordings" in done.stdout
    long = out / "mfcc" / "long"
    events, detections = (pd.read_csv(long / f"{name}.csv") for name in ("events", "detections"))
    assert len(events) == 4 and len(list((out / "long" / "recordings").rglob("*.flac"))) == 2
    # Nothing of this background is like a tone: the likeliest detections are the keywords, at their times.
    found = detections.nlargest(len(events), "probability").sort_values("start")
    assert found["label"].tolist() == events["label"].tolist()
    assert np.abs(found[["start", "end"]].to_numpy() - events[["start", "end"]].to_numpy()).max() < 0.2
    results = json.loads((long / "results.json").read_text())
    assert results["tested"] == sorted(set(events["group"])) and len(results["tested"]) == 1
    assert (long / "curves.png").stat().st_size > 1000
    assert sf.load_head(long / "head").classes == ["_background_", "high", "low"]


def test_layers_are_probed_on_every_task(manifest: Path, tmp_path: Path) -> None:
    task = f"manifest:{manifest}"
    done = run(
        *(
            "layer_probe",
            "--task",
            f"{task}:word",
            "--task",
            f"{task}:speaker:take=3",
            "--task",
            f"{task}:speaker:trials",
        ),
        *("-m", "conformer-s", "-m", "mfcc", "-o", tmp_path, "-q"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())["models"]
    assert [len(found[model]["word of words"]["scores"]) for model in ("conformer-s", "mfcc")] == [9, 1]
    best = found["conformer-s"]["word of words"]
    assert best["scores"][best["best"]]["score"] == max(one["score"] for one in best["scores"])
    assert (tmp_path / "word_of_words.png").stat().st_size > 1000
    assert "**" in done.stdout


def test_adaptation_is_compared_with_augmentation(manifest: Path, tmp_path: Path) -> None:
    options = ("--corpus", "manifest", "--root", manifest, "--label", "word", "--group", "speaker", "-m", "mfcc", "-q")
    divided = ("--split", "group-k", "--folds", "2", "--copies", "1")
    command = ("domain_adaptation", *options, "-o", tmp_path, "--set", "C=0.01", *divided)
    first = run(*command)
    assert first.returncode == 0, first.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    found = results["models"]["mfcc"]
    methods = ["no shift", "none", "mean-variance", "coral", "adversarial, strength 0", "adversarial"]
    methods += ["augmentation, general", "augmentation, matched", "ceiling"]
    assert list(found["scores"]) == methods
    assert set(found["gains"]) == {*methods} - {"none"}
    assert found["scores"]["no shift"]["score"] > 0.9
    answers = pd.read_csv(tmp_path / "mfcc" / "answers.csv")
    assert len(answers) == 48
    for name, score in found["scores"].items():
        assert np.mean(answers["label"] == answers[name]) == pytest.approx(score["score"])
        assert score["low"] <= score["score"] <= score["high"]
        assert f"| {name} | " in first.stdout
        if name != "none":
            gain = score["score"] - found["scores"]["none"]["score"]
            assert found["gains"][name]["score"] == pytest.approx(gain)
    assert results["augmentations"]["degraded"]["noise_ratio"] == [10, 10]
    assert "domain_adaptation.py" in (tmp_path / "report.md").read_text()
    changed = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    assert run(*command).stdout == first.stdout
    assert changed == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}


def test_a_mistake_is_one_sentence(manifest: Path, tmp_path: Path) -> None:
    done = run("emotion", "--corpus", "manifest", "--root", manifest, "-o", tmp_path / "out", "-q")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "needs label=, one of its columns: word, speaker, part, take" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


WORD = ("--corpus", "manifest", "--root", "{manifest}", "--label", "word")


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("emotion", ("--corpus", "emotions", "--root", "."), "unknown corpus 'emotions'"),
        ("emotion", (*WORD[:-1], "mood"), "has no column label='mood'"),
        ("emotion", ("--corpus", "manifest", "--root", "{one}", "--label", "word"), "all of 1 labels are alike"),
        ("keyword_spotting", (*WORD, "--group", "speaker", "--split", "k"), "has speakers on both sides"),
        ("keyword_spotting", (*WORD, "--group", "speaker", "--head", "logistics"), "did you mean 'logistic'"),
        ("keyword_spotting", (*WORD, "--group", "speaker", "--set", "epochs"), "--set 'epochs' must be NAME=VALUE"),
        ("keyword_spotting", (*WORD, "--group", "speaker", "--sweep"), "--sweep is for heads on frames"),
        ("keyword_spotting", (*WORD, "--split", "part=test", "--tta", "-1"), "copies=-1 must be at least 0"),
        ("layer_probe", ("--task", "fsdd"), "must be CORPUS:ROOT"),
        ("domain_adaptation", (*WORD, "--group", "speaker", "--labelled", "1"), "labelled=1.0 must be a share"),
        ("domain_adaptation", (*WORD, "--group", "speaker", "--copies", "0"), "copies=0 must be at least 1"),
        ("domain_adaptation", (*WORD, "--group", "speaker", "--degraded", "no.json"), "'no.json' cannot be read"),
        ("domain_adaptation", (*WORD, "--group", "speaker", "--metric", "eer"), "metric='eer' is not known"),
        ("domain_adaptation", (*WORD, "--group", "speaker", "--head", "lstm"), "unknown kind of head 'lstm'"),
        ("domain_adaptation", (*WORD, "--split", "k", "--group", "speaker"), "has speakers on both sides"),
    ],
)
def test_a_bad_call_is_refused_before_anything_is_extracted(
    recipe: str,
    options: tuple[str, ...],
    message: str,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = tmp_path / "one.tsv"
    one.write_text("\n".join(manifest.read_text().splitlines()[:2]).replace("\n", f"\n{manifest.parent}/"))
    filled = [option.format(manifest=manifest, one=one) for option in options]
    monkeypatch.setattr(sys, "argv", [recipe, *filled, "-m", "mfcc", "-o", str(tmp_path / "out"), "-q"])
    recipe_main = runpy.run_path(str(REPOSITORY / "recipes" / f"{recipe}.py"))["main"]
    with pytest.raises(sf.ParameterError, match=message):
        recipe_main()
    assert not (tmp_path / "out").exists()
