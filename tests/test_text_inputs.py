"""What texts are listed, under which ids, and what becomes of odd ones."""

import json
from pathlib import Path

import numpy as np
import pytest

import speechfeat as sf
from speechfeat.corpus import discover
from speechfeat.encoders.tokenizing import TextTokenizer
from speechfeat.text_corpus import discover_texts
from speechfeat.types import Tokens
from tests.families.text import BEFORE, BEHIND, BOTH, NONE, make_tokenizer


def listed(source: Path, **options: object) -> list[tuple[str, str | None]]:
    return [(one.id, one.text) for one in discover_texts(source, **options)]  # type: ignore[arg-type]


def test_a_text_file_has_a_text_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst\r\n\nthird one\n")
    assert listed(tmp_path / "a.txt") == [("00000001", "first"), ("00000002", ""), ("00000003", "third one")]
    assert listed(tmp_path / "a.txt", skip_empty=True) == [("00000001", "first"), ("00000003", "third one")]


def test_tables_have_ids_and_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,id,topic\n"one, two",x,pets\nthree,y,cars\n')
    found = discover_texts(tmp_path / "a.csv")
    assert [(one.id, one.text, dict(one.labels)) for one in found] == [
        ("x", "one, two", {"topic": "pets"}),
        ("y", "three", {"topic": "cars"}),
    ]
    (tmp_path / "a.tsv").write_text('Sentence\tn\n"quoted\t1\nplain\t2\n')
    assert listed(tmp_path / "a.tsv") == [("00000002", '"quoted'), ("00000003", "plain")]
    lines = [{"transcription": "one", "utt_id": "b"}, {"transcription": None, "utt_id": "a"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert listed(tmp_path / "a.jsonl") == [("b", "one"), ("a", "")]


def test_the_column_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,translation\none,eins\n")
    (found,) = discover_texts(tmp_path / "a.csv", text_column="Translation")
    assert found.text == "eins"
    assert found.labels == {"text_label": "one"}


def test_a_manifest_of_recordings_gives_the_ids_of_the_recordings(tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "path,start,end,id,text,speaker\na.wav,,,,one,ann\nb c.wav,0.5,1.5,,two,bob\nb c.wav,2,3,own,three,bob\n"
    )
    texts, recordings = discover_texts(manifest), discover(manifest)
    assert [one.id for one in texts] == [one.id for one in recordings] == ["a.wav", "b c.wav#0.500-1.500", "own"]
    assert [one.text for one in texts] == ["one", "two", "three"]
    assert [one.labels["speaker"] for one in texts] == ["ann", "bob", "bob"]


def test_kaldi_and_directories(tmp_path: Path) -> None:
    kaldi = tmp_path / "kaldi"
    kaldi.mkdir()
    (kaldi / "text").write_text("u1 hello there\nu2\n")
    (kaldi / "utt2spk").write_text("u1 ann\nu2 bob\n")
    for source in (kaldi, kaldi / "text", kaldi / "wav.scp"):
        assert listed(source) == [("u1", "hello there"), ("u2", "")]
    assert [one.labels for one in discover_texts(kaldi)] == [{"speaker": "ann"}, {"speaker": "bob"}]
    folder = tmp_path / "texts" / "b"
    folder.mkdir(parents=True)
    (folder / "two.txt").write_text("two\nlines")
    (folder.parent / "one.TXT").write_text("one")
    (folder.parent / "other.md").write_text("no")
    assert listed(folder.parent) == [("b/two.txt", None), ("one.TXT", None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "sentences\none\n", "no column 'text'"),
        ("a.csv", "text,id\none,x\ntwo,x\n", r"line 2 and line 3 .* same id 'x'"),
        ("a.txt", "", "holds no texts"),
        ("a.csv", "text\n", "holds no texts"),
        ("a.docx", "x", "unknown suffix"),
        ("a.jsonl", "[1]", "not a JSON object"),
        ("text", "", "holds no texts"),
    ],
)
def test_bad_sources_get_one_sentence(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(sf.ParameterError, match=message):
        discover_texts(tmp_path / name)


def test_a_cell_of_a_megabyte_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\n" + "ab " * 400_000 + ",x\n")
    ((_, text),) = listed(tmp_path / "a.csv")
    assert text is not None
    assert len(text) == 1_200_000


@pytest.mark.parametrize(("template", "around"), [(BOTH, (1, 1)), (BEFORE, (1, 0)), (BEHIND, (0, 1)), (NONE, (0, 0))])
def test_special_tokens_are_found_and_put_around(template: str, around: tuple[int, int]) -> None:
    stock = make_tokenizer(template)
    tokenizer = TextTokenizer(stock)
    assert (len(tokenizer.prefix), len(tokenizer.suffix)) == around
    for text in ("the cat sat.", "אב, a"):
        (found,) = tokenizer.tokenize([text])
        assert isinstance(found, Tokens)
        expected = stock(text, return_offsets_mapping=True)
        assert tokenizer.surround(found.samples).tolist() == expected["input_ids"]
        assert tokenizer.names(found) == tuple(stock.convert_ids_to_tokens(expected["input_ids"]))
        own = tokenizer.inner(len(expected["input_ids"]))
        offsets = tokenizer.offsets(found)
        assert offsets[own].tolist() == [list(pair) for pair in np.array(expected["offset_mapping"])[own]]
        assert all(one == other for one, other in offsets[~own])


def test_offsets_are_characters_of_the_text() -> None:
    tokenizer = TextTokenizer(make_tokenizer())
    text = "The cat, אבג"
    (found,) = tokenizer.tokenize([text])
    assert isinstance(found, Tokens)
    spelled = [text[first:last].lower() for first, last in found.offsets]
    assert spelled == ["the", "cat", ",", "א", "ב", "ג"]


def test_what_cannot_be_tokenized_says_why() -> None:
    tokenizer = TextTokenizer(make_tokenizer())
    found = tokenizer.tokenize(["", " \t", "a", "b\udcff", "\u0000"])
    assert [isinstance(one, Tokens) for one in found] == [False, False, True, False, True]
    assert "empty" in str(found[0])
    assert "UTF-8" in str(found[3])


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(sf.ModelError, match="no fast tokenizer"):
        TextTokenizer(object())


def test_the_state_of_a_tokenizer_does_not_matter() -> None:
    stock = make_tokenizer()
    before = TextTokenizer(stock).digest()
    stock(["the cat", "a"], padding=True, truncation=True, max_length=3)
    assert TextTokenizer(stock).digest() == before
    assert TextTokenizer(make_tokenizer(NONE)).digest() != before
