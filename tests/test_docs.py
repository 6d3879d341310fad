"""The pages that docs/hooks.py makes of the code: complete, and true to it."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from magi_video.cli import VERBS

pytest.importorskip("mkdocs", reason='the site needs pip install -e ".[docs]"')
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference(hooks: ModuleType) -> None:
    told = {name for _, of in hooks.REFERENCE.values() for one in of for name in hooks.expand(one)}
    short = {name.rsplit(".", 1)[1] for name in told}
    for package in (ROOT / "src/magi_video").glob("**/__init__.py"):
        for one in ast.parse(package.read_text(encoding="utf-8")).body:
            if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "__all__":
                missing = set(ast.literal_eval(one.value)) - short - set(hooks.LABELS)
                assert not missing, f"{package.parent.name}: {missing}"


def test_every_command_is_told_with_its_options(hooks: ModuleType) -> None:
    page = hooks.commands_page()
    assert all(f"## magi {verb}\n" in page for verb in VERBS)
    generate = page.split("## magi generate\n")[1].split("\n## ")[0]
    assert all(option in generate for option in ("MODEL", "--first-frame", "--speed", "--guidance-scale"))
    assert "\x1b" not in page  # no colours of a terminal


def test_links_out_of_the_docs_lead_to_copies(hooks: ModuleType) -> None:
    assert hooks.outside("tutorials/folder.md", "../../src/magi_video/presets.py") == "src/magi_video/presets.py"
    assert hooks.outside("index.md", "idea.md") is None
    assert hooks.outside("index.md", "../../elsewhere") is None
    assert "```python" in hooks.file_page("src/magi_video/presets.py")
    assert hooks.source_page("src/magi_video/weights/doom/README.md") == "source/src/magi_video/weights/doom/README.md"
    assert "`cache.py`" in hooks.file_page("src/magi_video/models")
