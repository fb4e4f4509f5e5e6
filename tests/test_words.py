"""Words and phrases of a corpus, and retrieval over folds of speakers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import speechfeat as sf
from tests.conftest import REPOSITORY

SENTENCES = {
    "anna.wav": "Frames in, features out, and every one of them has its time.",
    "ben.flac": "An utterance sounds the same alone and in any company.",
    "clara.ogg": "Kill the run at any moment, and start it again.",
    "dan.mp3": "x" * 400,  # more than its frames can hold
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> sf.Corpus:
    rows = [
        {"path": REPOSITORY / "examples" / name, "id": name, "text": text, "voice": name.split(".")[0]}
        for name, text in SENTENCES.items()
    ]
    table = tmp_path_factory.mktemp("said") / "said.csv"
    pd.DataFrame(rows).to_csv(table, index=False)
    return sf.open_corpus("manifest", table, label="voice")


@pytest.fixture(scope="module")
def encoder() -> sf.Encoder:
    return sf.load_encoder(layers="6,7", device="cpu", dtype="float32")


def test_words_phrases_and_the_whole_are_pooled_from_one_run(
    corpus: sf.Corpus, encoder: sf.Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    aligner = sf.load_aligner(device="cpu", dtype="float32")
    plan = sf.PhrasePlan((2, 40), most=2)
    found = sf.word_features(corpus, tmp_path, encoder, aligner, plan=plan, quiet=True)
    (frames,) = encoder.encode([REPOSITORY / "examples" / "clara.ogg"])
    words = aligner.align([REPOSITORY / "examples" / "clara.ogg"], [SENTENCES["clara.ogg"]])[0]
    labels = {one.id: one.labels for one in found.utterances}
    clara = [key for key in labels if labels[key]["recording"] == "clara.ogg"]
    assert len(clara) == 10 + 2 + 1  # words, pairs, itself
    assert labels["clara.ogg#5-6"]["text"] == "moment,"
    assert labels["clara.ogg"]["text"] == SENTENCES["clara.ogg"]
    vectors = found.store.embeddings(["clara.ogg#0-1", "clara.ogg"])[1]
    assert vectors[0] == pytest.approx(sf.pool_words(frames, words[:1], "mean+std")[0], abs=1e-5)
    assert vectors[1, :, : encoder.dim] == pytest.approx(frames.values.mean(axis=1), abs=1e-5)
    (pair,) = [one for one in found.utterances if one.id.startswith("clara.ogg#2-4")] or [None]
    if pair is not None:
        assert pair.labels["text"] == "run at"
    # A transcript that does not fit leaves the recording, and is told.
    assert [key for key in labels if labels[key]["recording"] == "dan.mp3"] == ["dan.mp3"]
    assert [row["id"] for row in found.failures] == ["dan.mp3#words"]
    assert "1 of 4 recordings cannot be read, or their words not found" in capsys.readouterr().err
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    again = sf.word_features(corpus, tmp_path, encoder, aligner, plan=plan, quiet=True)
    assert again.utterances == found.utterances
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.parquet")}
    utterances = [replace(one, labels={**one.labels, "text": "another"}) for one in corpus.utterances]
    with pytest.raises(sf.StoreError, match="is not the one that the store"):
        sf.word_features(replace(corpus, utterances=utterances), tmp_path, encoder, aligner, plan=plan, quiet=True)
    with pytest.raises(sf.StoreError, match="phrases"):
        sf.word_features(corpus, tmp_path, encoder, aligner, quiet=True)


def make_data(speakers: int = 12, each: int = 12) -> sf.MatchData:
    """Sentences of two words, which speech and text show each in its own way; every word of them by itself too."""
    rng = np.random.default_rng(0)
    vocabulary = rng.standard_normal((30, 6))
    heard, written = rng.standard_normal((6, 10)), rng.standard_normal((6, 8))
    rows = []
    for number in range(speakers * each):
        first, second = rng.choice(30, 2, replace=False)
        key, said = f"r{number}", f"w{first} w{second}"
        for name, text, meaning in (
            (key, said, vocabulary[first] + vocabulary[second]),
            (f"{key}#0-1", f"w{first}", vocabulary[first]),
            (f"{key}#1-2", f"w{second}", vocabulary[second]),
        ):
            rows.append((name, f"s{number % speakers}", said, text, meaning))
    names, owners, sentences, texts, meanings = zip(*rows, strict=True)
    values = np.stack(meanings)
    speech = values @ heard + 0.05 * rng.standard_normal((len(values), 10))
    is_whole = np.array(["#" not in name for name in names])
    return sf.MatchData(
        sf.Pairs(speech, values @ written, list(texts)),
        np.array(names),
        np.array(owners),
        np.array(sentences),
        is_whole,
    )


def test_sentences_of_new_speakers_are_found() -> None:
    data = make_data()
    config = sf.MatchConfig(dim=16, hidden=32, dropout=0.0, epochs=25, batch_size=64)
    matchers: list[sf.Matcher] = []
    found = sf.retrieve(data, config, folds=3, on_fold=matchers.append)
    assert sorted(found.rows) == np.flatnonzero(data.is_whole).tolist()  # every recording is tested once
    assert len(matchers) == len(found.galleries) == 3
    for direction in ("speech_to_text", "text_to_speech"):
        first, ten = (found.recall(k, direction) for k in (1, 10))
        assert first.low <= first.score <= first.high
        assert 0.5 < first.score <= ten.score
    chosen = found.speakers == "s3"
    assert found.recall(10, "speech_to_text", chosen).score == (found.speech_to_text[chosen] <= 10).mean()


def test_no_speaker_or_sentence_is_trained_and_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data()
    seen: list[np.ndarray] = []

    def train(self: sf.MatchData, rows: np.ndarray, config: object = None, seed: int = 0) -> sf.Matcher:
        seen.append(rows)
        return trained(self, rows, config, seed)

    trained = sf.MatchData.train
    monkeypatch.setattr(sf.MatchData, "train", train)
    found = sf.retrieve(data, sf.MatchConfig(dim=4, hidden=4, epochs=1), folds=3)
    tests = np.split(found.rows, np.cumsum([len(set(found.speakers)) // 3 * 12] * 2))
    assert len(seen) == 3
    for rows, test in zip(seen, tests, strict=True):
        assert not set(data.speakers[rows]) & set(data.speakers[test])
        assert not set(data.sentences[rows]) & set(data.sentences[test])
    with pytest.raises(sf.ParameterError, match="folds=13 and 12 speakers"):
        sf.retrieve(data, folds=13)
