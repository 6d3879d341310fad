"""Text as vectors for the condition tokens: any encoder of the transformers library, in a folder or on the hub.

A model that was trained with text carries its encoder's folder, so that it needs nothing else. That folder is others'
work: the library never sees it. It gets a config without the settings by which one may choose code, files or kernels, a
folder with the tokenizer's files alone, and tensors of safetensors files that were looked at before.
"""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from magi_video.codecs.text import check_text
from magi_video.codecs.words import WORDS, WordEncoder
from magi_video.errors import MagiError
from magi_video.files.atomic import files_sha256, link_or_copy
from magi_video.files.folders import ensure_folder
from magi_video.files.json import read_json, read_text
from magi_video.files.limits import MAX_JSON_BYTES, MAX_TOKENIZER_BYTES
from magi_video.files.weights import (
    check_finite,
    check_numbers,
    download_files,
    not_described,
    outline,
    stored_sizes,
    weight_files,
)
from magi_video.files.words import WORDS_FILE, holds_words, read_vocabulary, write_vocabulary
from magi_video.installation import install_command

FILES = ("*.json", "*.txt", "*.safetensors")
WEIGHTS = "model"
MAX_WORDS = 512
"""Tokens of a text that the encoder reads at most; what follows is lost."""
BATCH = 64
POOLER_TENSORS = 2
SPARE_TENSORS = 8
"""Tied weights are counted twice."""
KINDS = ("MODEL_FOR_TEXT_ENCODING_MAPPING", "MODEL_FOR_MASKED_LM_MAPPING", "MODEL_FOR_CAUSAL_LM_MAPPING")
"""Tables of transformers: the models that read text."""
OURS = (
    "attn_implementation", "experts_implementation", "transformers_weights", "use_kernels", "kernel_config",
    "use_pretrained_backbone", "use_timm_backbone",
)  # fmt: skip
"""Settings of a config that choose code or files: they are dropped, as are all that begin with an underscore."""


