"""Transcripts as the classes of a CTC head, spelt as its training spelt them."""

import re
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

from speechfeat.errors import ModelError, TextError

# What SentencePiece writes for the space before a word.
WORD_MARK = "\u2581"
# Letters, marks and numbers are said: unlike punctuation they cannot be left out.
SAID = "LMN"
APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'"})

# In place of the class of a word that the head cannot spell.
STAR = -1
# In place of the word that a class belongs to: of none, but of the pause between two.
PAUSE = -1


class Spelling(NamedTuple):
    """A transcript for CTC.

    Attributes:
        words: that are said: their text, its first character in the transcript and one past its last.
        classes: of all words in a row, and of the pauses before, between and behind them where the head has those.
        owners: which word each class belongs to, or PAUSE.
    """

    words: list[tuple[str, tuple[int, int]]]
    classes: list[int]
    owners: list[int]

    @property
    def num_frames(self) -> int:
        """The fewest frames that it can be said in: one a class, and a blank between two that are alike."""
        alike = sum(one == other for one, other in zip(self.classes, self.classes[1:], strict=False))
        return len(self.classes) + alike


class Speller:
    """How a CTC head spells: letter by letter with a class between words, or in pieces of words.

    Args:
        tokenizer: of the checkpoint, of transformers.
        blank: the class of CTC that stands for nothing.

    Attributes:
        pause: the class between words; None where pieces of words mark their beginning.
        letters: that it has.

    Raises:
        ModelError: if its vocabulary has no letter.
    """

    def __init__(self, tokenizer: Any, blank: int) -> None:
        names = {name: number for name, number in tokenizer.get_vocab().items() if number != blank}
        between = getattr(tokenizer, "word_delimiter_token", None)
        special = {*tokenizer.all_special_tokens, between}
        self.pause: int | None = names.get(between) if between else None
        self.letters = {letter for name in names if name not in special for letter in name} - {WORD_MARK}
        if not any(letter.isalpha() for letter in self.letters):
            raise ModelError(f"the vocabulary of {type(tokenizer).__name__} has no letters, so it spells no words")
        self._tokenizer = tokenizer
        self._refused = {blank, getattr(tokenizer, "unk_token_id", None)}

    def spell(self, transcript: str, *, star: bool = False) -> Spelling:
        """The classes of a transcript, whose words are what spaces part.

        Case is the head's. Accents that it does not have are taken off; punctuation that it does not have parts a word
        in two, as in "well-known", or is left out; a word of nothing else is none.

        Args:
            transcript: what is said.
            star: let a word with letters or digits that the head does not have stand for anything.

        Raises:
            TextError: if there is no word, or, without `star`, one that the head cannot spell.
        """
        pause = [] if self.pause is None else [self.pause]
        words: list[tuple[str, tuple[int, int]]] = []
        classes, owners = list(pause), [PAUSE for _ in pause]
        for match in re.finditer(r"\S+", transcript):
            own, unknown = self._word(match.group())
            if unknown and not star:
                raise TextError(
                    f"{match.group()!r} has {unknown!r}, which the CTC head does not have; write it as it is said, or "
                    "let it stand for anything with unknown='star'"
                )
            own = [STAR] if unknown else own
            if own:
                classes += [*own, *pause]
                owners += [*(len(words) for _ in own), *(PAUSE for _ in pause)]
                words.append((match.group(), match.span()))
        if not words:
            raise TextError(f"{transcript[:40]!r} has no words; leave such recordings out")
        return Spelling(words, classes, owners)

    def _word(self, word: str) -> tuple[list[int], str]:
        """Its classes, and its characters that are said and not known."""
        parts, unknown = self._parts(unicodedata.normalize("NFC", word.translate(APOSTROPHES)))
        classes: list[int] = []
        for part in parts:
            if classes and self.pause is not None:
                classes.append(self.pause)
            classes += self._tokenizer(part, add_special_tokens=False)["input_ids"]
        if not unknown and self._refused.intersection(classes):
            return [], word
        return classes, unknown

    def _parts(self, word: str) -> tuple[list[str], str]:
        spelt, unknown = "", ""
        for char in word:
            known = self._letter(char)
            if known is not None:
                spelt += known
            elif unicodedata.combining(char):
                continue
            elif unicodedata.category(char)[0] in SAID:
                unknown += char
            else:
                spelt += " "
        return spelt.split(), unknown

    def _letter(self, char: str) -> str | None:
        """A character in the head's letters, if they have it in some case, with or without its accents."""
        plain = "".join(one for one in unicodedata.normalize("NFKD", char) if not unicodedata.combining(one))
        cases: tuple[Callable[[str], str], ...] = (str, str.lower, str.upper)
        for form in (char, plain):
            for case in cases:
                if form and self.letters.issuperset(case(form)):
                    return case(form)
        return None
