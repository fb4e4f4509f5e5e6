"""What is read of known corpora, from made trees of their real layouts."""

from pathlib import Path

import pytest

from speechfeat.corpora.base import Corpus, Trial
from speechfeat.corpora.opening import CORPORA, open_corpus
from tests.corpus_trees import (
    OTHERS_V1,
    OTHERS_V2,
    TREES,
    WANTED,
    commands,
    common_voice,
    crema_d,
    emodb,
    folders,
    fsdd,
    iemocap,
    librispeech,
    official_test,
    ravdess,
    table,
    tess,
    voxceleb,
)

# Those whose splits have no speaker in common.
APART = {
    *("speech-commands-v1-12", "speech-commands-v2-12", "speech-commands-v2-35", "voxceleb1-verification"),
    *("librispeech", "common-voice", "iemocap", "crema-d"),
}

SHARED_SPEAKERS = {"voxceleb1-identification", "fsdd"}


def labels_of(corpus: Corpus, label: str) -> dict[str, str]:
    return dict(zip([utterance.id for utterance in corpus.utterances], corpus.values(label), strict=True))


def test_every_known_corpus_has_a_tree():
    assert set(CORPORA) == {*TREES, "manifest"}


@pytest.mark.parametrize("name", TREES)
def test_laws_of_every_corpus(tmp_path, name):
    root = TREES[name](tmp_path)
    corpus = open_corpus(name, root)
    assert corpus.name == (root.name if name == "folders" else name)
    ids = [utterance.id for utterance in corpus.utterances]
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(Path(utterance.path).is_file() for utterance in corpus.utterances)
    assert all(corpus.values())
    assert corpus.group is None or (corpus.group != corpus.label and all(corpus.values(corpus.group)))
    assert corpus.note
    assert len({tuple(sorted(utterance.labels)) for utterance in corpus.utterances}) == 1
    again = open_corpus(name.upper().replace("-", "_"), str(root))
    assert again == corpus


@pytest.mark.parametrize("name", TREES)
def test_splits_name_utterances_once_and_keep_speakers_apart(tmp_path, name):
    corpus = open_corpus(name, TREES[name](tmp_path))
    if corpus.splits is None:
        assert name in {"ravdess", "emodb", "tess", "folders"}
        return
    split_ids = [id for ids in corpus.splits.values() for id in ids]
    assert len(set(split_ids)) == len(split_ids)
    assert set(split_ids) <= {utterance.id for utterance in corpus.utterances}
    assert corpus.folded == (not {"train", "test"} & set(corpus.splits))
    assert name in APART | SHARED_SPEAKERS
    speakers = labels_of(corpus, "speaker")
    seen = [{speakers[id] for id in ids} for ids in corpus.splits.values()]
    if name in APART:
        assert sum(map(len, seen)) == len(set().union(*seen))


@pytest.mark.parametrize(
    ("name", "others"), [("speech-commands-v1-12", OTHERS_V1), ("speech-commands-v2-12", OTHERS_V2)]
)
def test_twelve_commands(tmp_path, name, others):
    corpus = open_corpus(name, commands(tmp_path, others))
    keywords, words = labels_of(corpus, "keyword"), labels_of(corpus, "word")
    assert set(keywords.values()) == {*WANTED, "_unknown_", "_silence_"}
    for split, num_speakers in (("train", 3), ("validation", 1), ("test", 1)):
        found = [keywords[id] for id in corpus.splits[split]]
        assert [found.count(word) for word in WANTED] == [num_speakers] * 10
        assert found.count("_unknown_") == found.count("_silence_") == num_speakers  # a tenth of 10 or 30
    assert {words[id] for id, keyword in keywords.items() if keyword == "_unknown_"} <= set(others)


def test_silence_is_cut_from_noise_and_no_sample_is_in_two_splits(tmp_path):
    corpus = open_corpus("speech-commands-v2-12", commands(tmp_path))
    stretches = {split: [] for split in corpus.splits}
    by_id = {utterance.id: utterance for utterance in corpus.utterances}
    for split, ids in corpus.splits.items():
        for utterance in map(by_id.get, ids):
            if utterance.labels["keyword"] == "_silence_":
                assert "_background_noise_" in utterance.path
                assert utterance.duration == 1.0
                assert 0 <= utterance.start <= 29
                stretches[split].append((utterance.path, utterance.start))
            else:
                assert (utterance.start, utterance.duration) == (0.0, None)
    pairs = [(one, other) for one in stretches for other in stretches if one < other]
    for one, other in pairs:
        for path, start in stretches[one]:
            assert all(path != elsewhere or abs(start - begin) >= 1 for elsewhere, begin in stretches[other])


def test_unknown_words_do_not_depend_on_other_files_of_the_split(tmp_path):
    """The draw ranks names by their hash: a word that was not drawn can go, and the draw stays."""
    top = commands(tmp_path)
    first = open_corpus("speech-commands-v2-12", top)
    keywords = labels_of(first, "keyword")
    drawn = {id for id in first.splits["train"] if keywords[id] == "_unknown_"}
    spare = next(f"{word}/0a0a_nohash_0.wav" for word in OTHERS_V2 if f"{word}/0a0a_nohash_0.wav" not in drawn)
    (top / spare).unlink()
    assert open_corpus("speech-commands-v2-12", top) == first


