"""Known corpora by name."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import NamedTuple

from speechfeat.corpora.base import Corpus
from speechfeat.corpora.commands import read_commands
from speechfeat.corpora.iemocap import read_iemocap
from speechfeat.corpora.named import read_crema_d, read_emodb, read_fsdd, read_ravdess, read_tess
from speechfeat.corpora.tables import read_columns, read_folders
from speechfeat.corpora.transcribed import read_common_voice, read_librispeech
from speechfeat.corpora.voxceleb import read_identification, read_verification
from speechfeat.errors import ParameterError


class Entry(NamedTuple):
    """A known corpus.

    Attributes:
        read: from its directory.
        about: in a line, with what the directory holds.
    """

    read: Callable[[Path], Corpus]
    about: str


def _commands(name: str, version: str, *, twelve: bool) -> Callable[[Path], Corpus]:
    return partial(read_commands, name=name, version=version, twelve=twelve)


_KNOWN = {
    "speech-commands-v1-12": Entry(
        _commands("speech-commands-v1-12", "0.01", twelve=True), "ten words, others, silence: yes/0ab_nohash_0.wav"
    ),
    "speech-commands-v2-12": Entry(
        _commands("speech-commands-v2-12", "0.02", twelve=True), "ten words, others, silence: yes/0ab_nohash_0.wav"
    ),
    "speech-commands-v2-35": Entry(
        _commands("speech-commands-v2-35", "0.02", twelve=False), "all 35 words: yes/0ab_nohash_0.wav"
    ),
    "voxceleb1-identification": Entry(read_identification, "1,251 speakers: iden_split.txt, wav/"),
    "voxceleb1-verification": Entry(read_verification, "trials O, E, H: veri_test2.txt, wav/"),
    "librispeech": Entry(read_librispeech, "read books: SPEAKERS.TXT, dev-clean/"),
    "common-voice": Entry(read_common_voice, "read sentences of one language: train.tsv, clips/"),
    "iemocap": Entry(read_iemocap, "four emotions, ten speakers: Session1/"),
    "ravdess": Entry(read_ravdess, "eight emotions, 24 speakers: Actor_01/03-01-06-01-02-01-01.wav"),
    "crema-d": Entry(read_crema_d, "six emotions, 91 speakers: AudioWAV/1001_DFA_ANG_XX.wav"),
    "emodb": Entry(read_emodb, "seven emotions, ten speakers, German: 03a01Fa.wav"),
    "tess": Entry(read_tess, "seven emotions, two speakers: OAF_back_angry.wav"),
    "fsdd": Entry(read_fsdd, "ten digits, six speakers: 7_jackson_32.wav"),
    "folders": Entry(read_folders, "a folder a label: yes/any.wav"),
}
_MANIFEST = "manifest"

# Names of the corpora that `open_corpus` takes -> a line about each.
CORPORA: Mapping[str, str] = {
    **{name: entry.about for name, entry in _KNOWN.items()},
    _MANIFEST: "a CSV, TSV or JSONL file with a path and columns of labels",
}


def open_corpus(
    name: str,
    root: str | os.PathLike[str],
    *,
    label: str | None = None,
    group: str | None = None,
    split: str | None = None,
    where: Mapping[str, Collection[str]] | None = None,
) -> Corpus:
    """Read a corpus as its authors distribute it: utterances with labels, official splits and trials.

    Nothing is downloaded, and no recording is decoded.

    Args:
        name: of `CORPORA`, in any case.
        root: directory that the corpus was unpacked into; of "manifest", the file.
        label: what is to be told, if another label than the corpus is known for; of "folders", what to call it; of
            "manifest", its column.
        group: what no training and test set should share, if another; of "manifest", its column, if there is one.
        split: column of the official split of a "manifest", if there is one.
        where: of a "manifest": column -> its values in the lines that are taken; none for any that is not empty.

    Raises:
        ParameterError: if the name is not known, files are missing or not those of the corpus, or a label is not there.

    Example:
        corpus = sf.open_corpus("fsdd", "free-spoken-digit-dataset")
        corpus.values()  # the digit of every utterance
    """
    key = name.lower().replace("_", "-")
    if key == _MANIFEST:
        return _ungrouped(read_columns(root, label, group, split, where))
    if key not in _KNOWN:
        close = get_close_matches(key, CORPORA, n=2, cutoff=0.5)
        meant = f"; did you mean {' or '.join(map(repr, close))}?" if close else ";"
        raise ParameterError(f"unknown corpus {name!r}{meant} Known are: {', '.join(CORPORA)}")
    if split is not None:
        raise ParameterError(f"split={split!r} is a column of a manifest; {key!r} has its own splits or none")
    if where:
        raise ParameterError(f"where={dict(where)} is of columns of a manifest; {key!r} is taken whole")
    top = Path(os.fsdecode(root))
    if not top.is_dir():
        raise ParameterError(f"{str(top)!r} is not a directory; give the one that {key!r} was unpacked into")
    corpus = read_folders(top, label or "label") if key == "folders" else _KNOWN[key].read(top)
    if not corpus.utterances:
        raise ParameterError(f"{str(top)!r} holds no utterances of {key!r}; give the directory it was unpacked into")
    corpus = replace(corpus, label=label or corpus.label, group=group or corpus.group)
    for wanted in {corpus.label, corpus.group} - {None}:
        corpus.values(wanted)
    return _ungrouped(corpus)


def _ungrouped(corpus: Corpus) -> Corpus:
    """What is to be told cannot be kept out of training."""
    return replace(corpus, group=None) if corpus.group == corpus.label else corpus
