"""What the registry reads from the text of files is what their classes have."""

import importlib
from pathlib import Path

import pytest

from magi_video import registry
from magi_video.codecs.base import CODECS
from magi_video.data.folder import DATA_SETS
from magi_video.exposure import CURES
from magi_video.paradigms import PARADIGMS
from magi_video.registry import CLASS, MODULE, Registry, declared

REGISTRIES = [PARADIGMS, CODECS, DATA_SETS, CURES]


@pytest.mark.parametrize("names", REGISTRIES, ids=lambda one: one.folder)
def test_values_read_from_the_text_are_those_of_the_classes(names: Registry[object]) -> None:
    for name, values in registry._declared(names.folder).items():
        cls = names[name]
        assert (values[CLASS], values[MODULE]) == (cls.__name__, cls.__module__)
        assert {key: getattr(cls, key) for key in values if key not in (CLASS, MODULE)} == {
            key: value for key, value in values.items() if key not in (CLASS, MODULE)
        }
        assert values == {key: declared(names.folder)[name][key] for key in values}, "registered at run time"
        lost = {key for key in ("options", "limits", "choices", "needs") if key in vars(cls)} - set(values)
        assert not lost, f"{name}: not plain enough to be read"


BASE = """
from magi_video.registry import Registry
things = Registry("FOLDER", "thing")
register = things.register
"""
SECOND = """
from FOLDER.base import register
from FOLDER.zebra import First

@register
class Second(First):
    name = "second"
    sizes: dict = First.sizes | {"b": 2}
    computed = max(3, 4)
    def method(self): ...
"""
FIRST = """
from FOLDER.base import register

class Plain:
    unread = 1

@register
class First(Plain):
    name = "first"
    kept = 1.5
    sizes = {"a": 1}
    computed = 7
    method = "a text"
"""


def test_a_class_has_the_plain_values_of_its_registered_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "inherited_values"
    package.mkdir()
    for file, text in {"__init__": "", "base": BASE, "a": SECOND, "zebra": FIRST}.items():
        (package / f"{file}.py").write_text(text.replace("FOLDER", package.name))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "PACKAGE", tmp_path)
    expected = {"name": "second", "kept": 1.5, "sizes": {"a": 1, "b": 2}, CLASS: "Second"}
    read = registry._declared(package.name)["second"]
    assert read == expected | {MODULE: f"magi_video.{package.name}.a"}, "neither `unread` nor what is no plain value"
    importlib.import_module(f"{package.name}.a")
    module = f"{package.name}.a"
    assert declared(package.name)["second"] == expected | {"computed": 4, MODULE: module}
