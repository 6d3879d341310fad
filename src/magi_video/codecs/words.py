"""Words that a model learns by itself: a text encoder for captions of few words, without any package or download.

Its vectors are one-hot over the different words of the training captions, so the model's own linear map of a word's
vector (`SequenceCondition`) is a table of word embeddings, trained and saved with the model. The folder of the encoder
holds the vocabulary alone, `words.json`: {"words": ["a", "blue", …]}.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from magi_video.codecs.text import check_text
from magi_video.errors import MagiError, listed
from magi_video.files.atomic import write_json
from magi_video.files.folders import ensure_folder
from magi_video.files.json import read_json

WORDS = "words"
"""Name of this encoder in a recipe."""
WORDS_FILE = "words.json"
MOST_WORDS = 1024
"""Different words: each is a number of every word's vector."""
MOST_LETTERS = 100
"""Of a word."""
MOST_NAMED = 40
"""Words that a message names."""


def split_words(text: str) -> list[str]:
    """A text's words in their order, without case and punctuation: letters and digits of any script."""
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())


class WordEncoder:
    """One-hot vectors of known words.

    Args:
        folder: that holds the vocabulary.

    Attributes:
        folder: as given.
        words: the vocabulary, sorted.
        size: numbers in a vector, one for each word of the vocabulary.

    Raises:
        MagiError: the file is missing or no vocabulary: 1 to `MOST_WORDS` different words, sorted, as `split_words`
            gives them.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.words = read_words(self.folder / WORDS_FILE)
        self.size = len(self.words)
        self._number = {word: number for number, word in enumerate(self.words)}

    @property
    def example(self) -> str:
        """A text that it can encode."""
        return self.words[0]

    def encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        """Texts as float32 `[number of texts, tokens, size]`: their first words, NaN after the last; with one token the
        mean over all words.

        Raises:
            MagiError: no text, or one with words that are not in the vocabulary.
        """
        numbers = [self._numbers(text) for text in texts]
        vectors = torch.full((len(texts), tokens, self.size), torch.nan)
        for vector_LA, of_text in zip(vectors, numbers, strict=True):
            hot_LA = F.one_hot(torch.tensor(of_text), self.size).float()
            if tokens == 1:
                vector_LA[0] = hot_LA.mean(0)
            else:
                vector_LA[: len(of_text)] = hot_LA[:tokens]
        return vectors

    def _numbers(self, text: Any) -> list[int]:
        check_text(text)
        words = split_words(text)
        if unknown := list(dict.fromkeys(word for word in words if word not in self._number)):
            raise MagiError(
                f"words that this model did not learn: {listed(unknown)}; it learned {listed(self.words, MOST_NAMED)}"
            )
        if not words:
            raise MagiError(f"a text without a word: {text!r:.60}; this model learned {listed(self.words, MOST_NAMED)}")
        return [self._number[word] for word in words]

    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()


def read_words(path: Path) -> list[str]:
    """A vocabulary, checked; see `WordEncoder`."""
    words = read_json(path).get("words")
    if not isinstance(words, list) or not 1 <= len(words) <= MOST_WORDS:
        raise MagiError(f"{path}: no vocabulary; expected a list of 1 to {MOST_WORDS} words")
    for word in words:
        if not isinstance(word, str) or len(word) > MOST_LETTERS or split_words(word) != [word]:
            raise MagiError(f"{path}: {word!r:.60} is no word of a vocabulary")
    if words != sorted(set(words)):
        raise MagiError(f"{path}: no vocabulary; expected different words, sorted")
    return words


def learn_words(texts: Iterable[str], folder: Path) -> None:
    """Write the vocabulary of captions into a folder.

    Raises:
        MagiError: there are no words, too many, or one that is too long.
    """
    words = sorted({word for text in texts for word in split_words(text)})
    if not 1 <= len(words) <= MOST_WORDS:
        raise MagiError(
            f"the captions have {len(words):,} different words; the text encoder {WORDS!r} takes 1 to {MOST_WORDS:,}: "
            "give another with --text-encoder"
        )
    if longest := max((word for word in words if len(word) > MOST_LETTERS), key=len, default=""):
        raise MagiError(f"a word of {len(longest)} letters in the captions; expected at most {MOST_LETTERS}")
    ensure_folder(folder)
    write_json(folder / WORDS_FILE, {"words": words})
