"""Transcripts as class numbers for CTC, by an alphabet of letters, and back."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torchaudio

from speechfeat.errors import ParameterError

BLANK, SPACE = "<pad>", "|"
ENGLISH = "'abcdefghijklmnopqrstuvwxyz"


class Alphabet:
    """Letters, the space between words, and the blank of CTC, which is class 0.

    Args:
        letters: lower case, each once; accents are taken off the texts, so there are none here.

    Raises:
        ParameterError: for letters that no text would have, or that are there twice.

    Example:
        >>> alphabet = Alphabet("abc")
        >>> alphabet.encode("Cab, à!"), alphabet.decode([4, 4, 0, 2, 2, 3, 1, 2])
        ([4, 2, 3, 1, 2], 'cab a')
    """

    def __init__(self, letters: str = ENGLISH) -> None:
        plain = unicodedata.normalize("NFKD", letters.lower())
        if len(set(letters)) != len(letters) or letters != plain or any(letter in f" {SPACE}" for letter in letters):
            raise ParameterError(
                f"letters={letters!r} must each be there once, lower case, without accents (texts lose theirs)"
            )
        self.letters = letters
        self._classes = {symbol: number for number, symbol in enumerate((BLANK, SPACE, *letters))}

    def __len__(self) -> int:
        return len(self._classes)

    def normalize(self, text: str) -> str:
        """Lower case, without accents and punctuation, one space between words."""
        decomposed = unicodedata.normalize("NFKD", text.lower().replace("\u2019", "'"))
        kept = (char for char in decomposed if not unicodedata.combining(char))
        return " ".join("".join(char if char.isalnum() or char in self.letters else " " for char in kept).split())

    def encode(self, text: str) -> list[int] | None:
        """Class numbers of a text; None if it has a letter or digit that the alphabet lacks, or none at all."""
        symbols = self.normalize(text).replace(" ", SPACE)
        if not symbols or any(symbol not in self._classes for symbol in symbols):
            return None
        return [self._classes[symbol] for symbol in symbols]

    def decode(self, classes: Sequence[int]) -> str:
        """The text of one class a frame: repetitions are one, blanks are none."""
        kept = [new for old, new in zip((0, *classes), classes, strict=False) if new not in (old, 0)]
        return " ".join(self.spell(kept).split())

    def spell(self, classes: Sequence[int]) -> str:
        """The text of one class a letter."""
        names = list(self._classes)
        return "".join(names[number] for number in classes).replace(SPACE, " ")

    def save(self, directory: Path) -> None:
        """Write the vocabulary as the tokenizer that transformers has for CTC on letters (`AutoTokenizer`)."""
        (directory / "vocab.json").write_text(json.dumps(self._classes, indent=1) + "\n")
        settings = {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "pad_token": BLANK,
            "word_delimiter_token": SPACE,
            "unk_token": BLANK,
            "bos_token": None,
            "eos_token": None,
        }
        (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Character error rate: insertions, deletions and substitutions over the characters of all references."""
    pairs = zip(references, hypotheses, strict=True)
    errors = sum(torchaudio.functional.edit_distance(list(one), list(other)) for one, other in pairs)
    return errors / sum(map(len, references))
