"""Stores side by side, joined by id, and manifests of which some lines are taken."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechfeat as sf
from tests.embedded import write_embeddings


def test_embeddings_are_joined_by_id(tmp_path: Path) -> None:
    speech = write_embeddings(tmp_path / "a", seed=0)
    more = write_embeddings(tmp_path / "b", seed=0, per=5, layers=(4,), weights="cd", model="other")
    both = sf.join_stores([speech, more], tmp_path / "both")
    assert both.ids == sorted(set(speech.ids) & set(more.ids)) == speech.ids
    values, one, other = both.embeddings()[1], speech.embeddings()[1], more.embeddings(speech.ids)[1]
    assert np.array_equal(values[..., :6], one)
    for layer in range(3):  # beside every layer
        assert np.array_equal(values[:, layer, 6:], other)
    # The other way round, and a second time from what is there.
    turned = sf.join_stores([more, speech], tmp_path / "turned")
    assert np.array_equal(turned.embeddings()[1][..., :6], values[..., 6:])
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "both" / "shards").iterdir()}
    assert sf.join_stores([speech, more], tmp_path / "both").ids == both.ids
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "both" / "shards").iterdir()}


def test_a_head_takes_what_is_joined_and_nothing_else(tmp_path: Path) -> None:
    speech = write_embeddings(tmp_path / "a", layers=(2,))
    voice = write_embeddings(tmp_path / "b", layers=(4,), weights="cd")
    both = sf.join_stores([speech, voice], tmp_path / "both")
    words = speech.table()["word"].tolist()
    head = sf.train_head(both, words, ids=both.ids, task="word")
    head.save(tmp_path / "head")
    found = sf.load_head(tmp_path / "head").predict(both)
    assert np.mean(found["label"] == words) > 0.9
    with pytest.raises(sf.ParameterError, match="takes features of"):
        head.predict(speech)


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    one, other = write_embeddings(tmp_path / "a"), write_embeddings(tmp_path / "b", weights="cd")
    single = write_embeddings(tmp_path / "c", layers=(2,), seed=1)
    with pytest.raises(sf.ParameterError, match="1 stores were given; joining takes two or more"):
        sf.join_stores([one], tmp_path / "x")
    with pytest.raises(sf.ParameterError, match="have several layers; all but one must have one"):
        sf.join_stores([one, other], tmp_path / "x")
    with pytest.raises(sf.ParameterError, match="have no id in common, such as '0-000' and '1-000'"):
        sf.join_stores([one, single], tmp_path / "x")
    sf.join_stores([one, write_embeddings(tmp_path / "d", layers=(2,))], tmp_path / "x")
    with pytest.raises(sf.StoreError, match="definition"):
        sf.join_stores([one, write_embeddings(tmp_path / "e", layers=(4,))], tmp_path / "x")


def test_lines_of_a_manifest_are_taken_by_their_cells(tmp_path: Path) -> None:
    lines = ["path\tsex\tspeaker\ttext"]
    for number, (sex, speaker, text) in enumerate(
        [("f", "a", "hi"), ("m", "b", ""), ("f", "", "ho"), ("x", "c", "hu"), ("m", "d", "he")]
    ):
        soundfile.write(tmp_path / f"{number}.wav", np.ones(800) * 0.1, 16000)
        lines.append(f"{number}.wav\t{sex}\t{speaker}\t{text}")
    (tmp_path / "t.tsv").write_text("\n".join(lines))

    def ids(**where: tuple[str, ...]) -> list[str]:
        corpus = sf.open_corpus("manifest", tmp_path / "t.tsv", label="sex", where=where)
        return [Path(one.path).stem for one in corpus.utterances]

    assert ids() == list("01234")
    assert ids(text=()) == list("0234")
    assert ids(text=(), speaker=(), sex=("f", "m")) == list("04")
    with pytest.raises(sf.ParameterError, match="has no column 'age'; it has: sex, speaker, text"):
        ids(age=())
    with pytest.raises(sf.ParameterError, match=r"no line of .* has a sex of q and what else is asked for"):
        ids(sex=("q",))
    with pytest.raises(sf.ParameterError, match="'folders' is taken whole"):
        sf.open_corpus("folders", tmp_path, where={"sex": ()})
