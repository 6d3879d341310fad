"""Folders of results: none is left empty by what fails."""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from magi_video.errors import MagiError
from magi_video.files.folders import LOCK_FILE, ensure_folder, make_folder, no_empty_folders
from magi_video.files.lock import alone, only_writer


@pytest.mark.parametrize("enter", [make_folder, alone, only_writer])
@pytest.mark.parametrize("error", [MagiError("no"), KeyboardInterrupt(), OSError(28, "full")])
def test_what_fails_leaves_no_empty_folder(tmp_path: Path, enter: Any, error: BaseException) -> None:
    (tmp_path / "there").mkdir()
    out = tmp_path / "new" / "out"
    with pytest.raises(type(error)), no_empty_folders():
        for folder in (out, tmp_path / "there"):
            with contextlib.nullcontext() if enter is make_folder else enter(folder):
                make_folder(folder)
        raise error
    assert os.listdir(tmp_path) == ["there"], "an empty folder that was there stays"


def test_what_was_written_stays(tmp_path: Path) -> None:
    with pytest.raises(MagiError), no_empty_folders():
        ensure_folder(tmp_path / "out" / "empty")
        (tmp_path / "out" / "file").write_text("a")
        raise MagiError("no")
    assert os.listdir(tmp_path / "out") == ["file"]
    with no_empty_folders():
        ensure_folder(tmp_path / "done")
    assert (tmp_path / "done").is_dir()


def test_the_folder_of_a_run_at_work_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(MagiError), no_empty_folders():
        with alone(out):
            pass
        child = os.fork()
        if child == 0:
            with alone(out):
                os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
        os.waitpid(child, os.WUNTRACED)  # it holds the lock
        raise MagiError("no")
    assert os.listdir(out) == [LOCK_FILE]
    os.kill(child, signal.SIGCONT)
    assert os.waitpid(child, 0)[1] == 0
