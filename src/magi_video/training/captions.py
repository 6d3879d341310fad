"""Captions as a model is trained on them: encoded once, kept in the run's folder, looked up clip by clip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from magi_video.codecs.text_encoder import BATCH, TextEncoder, fetch_encoder
from magi_video.codecs.words import OneHot, WordEncoder
from magi_video.data.captions import Captions, read_captions
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.files.atomic import replacing
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
        summary: how many videos have one, in words.
    """

    def __init__(
        self, texts: list[str], vectors_UKA: Tensor | OneHot, index_V: Tensor, folder: Path, summary: str
    ) -> None:
        self.texts, self.vectors_UKA, self.index_V, self.folder = texts, vectors_UKA, index_V, folder
        self.summary = summary

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

    def look_up(self, video_B: Tensor, frames: int) -> Tensor:
        """Of clips of these videos, float32 `[B, frames, tokens, size]`, NaN where there is no caption."""
        index_B = self.index_V[video_B.cpu()]
        found = self._vectors(index_B.clamp(min=0))
        found[index_B < 0] = torch.nan
        return found[:, None].expand(-1, frames, -1, -1)

    def _vectors(self, index_B: Tensor) -> Tensor:
        return self.vectors_UKA[index_B].float()


def number_texts(captions: Captions) -> tuple[list[str], Tensor]:
    """The U different captions, sorted, and of each video the number of its own, int64 `[V]`, −1 for none."""
    texts = sorted({text for text in captions.texts if text is not None})
    number = {text: index for index, text in enumerate(texts)}
    return texts, torch.tensor([-1 if text is None else number[text] for text in captions.texts])


def prepare_captions(videos: VideoFolder, encoder_name: str, tokens: int, out: Path) -> CaptionTable:
    """Encode a data set's captions, or take up what an earlier call with the same captions and encoder left in `out`.

    Args:
        videos: the data set, or what a latent cache knows of it.
        encoder_name: see `fetch_encoder`; it is kept in `out`.
        tokens: vectors of a caption, see `TextEncoder.encode`.
        out: the run's folder.

    Raises:
        MagiError: no video has a caption, or the encoder cannot be had.
    """
    captions = Captions(videos.captions, []) if isinstance(videos, CachedVideos) else read_captions(videos)
    texts, index_V = number_texts(captions)
    if not texts:
        where = "a .txt beside it, or a metadata.jsonl or metadata.csv with file_name and text"
        if isinstance(videos, CachedVideos):
            where = "run magi encode again, which takes up what captions there are, or give --data too"
        raise MagiError(
            f"{videos.root}: the preset wants text, but no video has a caption: {where} ({captions.summary()})"
        )
    encoder = fetch_encoder(encoder_name, out / ENCODER_FOLDER, texts)
    return CaptionTable(texts, _encode(encoder, texts, tokens, out), index_V, encoder.folder, captions.summary())


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
