"""What a text encoder is to a model: `text_encoder.py` has those of the transformers library, `words.py` our own."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from magi_video.errors import MagiError
from magi_video.files.json import MAX_CHARACTERS


class Encoder(Protocol):
    """What a pipeline asks for the vectors of texts."""

    @property
    def example(self) -> str:
        """A text that it can encode, to try it with."""
        ...

    def encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        """Texts as vectors `[number of texts, tokens, size]`, NaN where a text has none; see `TextEncoder.encode`."""
        ...

    def check(self, text: str) -> None:
        """Raise the `MagiError` with which `encode` would refuse a text, without the work of encoding it."""
        ...


def check_text(text: Any) -> None:
    """`MagiError` unless it is a text that can be encoded."""
    if not isinstance(text, str) or not text.strip():
        raise MagiError(f"a text is {text!r:.40}; expected some words")
    if len(text) > MAX_CHARACTERS:
        raise MagiError(f"a text of {len(text)} characters; expected at most {MAX_CHARACTERS}")
