"""Adds a file to the package for the time of a test, as the recipes of CONTRIBUTING.md say."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from magi_video.registry import Registry


@contextmanager
def added(file: Path, text: str, registry: Registry, name: str) -> Iterator[None]:
    """Writes the file and imports it, so that its class registers itself; both are taken back at the end."""
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
        yield
    finally:
        del sys.modules[file.stem]
        registry.forget(name)
