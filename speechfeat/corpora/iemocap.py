"""IEMOCAP: dyadic sessions of ten speakers, with the emotion of every turn."""

import re
from pathlib import Path

from speechfeat.corpora.base import Corpus, find_folder, refuse, split_by
from speechfeat.errors import ParameterError
from speechfeat.manifests import read_manifest
from speechfeat.types import Utterance

# The four classes of most papers (5,531 turns), excitement counted as happiness; the rest of the annotations are:
# frustration, fear, surprise, disgust, other, and no agreement.
_CLASSES = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}
_OTHERS = "fru|fea|sur|dis|oth|xxx"

# [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
# The letter before the number tells who speaks; that after the session, who wore the motion capture.
_TURN = re.compile(
    rf"\[[\d. -]+\]\s+((Ses0([1-5])[FM]_(impro|script)\w+)_([FM])\w{{3}})\s+({'|'.join(_CLASSES)}|{_OTHERS})\s.*"
)


def read_iemocap(root: Path) -> Corpus:
    """IEMOCAP: the turns of four classes, a fold a session.

    Labels are those of `Session1-5/dialog/EmoEvaluation/*.txt`: Busso et al., "IEMOCAP: interactive emotional dyadic
    motion capture database", Language Resources and Evaluation 42, 2008. Classes (with excitement as happiness) and
    folds are those of SUPERB: Yang et al., "SUPERB: Speech processing Universal PERformance Benchmark", Interspeech
    2021.
    """
    top = find_folder(root, "IEMOCAP", "Session1/dialog/EmoEvaluation", ("IEMOCAP_full_release", "IEMOCAP"))
    utterances = [utterance for number in range(1, 6) for utterance in _session(root, top / f"Session{number}")]
    missing = [utterance.id for utterance in utterances if not Path(utterance.path).is_file()]
    refuse(missing, f"of {len(utterances)} recordings that the evaluations name are missing", "unpack all sessions")
    note = (
        "Four classes, with excitement as happiness; turns of other emotions or without agreement are left out (label "
        "annotation has what was annotated). No speaker is in two sessions."
    )
    return Corpus("iemocap", utterances, "emotion", "speaker", split_by(utterances, "session"), folded=True, note=note)


def _session(root: Path, folder: Path) -> list[Utterance]:
    # The archive holds hidden copies ("._Ses01F_impro01.txt") that a Macintosh left.
    evaluations = folder / "dialog" / "EmoEvaluation"
    files = [file for file in sorted(evaluations.glob("*.txt")) if not file.name.startswith(".")]
    if not files:
        raise ParameterError(
            f"{str(evaluations)!r} holds no evaluations (Ses01F_impro01.txt ...); unpack all five sessions of IEMOCAP"
        )
    utterances = []
    for file in files:
        for row in read_manifest(file):
            if not row.path.startswith("["):  # the evaluations of single annotators
                continue
            match = _TURN.fullmatch(row.path)
            if match is None:
                raise ParameterError(
                    f"{row.place} of {str(file)!r} is not a turn with an emotion as IEMOCAP has them: {row.path!r}"
                )
            turn, dialog, session, style, gender, annotation = match.groups()
            if annotation not in _CLASSES:
                continue
            path = folder / "sentences" / "wav" / dialog / f"{turn}.wav"
            labels = {
                "emotion": _CLASSES[annotation],
                "annotation": annotation,
                "speaker": f"Ses0{session}{gender}",
                "gender": "female" if gender == "F" else "male",
                "session": folder.name,
                "style": style,
            }
            utterances.append(Utterance(path.relative_to(root).as_posix(), str(path), labels=labels))
    return utterances
