"""Captions as a model is trained on them: checked before anything is made of the videos, encoded once, kept in the
run's folder, looked up clip by clip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from magi_video.codecs.text_encoder import BATCH, TextEncoder, fetch_encoder
from magi_video.codecs.words import WORDS, OneHot, WordEncoder
from magi_video.data.captions import Captions, check_each, read_captions
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError, counted
from magi_video.files.atomic import replacing
from magi_video.files.words import WORDS_FILE, holds_words, make_vocabulary, split_words
from magi_video.latents.table import CachedVideos
from magi_video.pipeline.description import ENCODER_FOLDER

FILE = "captions.safetensors"


class CaptionTable:
    """The vectors of a data set's captions, each different one once.

    Args:
        texts: U captions.
        vectors_UKA: of each, `tokens` vectors, NaN where there is none.
        index_V: which of them a video has, −1 for none.
        folder: of the encoder.
    """

    def __init__(self, texts: list[str], vectors_UKA: Tensor | OneHot, index_V: Tensor, folder: Path) -> None:
        self.texts, self.vectors_UKA, self.index_V, self.folder = texts, vectors_UKA, index_V, folder

    @property
    def example(self) -> str:
        """The first caption."""
        return self.texts[0]

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        return self.vectors_UKA.shape[2]

    def text(self, video: int) -> str | None:
        """The caption of a video, if it has one."""
        index = int(self.index_V[video])
        return None if index < 0 else self.texts[index]

    def encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        """Captions of the data set as their encoder gives them, but for the rounding to float16."""
        return self._vectors(torch.tensor([self.texts.index(text) for text in texts]))[:, :tokens]

    def check(self, text: str) -> None:
        """Raise a `MagiError` of a text that is no caption of the data set; see `Encoder`."""
        if text not in self.texts:
            raise MagiError(f"{text!r:.60} is no caption of the data set")

    def look_up(self, video_B: Tensor, frames: int) -> Tensor:
        """Of clips of these videos, float32 `[B, frames, tokens, size]`, NaN where there is no caption."""
        index_B = self.index_V[video_B.cpu()]
        found = self._vectors(index_B.clamp(min=0))
        found[index_B < 0] = torch.nan
        return found[:, None].expand(-1, frames, -1, -1)

    def _vectors(self, index_B: Tensor) -> Tensor:
        return self.vectors_UKA[index_B].float()


@dataclass(frozen=True)
class Texts:
    """The U different captions of a data set, sorted.

    Attributes:
        texts: the captions.
        index_V: of each video the number of its own, int64, −1 for none.
        places: of each caption the first file that has it, for messages.
        root: of the data set.
        summary: how many videos have one, in words.
    """

    texts: list[str]
    index_V: Tensor
    places: list[str]
    root: Path
    summary: str

    def check(self, read: Callable[[str], object]) -> None:
        """Read every caption.

        Raises:
            MagiError: `read` refuses one; the message names its file.
        """
        check_each(self.texts, self.places, read)

    def longer_than(self, tokens: int) -> str | None:
        """A line about videos with captions of more than so many words; None where there are none."""
        longer = torch.tensor([len(split_words(text)) > tokens for text in self.texts])
        if not (count := int(longer[self.index_V[self.index_V >= 0]].sum())):
            return None
        captions = "1 caption is" if count == 1 else f"{count:,} captions are"
        return f"{captions} longer than {counted(tokens, 'word')}; the rest is not read"


def find_texts(videos: VideoFolder) -> Texts:
    """The captions of a data set, or those that a latent cache knows of it; there may be none.

    Raises:
        MagiError: a file with captions is unusable, see `read_captions`.
    """
    if isinstance(videos, CachedVideos):
        captions = Captions(videos.captions, [], [str(video.path) for video in videos.videos])
    else:
        captions = read_captions(videos)
    places: dict[str, str] = {}
    for text, place in zip(captions.texts, captions.places, strict=True):
        if text is not None:
            places.setdefault(text, place)
    texts = sorted(places)
    number = {text: index for index, text in enumerate(texts)}
    index_V = torch.tensor([-1 if text is None else number[text] for text in captions.texts], dtype=torch.int64)
    return Texts(texts, index_V, [places[text] for text in texts], videos.root, captions.summary())


def check_captions(videos: VideoFolder, encoder_name: str, out: Path, begun: bool) -> Texts:
    """The captions of a data set, as far as they can be checked without the encoder's package or download.

    Args:
        videos: the data set, or what a latent cache knows of it.
        encoder_name: see `fetch_encoder`.
        out: the run's folder.
        begun: whether the run has trained its model for some steps.

    Raises:
        MagiError: no video has a caption, or one is unusable; of a model that learns words, one is without a word or
            has words that the run does not know, there are too many words, or the run's vocabulary is lost.
    """
    found = find_texts(videos)
    if not found.texts:
        where = "a .txt beside it, or a metadata.jsonl or metadata.csv with file_name and text"
        if isinstance(videos, CachedVideos):
            where = "run magi encode again, which takes up what captions there are, or give --data too"
        raise MagiError(f"{videos.root}: the preset wants text, but no video has a caption: {where} ({found.summary})")
    if encoder_name == WORDS:
        _check_words(found, out, begun)
    return found


def _check_words(found: Texts, out: Path, begun: bool) -> None:
    folder = out / ENCODER_FOLDER
    if holds_words(folder):
        encoder = WordEncoder(folder)
        try:
            found.check(encoder.check)
        except MagiError as error:
            raise MagiError(f"{error}; the run in {out} keeps its words: use another --out for others") from None
        return
    if begun:
        raise MagiError(
            f"{folder / WORDS_FILE}: no such file; expected the vocabulary that the run's checkpoints were trained "
            "with: put it back, or use another --out"
        )
    found.check(_read_words)
    try:
        make_vocabulary(found.texts)
    except MagiError as error:
        raise MagiError(f"{found.root}: {error}") from None


def _read_words(text: str) -> None:
    if not split_words(text):
        raise MagiError(f"a caption without a word: {text!r:.60}")
    make_vocabulary([text])


def encode_captions(found: Texts, encoder_name: str, tokens: int, out: Path) -> CaptionTable:
    """Encode a data set's captions, or take up what an earlier call with the same captions and encoder left in `out`.

    Args:
        found: the captions, as `check_captions` gives them.
        encoder_name: see `fetch_encoder`; it is kept in `out`.
        tokens: vectors of a caption, see `TextEncoder.encode`.
        out: the run's folder.

    Raises:
        MagiError: the encoder cannot be had.
    """
    encoder = fetch_encoder(encoder_name, out / ENCODER_FOLDER, found.texts)
    return CaptionTable(found.texts, _encode(encoder, found.texts, tokens, out), found.index_V, encoder.folder)


def _encode(encoder: WordEncoder | TextEncoder, texts: list[str], tokens: int, out: Path) -> Tensor | OneHot:
    """The captions' vectors; those that a network makes are kept in `out`, and read from there if they are the same."""
    if isinstance(encoder, WordEncoder):
        return encoder.number(texts, tokens, torch.float16)
    path, shape = out / FILE, (len(texts), tokens, encoder.size)
    key = hashlib.sha256(json.dumps([encoder.fingerprint(), tokens, texts]).encode()).hexdigest()
    if (vectors := _saved(path, key, shape)) is None:
        vectors = torch.empty(shape, dtype=torch.float16)
        for first in range(0, len(texts), BATCH):
            vectors[first : first + BATCH] = encoder.encode(texts[first : first + BATCH], tokens)
        with replacing(path) as part:
            save_file({"vectors": vectors}, part, {"key": key})
    return vectors


def _saved(path: Path, key: str, shape: tuple[int, ...]) -> Tensor | None:
    try:
        with safe_open(path, framework="pt") as file:
            vectors = file.get_tensor("vectors") if (file.metadata() or {}).get("key") == key else None
    except (OSError, ValueError, SafetensorError):
        return None
    return vectors if vectors is not None and (vectors.dtype, vectors.shape) == (torch.float16, shape) else None
