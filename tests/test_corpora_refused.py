"""What is refused of known corpora, in one sentence."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechfeat.corpora.opening import open_corpus
from speechfeat.errors import ParameterError
from tests.corpus_trees import OTHERS_V1, TREES, commands, fsdd, iemocap, table, touch, write


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
