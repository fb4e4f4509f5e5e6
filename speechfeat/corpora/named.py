"""Corpora whose file names hold the labels: FSDD, EmoDB, RAVDESS, CREMA-D, TESS.

Emotions have the same word in all of them: angry, bored, calm, disgusted, fearful, happy, neutral, sad, surprised.
"""

import re
from dataclasses import replace
from pathlib import Path

from speechfeat.corpora.base import Corpus, match_names, read_cells, recordings, split_by, stem

_EMODB_EMOTIONS = {
    "W": "angry",  # Wut
    "L": "bored",  # Langeweile
    "E": "disgusted",  # Ekel
    "A": "fearful",  # Angst
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "N": "neutral",
}
_EMODB_MEN = frozenset({"03", "10", "11", "12", "15"})

_RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
_RAVDESS_NAME = re.compile(r"0[1-3]-0[12]-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
_RAVDESS_SPEECH = "03-01-"

_CREMA_D_EMOTIONS = {
    "ANG": "angry",
    "DIS": "disgusted",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
_CREMA_D_SENTENCES = "IEO|TIE|IOM|IWW|TAI|MTI|IWL|ITH|DFA|ITS|TSI|WSI"
# 1040_ITH_SAD_X is so called by its authors.
_CREMA_D_NAME = re.compile(rf"(10\d\d)_({_CREMA_D_SENTENCES})_({'|'.join(_CREMA_D_EMOTIONS)})_(LO|MD|HI|XX?)")
_CREMA_D_FOLDS = 5

_TESS_EMOTIONS = {
    "angry": "angry",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprised",  # "pleasant surprise"
    "sad": "sad",
}
# OA_bite_neutral is so called by its authors; the older speaker says it.
_TESS_NAME = re.compile(rf"(OAF?|YAF)_([a-z]+)_({'|'.join(_TESS_EMOTIONS)})", re.IGNORECASE)


def read_fsdd(root: Path) -> Corpus:
    """Free Spoken Digit Dataset: digits of six speakers, named `{digit}_{speaker}_{index}`.

    Recordings 0-4 of a speaker's digit are the test set: README of github.com/Jakobovski/free-spoken-digit-dataset.
    """
    utterances, splits = [], {"train": list[str](), "test": list[str]()}
    scheme = re.compile(r"(\d)_([^_]+)_(\d+)")
    for utterance, match in match_names(recordings(root, root), scheme, "FSDD", "7_jackson_32"):
        utterances.append(replace(utterance, labels={"keyword": match[1], "speaker": match[2]}))
        splits["test" if int(match[3]) <= 4 else "train"].append(utterance.id)
    note = "The official split tests on speakers it trained on: for others, leave out one speaker in turn."
    return Corpus("fsdd", utterances, "keyword", "speaker", splits, note=note)


def read_emodb(root: Path) -> Corpus:
    """Berlin Database of Emotional Speech: seven emotions acted by ten speakers, named as `03a01Fa`.

    Speaker, code of the text, first letter of the emotion in German, take: Burkhardt et al., "A database of German
    emotional speech", Interspeech 2005, and emodb.bilderbar.info.
    """
    utterances = []
    scheme = re.compile(r"(03|08|09|1[0-6])([ab]\d\d)([WLEAFTN])[a-z]")
    for utterance, match in match_names(recordings(root, root), scheme, "EmoDB", "03a01Fa"):
        labels = {
            "emotion": _EMODB_EMOTIONS[match[3]],
            "speaker": match[1],
            "gender": "male" if match[1] in _EMODB_MEN else "female",
            "sentence": match[2],
        }
        utterances.append(replace(utterance, labels=labels))
    note = "There is no official split: leave out one speaker in turn."
    return Corpus("emodb", utterances, "emotion", "speaker", note=note)


def read_ravdess(root: Path) -> Corpus:
    """RAVDESS, speech alone: eight emotions acted by 24 speakers, named as `03-01-06-01-02-01-12`.

    Modality, vocal channel, emotion, intensity, statement, repetition, actor (odd ones are men): Livingstone and
    Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", PLoS ONE 13(5), 2018; zenodo.org/1188976.
    """
    utterances = []
    for utterance, match in match_names(recordings(root, root), _RAVDESS_NAME, "RAVDESS", "03-01-06-01-02-01-12"):
        if not stem(utterance).startswith(_RAVDESS_SPEECH):
            continue
        labels = {
            "emotion": _RAVDESS_EMOTIONS[int(match[1]) - 1],
            "intensity": "normal" if match[2] == "01" else "strong",
            "sentence": match[3],
            "repetition": match[4],
            "speaker": match[5],
            "gender": "male" if int(match[5]) % 2 else "female",
        }
        utterances.append(replace(utterance, labels=labels))
    note = (
        "Speech without pictures alone (03-01-...): songs and videos are left out. There is no official split: leave "
        "out speakers."
    )
    return Corpus("ravdess", utterances, "emotion", "speaker", note=note)


def read_crema_d(root: Path) -> Corpus:
    """CREMA-D: six emotions in twelve sentences acted by 91 speakers, named as `1001_DFA_ANG_XX`.

    Actor, sentence, emotion, level: Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE
    Transactions on Affective Computing 5(4), 2014, and github.com/CheyneyComputerScience/CREMA-D, whose `AudioWAV` is
    read where there is one, with the actors' sex from `VideoDemographics.csv`.
    """
    folder = root / "AudioWAV" if (root / "AudioWAV").is_dir() else root
    genders = {row.get("ActorID"): row.get("Sex", "") for row in read_cells(root / "VideoDemographics.csv", ",")}
    utterances = []
    for utterance, match in match_names(recordings(root, folder), _CREMA_D_NAME, "CREMA-D", "1001_DFA_ANG_XX"):
        labels = {
            "emotion": _CREMA_D_EMOTIONS[match[3]],
            "intensity": match[4],
            "sentence": match[2],
            "speaker": match[1],
            "gender": genders.get(match[1], "").lower(),
            "fold": f"fold{(int(match[1]) - 1001) % _CREMA_D_FOLDS + 1}",
        }
        utterances.append(replace(utterance, labels=labels))
    note = (
        "The five folds are our own, an actor's by the number: CREMA-D has no official split, and the fold that EmoBox "
        "publishes has all 91 speakers of its test set in training."
    )
    return Corpus("crema-d", utterances, "emotion", "speaker", split_by(utterances, "fold"), folded=True, note=note)


def read_tess(root: Path) -> Corpus:
    """Toronto emotional speech set: 200 words in seven emotions by two women, named as `OAF_back_angry`.

    Speaker (64 and 26 years old), word, emotion: Pichora-Fuller and Dupuis, 2020, doi:10.5683/SP2/E8H2MF.
    """
    utterances = []
    for utterance, match in match_names(recordings(root, root), _TESS_NAME, "TESS", "OAF_back_angry"):
        labels = {
            "emotion": _TESS_EMOTIONS[match[3].lower()],
            "speaker": "YAF" if match[1].upper() == "YAF" else "OAF",
            "gender": "female",
            "sentence": match[2].lower(),
        }
        utterances.append(replace(utterance, labels=labels))
    note = "Two speakers and no official split: train on one, test on the other; a random split tells of voices known."
    return Corpus("tess", utterances, "emotion", "speaker", note=note)
