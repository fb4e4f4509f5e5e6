from pathlib import Path

import pytest
from transformers import AutoTokenizer

from speechfeat.errors import ParameterError
from speechfeat.transcripts import Alphabet, error_rate


@pytest.mark.parametrize(
    ("text", "normal"),
    [("Hello,  World!", "hello world"), ("It\u2019s Café", "it's cafe"), ("über-groß", "uber groß"), (" ", "")],
)
def test_normalising(text: str, normal: str) -> None:
    assert Alphabet().normalize(text) == normal


@pytest.mark.parametrize("text", ["", "!?", "привет", "groß", "route 66", "naïve あ"])
def test_a_text_outside_the_alphabet_has_no_classes(text: str) -> None:
    assert Alphabet().encode(text) is None


def test_spelling_undoes_encoding() -> None:
    alphabet = Alphabet()
    classes = alphabet.encode("Don't all speak at once")
    assert classes is not None
    assert alphabet.spell(classes) == "don't all speak at once"


def test_decoding_joins_repetitions_and_drops_blanks() -> None:
    alphabet = Alphabet()
    a, b = alphabet.encode("ab") or []
    assert alphabet.decode([0, a, a, 0, a, 1, 1, b, 0]) == "aa b"
    assert alphabet.decode([0, 0]) == ""


def test_the_saved_vocabulary_is_a_tokenizer_of_transformers(tmp_path: Path) -> None:
    alphabet = Alphabet()
    alphabet.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    classes = alphabet.encode("ab ba's") or []
    frames = [number for one in classes for number in (one, one, 0)]
    assert len(tokenizer) == len(alphabet)
    assert tokenizer("ab ba's").input_ids == classes
    assert tokenizer.decode(frames) == alphabet.decode(frames) == "ab ba's"


def test_the_error_rate_is_edits_over_characters_of_the_references() -> None:
    assert error_rate(["abcd", "ef"], ["abcd", "ef"]) == 0
    assert error_rate(["abcd", "ef"], ["abxd", "e"]) == pytest.approx(2 / 6)


@pytest.mark.parametrize("letters", ["abca", "abC", "aä", "a b", "a|"])
def test_letters_that_no_text_has_are_refused(letters: str) -> None:
    with pytest.raises(ParameterError, match="must each be there once"):
        Alphabet(letters)
