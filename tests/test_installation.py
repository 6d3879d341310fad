"""How optional packages are installed, in the words of messages: what is said works where it is said."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from magi_video import installation
from magi_video.installation import hide_address, install_command

WHEEL = {"url": "file:///home/alice/magi_video-0.1.0-py3-none-any.whl", "archive_info": {}}
COPY = {"url": "file:///home/alice/magi.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
PLAIN = 'pip install "magi-video[games]"'


def installed_from(record: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """The command of an installation whose `direct_url.json` (PEP 610) holds this; None: without one."""
    text = record if isinstance(record, str | None) else json.dumps(record)
    monkeypatch.setattr(installation, "distribution", lambda name: SimpleNamespace(read_text=lambda file: text))
    return install_command("games")


def test_a_clone_is_installed_as_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "a clone"
    clone.mkdir()
    linked = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.chdir(clone)
    assert installed_from(linked, monkeypatch) == 'pip install -e ".[games]"'
    (clone / "constraints.txt").touch()
    assert installed_from(linked, monkeypatch) == 'pip install -c constraints.txt -e ".[games]"'
    assert "`" + install_command("export") + "`" in Path(__file__).parents[1].joinpath("README.md").read_text("utf-8")
    assert installed_from(linked | {"dir_info": {}}, monkeypatch) == 'pip install -c constraints.txt ".[games]"'
    assert install_command("procgen", bare="gym3").endswith('".[procgen]" && pip install --no-deps gym3')
    monkeypatch.chdir(tmp_path)
    assert "(in the folder" in install_command("games"), "and the folder's place is not told: a page may show this"
    assert str(tmp_path) not in install_command("games")


def test_what_came_from_an_address_is_installed_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = {"url": "https://example.org/magi.whl", "archive_info": {}}
    assert installed_from(wheel, monkeypatch) == 'pip install "magi-video[games] @ https://example.org/magi.whl"'
    git = {"url": "https://example.org/it.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}}
    address = "git+https://example.org/it.git@c0ffee"
    assert installed_from(git, monkeypatch) == f'pip install "magi-video[games] @ {address}"'
    assert hide_address(f"no games: {install_command('games')}!") == f"no games: {PLAIN}!"
    monkeypatch.chdir(Path(__file__).parents[1])
    clone = {"url": Path.cwd().as_uri(), "dir_info": {"editable": True}}
    assert hide_address(installed_from(clone, monkeypatch)) == installed_from(clone, monkeypatch)


@pytest.mark.parametrize("record", [None, "", "{", "[]", "{}", {"vcs_info": {}}, {"dir_info": []}, WHEEL, COPY])
def test_what_came_from_an_index_or_this_machine_is_installed_by_its_name(
    record: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed_from(record, monkeypatch) == PLAIN


def test_a_clone_that_is_run_uninstalled_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installation, "distribution", missing)
    monkeypatch.chdir(Path(__file__).parents[1])
    assert install_command("games") == 'pip install -c constraints.txt -e ".[games]"'
    monkeypatch.setattr(installation, "__file__", "/nowhere/src/magi_video/installation.py")
    assert install_command("games") == PLAIN
