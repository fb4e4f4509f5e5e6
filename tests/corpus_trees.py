"""Known corpora as made trees of their real layouts."""

import csv
from pathlib import Path

import numpy as np
import soundfile

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


def table(folder: Path, *rows: list[str]) -> Path:
    touch(folder, "a.wav", "b.wav", "c.wav")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["path", "feeling", "who", "part"], *rows])
    return folder / "table.csv"
