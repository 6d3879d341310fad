"""The vocabulary of a model that learns the words of its captions: the file `words.json`, read and written strictly.

{"words": ["a", "blue", …], "example": "a blue circle moves up"}: 1 to `MOST_WORDS` different words, sorted, as
`split_words` gives them, and a text of these words.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from magi_video.errors import MagiError, counted
from magi_video.files.atomic import write_json
from magi_video.files.folders import ensure_folder
from magi_video.files.json import MAX_CHARACTERS, read_json

WORDS_FILE = "words.json"
MOST_WORDS = 1024
MOST_LETTERS = 100
"""Of a word."""
EXAMPLE_WORDS = 20
"""Of an example that is made of words, at most."""
ZERO_WIDTH_SPACE = "\u200b"
"""A format character, but one that ends a word (Unicode, UAX 29): between words of Thai and Khmer."""
VARIATION_SELECTORS = frozenset(
    map(chr, (*range(0x180B, 0x180E), 0x180F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)
"""Marks that choose a glyph and mean nothing else."""


@dataclass(frozen=True)
class Vocabulary:
    """Attributes: see above."""

    words: list[str]
    example: str


def split_words(text: str) -> list[str]:
    """A text's words in their order, without case and punctuation: letters and digits of any script, with the marks
    that belong to them (vowel signs of Indic scripts, accents).

    Without case is by Unicode's compatibility caseless matching (definition D146), written composed (NFKC). Characters
    that are not seen (joiners, soft hyphens, variation selectors) and enclosing marks are left out, and end no word.
    """
    seen = "".join(sign for sign in text if not _is_left_out(sign))
    folded = unicodedata.normalize("NFD", seen).casefold()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", folded).casefold())
    signs = [" "]
    for sign in folded:
        belongs = sign.isalnum() or (signs[-1] != " " and unicodedata.category(sign).startswith("M"))
        signs.append(sign if belongs else " ")
    return "".join(signs).split()


def _is_left_out(sign: str) -> bool:
    kind = unicodedata.category(sign)
    return (kind == "Cf" and sign != ZERO_WIDTH_SPACE) or kind == "Me" or sign in VARIATION_SELECTORS


def holds_words(folder: Path) -> bool:
    """Whether the text encoder in a folder is one of learned words: what decides it, everywhere."""
    return (folder / WORDS_FILE).exists()


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """The vocabulary in a folder; None where there is none.

    Raises:
        MagiError: the file is not as described above.
    """
    if not holds_words(folder):
        return None
    path = folder / WORDS_FILE
    content = read_json(path)
    words, example = content.get("words"), content.get("example")
    if not isinstance(words, list) or not 1 <= len(words) <= MOST_WORDS:
        raise MagiError(f"{path}: no vocabulary; expected a list of 1 to {MOST_WORDS:,} words")
    for word in words:
        if not isinstance(word, str) or len(word) > MOST_LETTERS or split_words(word) != [word]:
            raise MagiError(f"{path}: {word!r:.60} is no word of a vocabulary")
    if words != sorted(set(words)):
        raise MagiError(f"{path}: no vocabulary; expected different words, sorted")
    if not isinstance(example, str) or len(example) > MAX_CHARACTERS or not example.isprintable():
        raise MagiError(f"{path}: example is no text")
    if not (known := split_words(example)) or not set(known) <= set(words):
        raise MagiError(f"{path}: the example {example!r:.60} is not of the words of the vocabulary")
    return Vocabulary(words, example)


def make_vocabulary(texts: Iterable[str]) -> Vocabulary:
    """The vocabulary of captions. The example is the first of them that can be printed as it is, else the words that
    one begins with.

    Raises:
        MagiError: there are no words, too many, or one that is too long.
    """
    texts = list(texts)
    words = sorted({word for text in texts for word in split_words(text)})
    if not 1 <= len(words) <= MOST_WORDS:
        raise MagiError(
            f"the captions have {counted(len(words), 'different word')}; the text encoder 'words' takes 1 to "
            f"{MOST_WORDS:,}: give another with --text-encoder"
        )
    if longest := max((word for word in words if len(word) > MOST_LETTERS), key=len, default=""):
        raise MagiError(f"a word of {len(longest)} letters in the captions; expected at most {MOST_LETTERS}")
    said = [text for text in texts if split_words(text)]
    shown = next((text for text in said if text.isprintable() and len(text) <= MAX_CHARACTERS), None)
    example = " ".join(split_words(said[0])[:EXAMPLE_WORDS]) if shown is None else shown
    return Vocabulary(words, example)


def write_vocabulary(texts: Iterable[str], folder: Path) -> None:
    """Write the vocabulary of captions, see `make_vocabulary`."""
    made = make_vocabulary(texts)
    ensure_folder(folder)
    write_json(folder / WORDS_FILE, {"words": made.words, "example": made.example})
