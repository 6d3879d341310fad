"""Text as vectors for the condition tokens: any encoder of the transformers library, in a folder or on the hub.

Only safetensors weights are read, and no code but the library's own runs. A model that was trained with text carries
its encoder's folder, so that it needs nothing else.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from magi_video.data.captions import MAX_CHARACTERS
from magi_video.data.files import files_sha256, link_or_copy
from magi_video.errors import MagiError
from magi_video.loading import download_files, header_sizes
from magi_video.textfiles import read_json

ENCODER_FOLDER = "text_encoder"
DEFAULT_SIZE = 384
"""Numbers in a vector of the presets' default encoder."""
FILES = ("*.json", "*.txt", "*.safetensors")
MAX_WORDS = 512
"""Tokens of a text that the encoder reads at most; what it is told beyond is lost."""
BATCH = 64


class Encoder(Protocol):
    """What a pipeline asks for the vectors of texts."""

    def encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        """As of `TextEncoder`."""
        ...


class TextEncoder:
    """A frozen text encoder on the CPU.

    Args:
        folder: config.json, the tokenizer's files and safetensors weights, as on the hub.

    Attributes:
        folder: as given.
        size: numbers in a vector.

    Raises:
        MagiError: the extra "text" is not installed, or the folder holds no such encoder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        config = read_json(self.folder / "config.json")
        if "auto_map" in config:
            raise MagiError(f"{self.folder}: an encoder with code of its own, which is not run; expected a known kind")
        try:
            import transformers
        except ImportError:
            raise MagiError("text needs the extra packages: pip install 'magi-video[text]'") from None
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        place: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(str(self.folder), **place)
            described = transformers.AutoConfig.from_pretrained(str(self.folder), **place)
            kind: Any = transformers.AutoModel
            if type(described) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:  # of T5 and its kin, the encoder alone
                kind = transformers.AutoModelForTextEncoding
            self._check_outline(kind, described)
            self.model, info = kind.from_pretrained(
                str(self.folder), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **place
            )
        except MagiError:
            raise
        except Exception as error:  # the library raises whatever a damaged file makes it stumble over
            raise MagiError(f"{self.folder}: no text encoder ({' '.join(str(error).split())[:200]})") from None
        if lost := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
            raise MagiError(f"{self.folder} lacks {len(lost)} weights of its text encoder, the first {lost[0]}")
        self.model.eval().requires_grad_(False)
        self.size = int(self.model.config.hidden_size)
        self._takes = set(inspect.signature(self.model.forward).parameters)

    def _check_outline(self, kind: Any, config: Any) -> None:
        """Refuse a config that describes more than the weights beside it, before any of it is allocated."""
        stored = sum(sum(header_sizes(file)) for file in sorted(self.folder.glob("*.safetensors")))
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            numbers = sum(parameter.numel() for parameter in kind.from_config(config).parameters())
        size = int(getattr(config, "hidden_size", 0))
        if numbers > stored + size * (size + 1):  # a pooler, which is not used, may be missing
            raise MagiError(f"{self.folder} does not hold the weights its config describes, but {stored} numbers")

    @torch.no_grad()
    def encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        """Texts as float32 `[number of texts, tokens, size]` on the CPU.

        With one token it is the mean over the words; with more, the words' own vectors (special tokens included) as far
        as they fit, and NaN after the last.

        Raises:
            MagiError: a text that is empty, or longer than 10,000 characters.
        """
        for text in texts:
            check_text(text)
        made = [self._encode(texts[first : first + BATCH], tokens) for first in range(0, len(texts), BATCH)]
        return torch.cat(made) if made else torch.zeros(0, tokens, self.size)

    def _encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        most = min(MAX_WORDS, self.tokenizer.model_max_length)
        words = self.tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        states = self.model(**{name: value for name, value in words.items() if name in self._takes}).last_hidden_state
        there = words["attention_mask"].bool()[..., None]
        if tokens == 1:
            return (states * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
        states = states.masked_fill(~there, torch.nan)[:, :tokens]
        rest = states.new_full((len(texts), tokens - states.shape[1], self.size), torch.nan)
        return torch.cat([states, rest], dim=1)

    def fingerprint(self) -> str:
        """SHA-256 of everything in the folder that the vectors depend on."""
        return files_sha256(self.folder, encoder_files(self.folder))


def check_text(text: Any) -> None:
    """`MagiError` unless it is a text that can be encoded."""
    if not isinstance(text, str) or not text.strip():
        raise MagiError(f"a text is {text!r:.40}; expected some words")
    if len(text) > MAX_CHARACTERS:
        raise MagiError(f"a text of {len(text)} characters; expected at most {MAX_CHARACTERS}")


def encoder_files(folder: Path) -> list[Path]:
    """The files of an encoder's folder itself, sorted."""
    return sorted(file for pattern in FILES for file in folder.glob(pattern) if file.is_file())


def fetch_encoder(name: str, out: Path) -> TextEncoder:
    """The encoder of that name as a copy in `out`; a finished copy found there is taken instead.

    Args:
        name: folder or hub id.
        out: the copy's folder, `ENCODER_FOLDER` of a run.
    """
    if not (out / "config.json").is_file():
        folder = Path(name)
        if not folder.is_dir():
            folder = download_files(name, list(FILES))
        TextEncoder(folder)  # refuses before anything is copied
        copy_encoder(folder, out)
    return TextEncoder(out)


def copy_encoder(folder: Path, out: Path) -> None:
    """Link or copy an encoder's files, config.json last."""
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(encoder_files(folder), key=lambda file: file.name == "config.json"):
        part = out / f".{file.name}.part"
        part.unlink(missing_ok=True)
        try:
            link_or_copy(file.resolve(), part)  # the hub's cache is made of links
            part.replace(out / file.name)
        except (OSError, shutil.Error) as error:
            raise MagiError(f"{out}: cannot copy the text encoder ({error})") from None