def test_official_commands_test_set_is_used_where_it_is(tmp_path):
    beside = tmp_path / "beside"
    commands(beside / "speech_commands_v0.02")
    official_test(beside / "speech_commands_test_set_v0.02")
    inside = commands(tmp_path / "inside")
    official_test(inside / "speech_commands_test_set_v0.02")
    for root in (beside, inside):
        corpus = open_corpus("speech-commands-v2-12", root)
        by_id = {utterance.id: utterance for utterance in corpus.utterances}
        test = [by_id[id] for id in corpus.splits["test"]]
        assert len(test) == 13
        assert all("speech_commands_test_set_v0.02" in utterance.path for utterance in test)
        unknown = next(utterance for utterance in test if utterance.labels["keyword"] == "_unknown_")
        assert unknown.labels == {"keyword": "_unknown_", "word": "bed", "speaker": "2a2a"}
        assert "official" in corpus.note
        assert not any("2a2a" in id for id in [*corpus.splits["train"], *corpus.splits["validation"]])
        every = open_corpus("speech-commands-v2-35", root)
        assert set(every.values()) == {*WANTED, *OTHERS_V2}
        assert len(every.utterances) == 5 * 35
        assert not any("test_set" in id for id in every.splits["test"])


def test_voxceleb_identification_follows_the_list(tmp_path):
    corpus = open_corpus("voxceleb1-identification", voxceleb(tmp_path))
    assert {name: len(ids) for name, ids in corpus.splits.items()} == {"train": 8, "validation": 4, "test": 4}
    assert corpus.label == "speaker"
    assert corpus.group is None
    assert corpus.splits["test"][0] == "wav/id10001/c2/00002.wav"
    assert corpus.utterances[0].labels == {"speaker": "id10001", "video": "aB-_1", "gender": "male"}


@pytest.mark.parametrize("has_folders", [False, True])
def test_voxceleb_trials(tmp_path, has_folders):
    corpus = open_corpus("voxceleb1-verification", voxceleb(tmp_path, has_folders))
    wav = "test/wav" if has_folders else "wav"
    assert list(corpus.trials) == ["O", "H"]
    assert corpus.trials["O"] == [
        Trial(True, f"{wav}/id10270/aB-_1/00001.wav", f"{wav}/id10270/c2/00001.wav"),
        Trial(False, f"{wav}/id10270/aB-_1/00001.wav", f"{wav}/id10271/c2/00002.wav"),
    ]
    speakers = labels_of(corpus, "speaker")
    assert {speakers[id] for id in corpus.splits["test"]} == {"id10270", "id10271"}
    assert "veri_test2.txt" in corpus.note


def test_voxceleb_original_list_serves_where_the_cleaned_one_is_not(tmp_path):
    top = voxceleb(tmp_path)
    (top / "veri_test2.txt").rename(top / "veri_test.txt")
    assert "O of veri_test.txt" in open_corpus("voxceleb1-verification", top).note


def test_librispeech(tmp_path):
    librispeech(tmp_path / "LibriSpeech")
    corpus = open_corpus("librispeech", tmp_path)
    assert {name: len(ids) for name, ids in corpus.splits.items()} == {"train": 4, "validation": 4, "test": 4}
    found = {utterance.id: utterance.labels for utterance in corpus.utterances}
    assert found["LibriSpeech/dev-clean/84/2/84-2-0001.flac"] == {
        **{"speaker": "84", "gender": "male", "chapter": "2", "subset": "dev-clean", "text": "ÇA"}
    }
    assert found["LibriSpeech/dev-clean/84/2/84-2-0000.flac"]["text"] == "A, B"
    gender = open_corpus("librispeech", tmp_path / "LibriSpeech", label="gender")
    assert (gender.group, set(gender.values())) == ("speaker", {"female", "male"})


def test_common_voice(tmp_path):
    corpus = open_corpus("common-voice", common_voice(tmp_path))
    assert corpus.splits == {"train": ["a1.mp3", "a2.mp3"], "validation": ["b1.mp3"], "test": ["c1.mp3"]}
    assert [utterance.id for utterance in corpus.utterances] == ["a1.mp3", "a2.mp3", "b1.mp3", "c1.mp3", "d1.mp3"]
    assert corpus.utterances[0].labels == {
        **{"speaker": "a", "text": '“Ça”, said "a1"', "age": "", "gender": "female"},
    }
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").unlink()
    assert open_corpus("common-voice", tmp_path).splits is None


