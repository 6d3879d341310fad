"""Words that a model learns by itself: a text encoder for captions of few words, without any package or download.

Its vectors are one-hot over the different words of the training captions, so the model's own linear map of a word's
vector (`SequenceCondition`) is a table of word embeddings, trained and saved with the model. The folder of the encoder
holds the vocabulary alone (`files/words.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from magi_video.codecs.text import check_text
from magi_video.errors import MagiError, listed
from magi_video.files.words import WORDS_FILE, read_vocabulary, split_words

WORDS = "words"
"""Name of this encoder in a recipe."""
MOST_NAMED = 40
"""Words that a message names."""


class WordEncoder:
    """One-hot vectors of known words.

    Args:
        folder: that holds the vocabulary.

    Attributes:
        folder: as given.
        words: the vocabulary, sorted.
        size: numbers in a vector, one for each word of the vocabulary.
        example: see `Encoder`.

    Raises:
        MagiError: there is no vocabulary, or it is not as `files/words.py` describes it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if (found := read_vocabulary(self.folder)) is None:
            raise MagiError(f"{self.folder / WORDS_FILE}: no such file; expected a vocabulary")
        self.words, self.example = found.words, found.example
        self.size = len(self.words)
        self._number = {word: number for number, word in enumerate(self.words)}

    def encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        """Texts as float32 `[number of texts, tokens, size]`: their first words, NaN after the last; with one token the
        mean over all words.

        Raises:
            MagiError: no text, or one with words that are not in the vocabulary.
        """
        return self.number(texts, tokens)[torch.arange(len(texts))]

    def check(self, text: str) -> None:
        """See `Encoder`."""
        self._numbers(text)

    def number(self, texts: Sequence[str], tokens: int, dtype: torch.dtype = torch.float32) -> OneHot:
        """The vectors of `encode` in little memory, for all captions of a data set."""
        return OneHot([self._numbers(text) for text in texts], tokens, self.size, dtype)

    def _numbers(self, text: Any) -> list[int]:
        check_text(text)
        words = split_words(text)
        learned = f'this model learned {listed(self.words, MOST_NAMED)} (such as "{self.example:.100}")'
        if unknown := list(dict.fromkeys(word for word in words if word not in self._number)):
            raise MagiError(f"unknown words: {listed(unknown)}; {learned}")
        if not words:
            raise MagiError(f"a text without a word: {text!r:.60}; {learned}")
        return [self._number[word] for word in words]

    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()


class OneHot:
    """Vectors of texts, kept as the numbers of their words and made one-hot when they are looked up.

    Args:
        numbers: of each text's words, at least one.
        tokens: vectors of a text; one is the mean over its words.
        size: numbers in a vector.
        dtype: of the vectors.

    Attributes:
        shape: `[texts, tokens, size]`.
    """

    def __init__(self, numbers: Sequence[Sequence[int]], tokens: int, size: int, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.shape = torch.Size((len(numbers), tokens, size))
        most = None if tokens == 1 else tokens
        self._numbers = [np.array(of_text[:most], np.int16) for of_text in numbers]

    def __getitem__(self, text_B: Tensor) -> Tensor:
        """`[B, tokens, size]` of texts by their number, NaN after a text's last word."""
        _, tokens, size = self.shape
        vectors_BKA = torch.full((len(text_B), tokens, size), torch.nan, dtype=self._dtype)
        for vector_KA, text in zip(vectors_BKA, text_B.tolist(), strict=True):
            hot_LA = F.one_hot(torch.from_numpy(self._numbers[text]).long(), size).float()
            vector_KA[: len(hot_LA)] = hot_LA.mean(0) if tokens == 1 else hot_LA
        return vectors_BKA
