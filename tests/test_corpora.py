"""Known corpora, as made trees of their real layouts: what is read of them, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechfeat.corpora.base import Corpus, Trial
from speechfeat.corpora.opening import CORPORA, open_corpus
from speechfeat.errors import ParameterError

WANTED = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
OTHERS_V1 = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"),
]
OTHERS_V2 = [*OTHERS_V1, "backward", "follow", "forward", "learn", "visual"]
SPEAKERS = {"train": ["0a0a", "0b0b", "0c0c"], "validation": ["1a1a"], "testing": ["2a2a"]}


def touch(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def write(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def commands(top: Path, others: list[str] = OTHERS_V2) -> Path:
    """Speech Commands: five speakers say every word once; two noises of 30 s."""
    for split, speakers in SPEAKERS.items():
        names = [f"{word}/{speaker}_nohash_0.wav" for speaker in speakers for word in [*WANTED, *others]]
        touch(top, *names)
        if split != "train":
            write(top / f"{split}_list.txt", *names)
    (top / "_background_noise_").mkdir()
    write(top / "_background_noise_" / "README.md", "noise")
    for name in ("pink_noise", "running_tap"):
        soundfile.write(top / "_background_noise_" / f"{name}.wav", np.zeros(30 * 1000), 1000)
    return top


def official_test(top: Path) -> Path:
    touch(top, *(f"{word}/2a2a_nohash_0.wav" for word in WANTED))
    touch(top, "_silence_/1024.wav", "_silence_/127.wav", "_unknown_/bed_2a2a_nohash_0.wav.wav")
    return top


VOXCELEB_IDS = {"id10001": "dev", "id10002": "dev", "id10270": "test", "id10271": "test"}


def voxceleb(top: Path, folders: bool = False) -> Path:
    places = [f"{speaker}/{video}/0000{k}.wav" for speaker in VOXCELEB_IDS for video in ("aB-_1", "c2") for k in (1, 2)]
    for place in places:
        touch(top / VOXCELEB_IDS[place[:7]] / "wav" if folders else top / "wav", place)
    numbers = {"aB-_1/00001": 1, "aB-_1/00002": 1, "c2/00001": 2, "c2/00002": 3}
    write(top / "iden_split.txt", *(f"{numbers[place[8:-4]]} {place}" for place in places))
    write(
        top / "veri_test2.txt",
        "1 id10270/aB-_1/00001.wav id10270/c2/00001.wav",
        "0 id10270/aB-_1/00001.wav id10271/c2/00002.wav",
    )
    write(top / "list_test_hard2.txt", "0 id10001/aB-_1/00001.wav id10002/c2/00001.wav")
    write(
        top / "vox1_meta.csv",
        "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet",
        "id10001\tA.J._Buckley\tm\tIreland\tdev",
    )
    return top


def librispeech(top: Path) -> Path:
    for subset, speaker in (("train-clean-100", 19), ("dev-clean", 84), ("test-other", 1688)):
        for chapter in (1, 2):
            folder, name = top / subset / str(speaker) / str(chapter), f"{speaker}-{chapter}"
            touch(folder, f"{name}-0000.flac", f"{name}-0001.flac")
            write(folder / f"{name}.trans.txt", f"{name}-0000 A, B", f"{name}-0001 ÇA")
    write(
        top / "SPEAKERS.TXT",
        "; ID  |SEX| SUBSET           |MINUTES| NAME",
        "19   | F | train-clean-100  | 25.19 | Kara Shallenberg",
        "84   | M | dev-clean | 8.02 | |CBW|Simon",
        "1688 | M | test-other | 8.2 | Tim",
    )
    return top


def common_voice(top: Path) -> Path:
    def row(speaker: str, clip: str) -> str:
        return f'{speaker}\t{clip}.mp3\t“Ça”, said "{clip}"\t\tfemale'

    header = "client_id\tpath\tsentence\tage\tgender"
    clips = {"train": ["a1", "a2"], "dev": ["b1"], "test": ["c1"], "validated": ["a1", "a2", "b1", "c1", "d1"]}
    for name, names in clips.items():
        write(top / f"{name}.tsv", header, *(row(clip[0], clip) for clip in names))
    touch(top / "clips", *(f"{clip}.mp3" for clip in clips["validated"]))
    return top


IEMOCAP_TURNS = {
    "M000": "ang",
    "F000": "exc",
    "F001": "hap",
    "M001": "neu",
    "MXX0": "sad",
    "F002": "xxx",
    "F003": "fru",
}


def iemocap(top: Path) -> Path:
    for number in range(1, 6):
        session = top / f"Session{number}"
        for dialog in (f"Ses0{number}F_impro01", f"Ses0{number}M_script01_1"):
            touch(session / "sentences" / "wav" / dialog, *(f"{dialog}_{turn}.wav" for turn in IEMOCAP_TURNS))
            write(
                session / "dialog" / "EmoEvaluation" / f"{dialog}.txt",
                "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]",
                "",
                *(
                    f"[6.2901 - 8.2357]\t{dialog}_{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()"
                    for turn, emotion in IEMOCAP_TURNS.items()
                ),
            )
        (session / "dialog" / "EmoEvaluation" / f"._Ses0{number}F_impro01.txt").write_bytes(b"\x00\x05\x16\xff")
    return top


def ravdess(top: Path) -> Path:
    for actor in (1, 2, 24):
        names = [f"03-01-0{emotion}-01-02-01-{actor:02d}.wav" for emotion in range(1, 9)]
        touch(
            top / f"Actor_{actor:02d}",
            *names,
            f"03-02-01-01-01-01-{actor:02d}.wav",
            f"01-01-01-01-01-01-{actor:02d}.mp4",
        )
    return top


def crema_d(top: Path) -> Path:
    emotions = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
    touch(top / "AudioWAV", *(f"{actor}_DFA_{emotion}_XX.wav" for actor in range(1001, 1092) for emotion in emotions))
    touch(top / "AudioWAV", "1040_ITH_SAD_X.wav")
    touch(top / "AudioMP3", "1001_DFA_ANG_XX.mp3")
    write(
        top / "VideoDemographics.csv",
        '"ActorID","Age","Sex","Race","Ethnicity"',
        '1001,51,"Male","Caucasian","No, none"',
    )
    return top


def emodb(top: Path) -> Path:
    touch(top / "wav", *(f"{speaker}a01{letter}a.wav" for speaker in ("03", "08", "16") for letter in "WLEAFTN"))
    return top


def tess(top: Path) -> Path:
    emotions = ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")
    touch(top, *(f"{who}_{emotion}/{who}_back_{emotion}.wav" for who in ("OAF", "YAF") for emotion in emotions))
    touch(top, "OAF_neutral/OA_bite_neutral.wav")
    return top


def fsdd(top: Path) -> Path:
    names = (f"{digit}_{who}_{k}.wav" for digit in range(10) for who in ("george", "lucas") for k in range(7))
    touch(top / "recordings", *names)
    write(top / "README.md", "digits")
    return top


def folders(top: Path) -> Path:
    touch(top, "grün, hell/a.wav", "grün, hell/deep/b.wav", "red/a.wav", "notes.txt")
    return top


TREES = {
    "speech-commands-v1-12": lambda top: commands(top, OTHERS_V1),
    "speech-commands-v2-12": commands,
    "speech-commands-v2-35": commands,
    "voxceleb1-identification": voxceleb,
    "voxceleb1-verification": voxceleb,
    "librispeech": librispeech,
    "common-voice": common_voice,
    "iemocap": iemocap,
    "ravdess": ravdess,
    "crema-d": crema_d,
    "emodb": emodb,
    "tess": tess,
    "fsdd": fsdd,
    "folders": folders,
}
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


def table(folder: Path, *rows: list[str]) -> Path:
    touch(folder, "a.wav", "b.wav", "c.wav")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "feeling", "who", "part"], *rows])
    return folder / "table.csv"


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


def refused(message: str, name: str, root: Path, **options) -> None:
    with pytest.raises(ParameterError, match=message) as error:
        open_corpus(name, root, **options)
    assert "\n" not in str(error.value)


def test_unknown_names_and_roots(tmp_path):
    refused("unknown corpus 'creme-d'; did you mean 'crema-d'.*Known are: .*fsdd", "creme-d", tmp_path)
    refused("not a directory", "fsdd", tmp_path / "none")
    refused("split='x' is a column of a manifest", "fsdd", tmp_path, split="x")
    for name in set(TREES) - {"folders"}:
        (tmp_path / name).mkdir()
        refused("looked for", name, tmp_path / name)


def test_unknown_labels(tmp_path):
    fsdd(tmp_path / "fsdd")
    for options in ({"label": "emotion"}, {"group": "emotion"}):
        refused(
            "no utterance of 'fsdd' has a label 'emotion'; it has: keyword, speaker",
            "fsdd",
            tmp_path / "fsdd",
            **options,
        )
    source = table(tmp_path, ["a.wav", "x", "e", ""], ["b.wav", "", "f", ""], ["d.wav", "x", "e", ""])
    refused("needs label=, one of its columns: feeling, who, part", "manifest", source)
    refused("no column label='mood'; it has: feeling, who, part", "manifest", source, label="mood")
    refused("no column group='mood'", "manifest", source, label="who", group="mood")
    refused("1 of 3 utterances .* have no 'feeling', first 'b.wav'", "manifest", source, label="feeling")
    refused("1 of 3 recordings .* are missing, first '.*d.wav'", "manifest", source, label="who")


# Corpus, a file to add to its tree, message.
STRANGE = [
    (
        "fsdd",
        "recordings/ten_george_1.wav",
        "1 of 141 recordings are not named as those of FSDD .*first 'recordings/ten",
    ),
    ("fsdd", "copy/0_george_0.wav", "1 of 141 recordings of FSDD have the name of another"),
    ("emodb", "wav/03a01Xa.wav", "not named as those of EmoDB"),
    ("ravdess", "Actor_25/03-01-01-01-01-01-25.wav", "not named as those of RAVDESS"),
    ("ravdess", "all/Actor_01/03-01-01-01-02-01-01.wav", "have the name of another"),
    ("crema-d", "AudioWAV/1001_DFA_JOY_XX.wav", "not named as those of CREMA-D"),
    ("tess", "OAF_calm/OAF_back_calm.wav", "not named as those of TESS"),
    ("folders", "loose.wav", "1 of 4 recordings are in no folder"),
    ("voxceleb1-identification", "wav/id10001/c2/00009.wav", "1 of 17 recordings are not in iden_split.txt"),
    ("voxceleb1-verification", "wav/someone.wav", "not named as those of VoxCeleb1"),
    ("voxceleb1-verification", "dev/wav/id10001/c2/00001.wav", "in two folders"),
    ("librispeech", "dev-noisy/1/1/1-1-0000.flac", "not where those of LibriSpeech are"),
    ("librispeech", "dev-clean/84/1/84-1-0002.flac", "have no text"),
    ("speech-commands-v2-35", "yes/me.wav", "not of the 35 words"),
    ("speech-commands-v2-35", "maybe/0a0a_nohash_0.wav", "not of the 35 words"),
    ("speech-commands-v2-12", "speech_commands_test_set_v0.02/yes/me.wav", "not named as in the official test set"),
    ("speech-commands-v2-12", "speech_commands_test_set_v0.02/yes/2a2a_nohash_0.wav", "11 of 12 classes"),
]


@pytest.mark.parametrize(("name", "file", "message"), STRANGE)
def test_files_of_no_known_name_are_refused(tmp_path, name, file, message):
    TREES[name](tmp_path)
    touch(tmp_path, file)
    refused(message, name, tmp_path)


# Corpus, a file to take from its tree, message.
MISSING = [
    ("voxceleb1-identification", "wav/id10001/c2/00001.wav", r"1 of 16 recordings in '.*iden_split.txt' are missing"),
    ("voxceleb1-verification", "wav/id10271/c2/00002.wav", "1 of 3 recordings .*first 'id10271/c2/00002'"),
    ("librispeech", "dev-clean/84/1/84-1-0000.flac", "1 transcripts have no recording, first '84-1-0000'"),
    ("librispeech", "dev-clean/84/1/84-1.trans.txt", "2 of 12 recordings have no text"),
    ("common-voice", "clips/b1.mp3", "1 of 5 clips .* missing .*first 'b1.mp3'"),
    ("iemocap", "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_M000.wav", "1 of 50 recordings .* missing"),
    ("speech-commands-v2-35", "yes/1a1a_nohash_0.wav", "1 of 35 recordings .*validation_list.txt' are missing"),
]


@pytest.mark.parametrize(("name", "file", "message"), MISSING)
def test_lists_that_name_missing_recordings_are_refused(tmp_path, name, file, message):
    TREES[name](tmp_path)
    (tmp_path / file).unlink()
    refused(message, name, tmp_path)


# Corpus, a file to write in its tree, its line, message.
MALFORMED = [
    ("voxceleb1-verification", "veri_test2.txt", "2 a b", "line 1 of .* a line is like '1 id10270"),
    ("voxceleb1-identification", "iden_split.txt", "id10001/c2/00001.wav", "line 1 of .* a line is like"),
    (
        "iemocap",
        "Session1/dialog/EmoEvaluation/Ses01F_impro02.txt",
        "[1 - 2]\tSes01F_impro02_F000\tjoy\t[]",
        "is not a turn",
    ),
    ("librispeech", "SPEAKERS.TXT", "19 | F | train-clean-100 | 1 | K", "have no gender in SPEAKERS.TXT"),
    ("common-voice", "train.tsv", "path\tsentence\na1.mp3\tx", "no column 'client_id'; it has: path, sentence"),
]


@pytest.mark.parametrize(("name", "file", "line", "message"), MALFORMED)
def test_malformed_lists_are_refused(tmp_path, name, file, line, message):
    TREES[name](tmp_path)
    write(tmp_path / file, line)
    refused(message, name, tmp_path)


def test_commands_of_another_version_or_without_noise_are_refused(tmp_path):
    commands(tmp_path / "v1", OTHERS_V1)
    refused(
        "5 of the 35 words of version 0.02 have no recordings .*first 'backward'",
        "speech-commands-v2-35",
        tmp_path / "v1",
    )
    commands(tmp_path / "v2")
    refused("25 recordings are not of the 30 words", "speech-commands-v1-12", tmp_path / "v2")
    noise = tmp_path / "v2" / "_background_noise_"
    soundfile.write(noise / "pink_noise.wav", np.zeros(1000), 1000)
    refused(
        "noise '_background_noise_/pink_noise.wav' lasts 1.0 s, too short", "speech-commands-v2-12", tmp_path / "v2"
    )
    for file in noise.iterdir():
        file.unlink()
    noise.rmdir()
    refused("no folder _background_noise_", "speech-commands-v2-12", tmp_path / "v2")


def test_iemocap_needs_all_sessions(tmp_path):
    iemocap(tmp_path)
    for file in (tmp_path / "Session4" / "dialog" / "EmoEvaluation").iterdir():
        file.unlink()
    refused("Session4/dialog/EmoEvaluation' holds no evaluations", "iemocap", tmp_path)


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
