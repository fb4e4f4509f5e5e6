"""How a corpus is divided, and that leaks stop an experiment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechfeat.corpora.base import Corpus
from speechfeat.errors import ParameterError
from speechfeat.experiments.features import features_folder, model_slug
from speechfeat.experiments.protocol import check_leaks, make_protocol
from speechfeat.types import Utterance


def corpus(folder: Path, *, speakers: int = 4, **fields) -> Corpus:
    """Three utterances of two emotions of each speaker, all recordings different."""
    rng = np.random.default_rng(0)
    utterances = []
    for speaker in range(speakers):
        for number in range(6):
            path = folder / f"{speaker}-{number}.wav"
            soundfile.write(path, rng.uniform(-0.1, 0.1, 400).astype(np.float32), 16000)
            labels = {"emotion": ("happy", "sad")[number % 2], "speaker": f"s{speaker}", "sentence": str(number // 2)}
            utterances.append(Utterance(path.name, str(path), labels=labels))
    return Corpus("made", utterances, **{"label": "emotion", "group": "speaker", **fields})


def speakers_of(made: Corpus, rows: np.ndarray) -> set[str]:
    return {made.utterances[row].labels["speaker"] for row in rows}


def test_few_speakers_are_left_out_in_turn_and_many_are_folded(tmp_path: Path) -> None:
    few = corpus(tmp_path)
    protocol = make_protocol(few, few.utterances)
    assert [len(speakers_of(few, test)) for _, test in protocol.folds] == [1] * 4
    assert protocol.about == "each of 4 left out in turn, by speaker"
    many = corpus(tmp_path, speakers=13)
    protocol = make_protocol(many, many.utterances, k=3)
    assert len(protocol.folds) == 3
    for train, test in protocol.folds:
        assert not speakers_of(many, train) & speakers_of(many, test)
    assert protocol.groups == many.values("speaker") == protocol.inner


def test_without_a_group_utterances_are_folded(tmp_path: Path) -> None:
    made = corpus(tmp_path, label="speaker", group=None)
    protocol = make_protocol(made, made.utterances, k=3)
    assert len(protocol.folds) == 3
    assert protocol.groups is None
    assert protocol.inner is None
    assert sorted(np.concatenate([test for _, test in protocol.folds])) == list(range(len(made.utterances)))


def test_labels_that_are_named_are_tested(tmp_path: Path) -> None:
    made = corpus(tmp_path, label="speaker", group=None)
    protocol = make_protocol(made, made.utterances, "sentence=1,2")
    ((train, test),) = protocol.folds
    assert {made.utterances[row].labels["sentence"] for row in test} == {"1", "2"}
    assert {made.utterances[row].labels["sentence"] for row in train} == {"0"}
    # What is chosen on the training utterances is chosen on sentences as new as those tested.
    assert protocol.inner == made.values("sentence")


def test_the_split_of_the_corpus_is_followed(tmp_path: Path) -> None:
    ids = [utterance.id for utterance in corpus(tmp_path).utterances]
    splits = {"train": ids[:12], "validation": ids[12:18], "test": ids[18:]}
    made = corpus(tmp_path, splits=splits)
    protocol = make_protocol(made, made.utterances)
    ((train, test),) = protocol.folds
    assert (train.tolist(), test.tolist()) == (list(range(12)), list(range(18, 24)))
    assert "6 kept for validation are not used" in protocol.about
    assert protocol.inner == made.values("speaker")
    folded = corpus(tmp_path, splits={"one": ids[:12], "two": ids[12:]}, folded=True)
    assert [len(test) for _, test in make_protocol(folded, folded.utterances).folds] == [12, 12]


def test_speakers_on_both_sides_of_an_official_split_are_not_kept_apart_within_training_either(tmp_path: Path) -> None:
    ids = [utterance.id for utterance in corpus(tmp_path).utterances]
    made = corpus(tmp_path, splits={"train": ids[::2] + ids[1:12:2], "test": ids[13::2]})
    protocol = make_protocol(made, made.utterances)
    assert protocol.inner is None


def test_a_failed_recording_leaves_its_row_out(tmp_path: Path) -> None:
    ids = [utterance.id for utterance in corpus(tmp_path).utterances]
    made = corpus(tmp_path, splits={"train": ids[:12], "test": ids[12:]})
    ((train, test),) = make_protocol(made, made.utterances[1:]).folds
    assert (len(train), len(test)) == (11, 12)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("loso", "--split 'loso' is not known; use auto, official"),
        ("official", "'made' has no official split"),
        ("accent=Ulm", "there is no label 'accent'; there are emotion, sentence, speaker"),
        ("sentence=9", "no utterance has sentence '9'; there are 0, 1, 2"),
        ("sentence=0,1,2", "leaves nothing to train on"),
        ("emotion=sad", "tests 'sad' but has none of it to train on"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(split: str, message: str, tmp_path: Path) -> None:
    made = corpus(tmp_path)
    with pytest.raises(ParameterError, match=message):
        make_protocol(made, made.utterances, split)


def test_a_split_by_group_needs_one(tmp_path: Path) -> None:
    made = corpus(tmp_path, group=None)
    with pytest.raises(ParameterError, match=r"name one with --group \(sentence, speaker\)"):
        make_protocol(made, made.utterances, "logo")


def test_a_speaker_on_both_sides_stops_the_experiment_unless_it_is_allowed(tmp_path: Path) -> None:
    made = corpus(tmp_path)
    clean = make_protocol(made, made.utterances)
    assert all(report.speakers.count == 0 for report in check_leaks(made, made.utterances, clean))
    leaky = make_protocol(made, made.utterances, "k", k=3)
    with pytest.raises(ParameterError, match=r"(?s)has speakers on both sides.*--allow-leaks"):
        check_leaks(made, made.utterances, leaky)
    assert len(check_leaks(made, made.utterances, leaky, allowed=True)) == 3


def test_a_copy_of_a_recording_is_a_leak_even_where_speakers_are_to_be_told(tmp_path: Path) -> None:
    made = corpus(tmp_path, label="speaker", group=None)
    protocol = make_protocol(made, made.utterances, "sentence=2")
    assert check_leaks(made, made.utterances, protocol)[0].speakers is None
    (tmp_path / "0-5.wav").write_bytes((tmp_path / "0-0.wav").read_bytes())
    with pytest.raises(ParameterError, match="has recordings on both sides"):
        check_leaks(made, made.utterances, protocol)


def test_features_of_different_models_and_corpora_are_kept_apart(tmp_path: Path) -> None:
    made = corpus(tmp_path)
    folders = {
        features_folder("kept", "a/hubert base", made),
        features_folder("kept", "conformer-s", made),
        features_folder("kept", "conformer-s", made, frames=True),
        features_folder("kept", "conformer-s", made, pool="mean"),
        features_folder("kept", "conformer-s", replace(made, name="other.tsv")),
    }
    assert len(folders) == 5
    assert model_slug("../models/whisper-tiny.en/") == "whisper-tiny.en"
    assert model_slug("owner/name") == "name"