def test_iemocap_has_four_classes_in_five_sessions(tmp_path):
    iemocap(tmp_path / "IEMOCAP_full_release")
    corpus = open_corpus("iemocap", tmp_path)
    assert len(corpus.utterances) == 5 * 2 * 5
    assert set(corpus.values()) == {"angry", "happy", "neutral", "sad"}
    assert set(corpus.values("annotation")) == {"ang", "hap", "exc", "neu", "sad"}
    assert len(set(corpus.values("speaker"))) == 10
    assert list(corpus.splits) == [f"Session{number}" for number in range(1, 6)]
    first = next(utterance for utterance in corpus.utterances if utterance.id.endswith("Ses03M_script01_1_F000.wav"))
    assert first.labels == {
        **{"emotion": "happy", "annotation": "exc", "speaker": "Ses03F", "gender": "female"},
        **{"session": "Session3", "style": "script"},
    }


def test_ravdess_is_speech_alone(tmp_path):
    corpus = open_corpus("ravdess", ravdess(tmp_path))
    assert len(corpus.utterances) == 3 * 8
    assert len(set(corpus.values())) == 8
    genders = dict(zip(corpus.values("speaker"), corpus.values("gender"), strict=True))
    assert genders == {"01": "male", "02": "female", "24": "female"}
    assert corpus.utterances[5].labels["emotion"] == "fearful"


def test_crema_d_folds_keep_the_91_speakers_apart(tmp_path):
    corpus = open_corpus("crema-d", crema_d(tmp_path))
    assert len(corpus.utterances) == 91 * 6 + 1
    assert len(set(corpus.values())) == 6
    assert list(corpus.splits) == [f"fold{k}" for k in range(1, 6)]
    assert corpus.folded
    assert "91" in corpus.note
    assert corpus.utterances[0].labels["gender"] == "male"
    alone = open_corpus("crema-d", tmp_path / "AudioWAV")
    assert [ids[:9] for ids in alone.splits.values()] == [
        [id.removeprefix("AudioWAV/") for id in ids[:9]] for ids in corpus.splits.values()
    ]


def test_emodb(tmp_path):
    corpus = open_corpus("emodb", emodb(tmp_path))
    emotions = {"angry", "bored", "disgusted", "fearful", "happy", "sad", "neutral"}
    assert set(corpus.values()) == emotions
    assert dict(zip(corpus.values("speaker"), corpus.values("gender"), strict=True)) == {
        **{"03": "male", "08": "female", "16": "female"}
    }


def test_tess_has_two_speakers_though_one_file_is_misnamed(tmp_path):
    corpus = open_corpus("tess", tess(tmp_path))
    assert set(corpus.values("speaker")) == {"OAF", "YAF"}
    assert len(set(corpus.values())) == 7
    assert "surprised" in corpus.values()


def test_fsdd_tests_on_the_first_five(tmp_path):
    corpus = open_corpus("fsdd", fsdd(tmp_path))
    assert {name: len(ids) for name, ids in corpus.splits.items()} == {"train": 40, "test": 100}
    assert all(int(Path(id).stem.split("_")[2]) <= 4 for id in corpus.splits["test"])
    assert open_corpus("fsdd", tmp_path, label="speaker").group is None


def test_folders(tmp_path):
    corpus = open_corpus("folders", folders(tmp_path), label="colour")
    assert labels_of(corpus, "colour") == {
        **{"grün, hell/a.wav": "grün, hell", "grün, hell/deep/b.wav": "grün, hell", "red/a.wav": "red"}
    }


def test_manifest(tmp_path):
    source = table(
        tmp_path, ["a.wav", "froh, laut", "é", "dev"], ["b.wav", "文", "f", "Train"], ["c.wav", "文", "f", ""]
    )
    corpus = open_corpus("manifest", source, label="feeling", group="who", split="part")
    assert corpus.values() == ["froh, laut", "文", "文"]
    assert (corpus.label, corpus.group, corpus.folded) == ("feeling", "who", False)
    assert corpus.splits == {"validation": ["a.wav"], "train": ["b.wav"]}
    assert open_corpus("manifest", source, label="who", group="who").group is None


def test_manifest_with_folds(tmp_path):
    source = table(tmp_path, ["a.wav", "x", "e", "2"], ["b.wav", "y", "f", "1"])
    corpus = open_corpus("manifest", source, label="feeling", split="part")
    assert corpus.splits == {"1": ["b.wav"], "2": ["a.wav"]}
    assert corpus.folded


@pytest.mark.shared
def test_shared_fsdd(shared):
    corpus = open_corpus("fsdd", shared / "data" / "fsdd")
    assert len(corpus.utterances) == 3000
    assert len(set(corpus.values("speaker"))) == 6
    assert {name: len(ids) for name, ids in corpus.splits.items()} == {"train": 2700, "test": 300}


@pytest.mark.shared
def test_shared_emodb_has_the_labels_of_its_manifest(shared):
    corpus = open_corpus("emodb", shared / "data" / "emodb")
    manifest = open_corpus("manifest", shared / "data" / "emodb.tsv", label="emotion", group="speaker")
    for label in ("emotion", "speaker"):
        by_path = dict(zip([utterance.path for utterance in manifest.utterances], manifest.values(label), strict=True))
        assert (
            dict(zip([utterance.path for utterance in corpus.utterances], corpus.values(label), strict=True)) == by_path
        )