class TextEncoder:
    """A frozen text encoder on the CPU.

    Args:
        folder: config.json, the tokenizer's files and safetensors weights, as on the hub.

    Attributes:
        folder: as given.
        size: numbers in a vector.
        example: see `Encoder`.

    Raises:
        MagiError: the extra "text" is not installed, or the folder holds no such encoder.
    """

    example = "a picture"

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        config, files = check_encoder(self.folder)
        try:
            import transformers
        except ImportError:
            raise MagiError(f"text needs the extra packages: {install_command('text')}") from None
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        sizes = stored_sizes(files)
        with _stumbling(f"{self.folder}: no text encoder"), tempfile.TemporaryDirectory() as place:
            _lay_out(self.folder, config, Path(place))
            safely: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(place, **safely)
            if not isinstance(self.tokenizer, transformers.PreTrainedTokenizerBase):
                raise MagiError(f"{self.folder}: no text encoder (no tokenizer, but {type(self.tokenizer).__name__})")
            described = transformers.AutoConfig.from_pretrained(place, **safely)
            if not any(type(described) in getattr(transformers, kinds) for kinds in KINDS):
                raise MagiError(f"{self.folder}: no text encoder, but a {str(described.model_type)[:60]}")
            kind: Any = transformers.AutoModel
            if type(described) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING:  # of T5 and its kin, the encoder alone
                kind = transformers.AutoModelForTextEncoding
            self.size = _vector_size(described, self.folder)
            made = outline(
                lambda: kind.from_config(described, attn_implementation="eager"),
                sizes,
                torch.float32,
                self.folder,
                not_described(self.folder, sizes),
                (POOLER_TENSORS + SPARE_TENSORS, self.size * (self.size + 1)),
            )
            tensors = {name: one for file in files for name, one in load_file(file).items()}
            self.model, info = type(made).from_pretrained(
                None,
                config=described,
                state_dict=tensors,
                dtype=torch.float32,
                attn_implementation="eager",
                output_loading_info=True,
            )
        if lost := sorted(name for name in info["missing_keys"] if not name.startswith("pooler.")):
            raise MagiError(f"{self.folder} lacks {len(lost)} weights of its text encoder, the first {lost[0]}")
        check_finite(self.model, str(self.folder))
        self.model.eval().requires_grad_(False)
        self._takes = set(inspect.signature(self.model.forward).parameters)
        positions = getattr(described, "max_position_embeddings", None)
        known = [most for most in (positions, self.tokenizer.model_max_length) if isinstance(most, int) and most > 0]
        self._most_words = min(MAX_WORDS, *known) if known else MAX_WORDS

    def check(self, text: str) -> None:
        """See `Encoder`."""
        check_text(text)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        """Texts as float32 `[number of texts, tokens, size]` on the CPU.

        With one token it is the mean over the words; with more, the words' own vectors (special tokens included) as far
        as they fit, and NaN after the last.

        Raises:
            MagiError: a text that is empty, or longer than 10,000 characters; or the encoder's files do not fit each
                other: it stumbles, or its vectors are not finite.
        """
        for text in texts:
            self.check(text)
        made = [self._encode(texts[first : first + BATCH], tokens) for first in range(0, len(texts), BATCH)]
        return torch.cat(made) if made else torch.zeros(0, tokens, self.size)

    def _encode(self, texts: Sequence[str], tokens: int) -> Tensor:
        with _stumbling(f"{self.folder}: this text encoder cannot be used"):
            words = self.tokenizer(
                list(texts), padding=True, truncation=True, max_length=self._most_words, return_tensors="pt"
            )
            taken = {name: value for name, value in words.items() if name in self._takes}
            states = self.model(**taken).last_hidden_state
            there = words["attention_mask"].bool()[..., None]
        if states.shape != (*there.shape[:2], self.size) or len(states) != len(texts):
            raise MagiError(
                f"{self.folder}: a text encoder that gives {list(states.shape)}; expected {self.size} numbers"
            )
        if not states.masked_fill(~there, 0).isfinite().all():
            raise MagiError(f"{self.folder}: a text encoder whose vectors are not finite")
        if tokens == 1:
            return (states * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
        states = states.masked_fill(~there, torch.nan)[:, :tokens]
        rest = states.new_full((len(texts), tokens - states.shape[1], self.size), torch.nan)
        return torch.cat([states, rest], dim=1)

    def fingerprint(self) -> str:
        """SHA-256 of everything in the folder that the vectors depend on."""
        return files_sha256(self.folder, encoder_files(self.folder))


def check_encoder(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """An encoder's config, and the files of its weights, checked as far as that can be done without the library.

    Raises:
        MagiError: a file is missing, damaged, too large or not safetensors; an index names something else than
            safetensors files in this folder; the config asks for code of its own, or has numbers that are no sizes.
    """
    config = read_json(folder / "config.json")
    check_numbers(config, folder)
    for file in encoder_files(folder):
        if file.suffix == ".safetensors":
            continue
        if file.stat().st_size > MAX_TOKENIZER_BYTES:
            raise MagiError(f"{file}: larger than {MAX_TOKENIZER_BYTES} bytes")
        if file.name in ("config.json", "tokenizer_config.json") and _names_code(file):
            raise MagiError(f"{folder}: an encoder with code of its own, which is not run; expected a known kind")
    files = weight_files(folder, WEIGHTS)
    stored_sizes(files)
    return config, files


def _names_code(file: Path) -> bool:
    try:
        content = json.loads(read_text(file, MAX_JSON_BYTES))  # tokenizers have numbers that `read_json` refuses
    except (ValueError, RecursionError) as error:
        raise MagiError(f"{file}: not a readable JSON file ({error})") from None
    return isinstance(content, dict) and "auto_map" in content


def _lay_out(folder: Path, config: dict[str, Any], place: Path) -> None:
    """Write into `place` what the library may see: the config without what is ours to choose, and the tokenizer."""
    (place / "config.json").write_text(json.dumps(_without_ours(config)), encoding="utf-8")
    for file in encoder_files(folder):
        if file.name not in ("config.json", "adapter_config.json") and file.suffix != ".safetensors":
            shutil.copyfile(file, place / file.name)


def _without_ours(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_ours(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: _without_ours(one) for name, one in value.items() if name not in OURS and not name.startswith("_")}


def _vector_size(config: Any, folder: Path) -> int:
    size = getattr(config, "hidden_size", None)
    if type(size) is not int or size < 1:
        raise MagiError(f"{folder}: no text encoder (hidden_size is {str(size)[:40]})")
    return size


@contextmanager
def _stumbling(what: str) -> Iterator[None]:
    """Whatever the libraries stumble over in others' files as one line; a panic of Rust is no `Exception`."""
    try:
        yield
    except (MagiError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise MagiError(f"{what} ({' '.join(str(error).split())[:200] or type(error).__name__})") from None


def encoder_files(folder: Path) -> list[Path]:
    """The files of a library's encoder in the folder itself, sorted."""
    return sorted(
        file for pattern in FILES for file in folder.glob(pattern) if file.is_file() and file.name != WORDS_FILE
    )


def load_encoder(folder: Path) -> WordEncoder | TextEncoder:
    """The encoder in a folder, of whichever kind it is (`holds_words`)."""
    return WordEncoder(folder) if holds_words(folder) else TextEncoder(folder)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds no text encoder, as far as that can be said without the library that would run it.

    Raises:
        MagiError: as `check_encoder`, or `words.json` is no vocabulary.
    """
    if read_vocabulary(folder) is None:
        check_encoder(folder)


def fetch_encoder(name: str, out: Path, texts: Iterable[str]) -> WordEncoder | TextEncoder:
    """The encoder of that name in `out`, a copy or made there; a finished one of the same kind found there is taken
    instead.

    Args:
        name: folder or hub id; `WORDS` for the words of the captions, which the model itself learns.
        out: the encoder's folder, `ENCODER_FOLDER` of a run.
        texts: the captions.
    """
    if name == WORDS:
        if not holds_words(out):
            write_vocabulary(texts, out)
        _keep_only({WORDS_FILE}, out)
    elif holds_words(out) or not (out / "config.json").is_file():
        folder = Path(name)
        if not folder.is_dir():
            folder = download_files(name, list(FILES))
        if holds_words(folder):
            raise MagiError(f"{folder}: the words that another model learned; to learn those here give {WORDS!r}")
        TextEncoder(folder)  # refuses before anything is copied
        copy_encoder(folder, out)
    return load_encoder(out)


def copy_encoder(folder: Path, out: Path) -> None:
    """Link or copy an encoder's files, config.json last; refused as by `check_folder`. Files of another encoder that
    was in `out` before are removed."""
    check_folder(folder)
    ensure_folder(out)
    files = [folder / WORDS_FILE] if holds_words(folder) else encoder_files(folder)
    names = {file.name for file in files}
    try:
        for file in sorted(files, key=lambda file: file.name == "config.json"):
            if file.name == "config.json":
                _keep_only(names, out)  # first: `words.json` would decide what the folder holds
            part = out / f".{file.name}.part"
            part.unlink(missing_ok=True)
            link_or_copy(file.resolve(), part)  # the hub's cache is made of links
            part.replace(out / file.name)
        _keep_only(names, out)
    except (OSError, shutil.Error) as error:
        raise MagiError(f"{out}: cannot copy the text encoder ({error})") from None


def _keep_only(names: set[str], folder: Path) -> None:
    """Remove all files of an encoder's folder, of either kind, that have other names."""
    for file in (*encoder_files(folder), folder / WORDS_FILE):
        if file.name not in names:
            file.unlink(missing_ok=True)
