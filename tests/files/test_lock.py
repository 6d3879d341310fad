"""One run at a time works in a folder."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.files.artifact import Artifact
from magi_video.files.atomic import HOST
from magi_video.files.lock import only_writer

DEAD = 2**30
"""No process has such a number."""
RECIPE = {"recipe": {"codec": "pixels", "sizes": (1, 2)}, "seed": 0}


def claim(folder: Path, now: dict[str, Any] = RECIPE, **options: Any) -> Any:
    return Artifact(folder / "recipe.json", "latents").making(now, Processes(), **options)


@contextmanager
def other_process(enter: Callable[[], Any]) -> Iterator[str]:
    """What a fork tells that enters a context and stays in it: "entered", or why it may not."""
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        told = b"entered"
        try:
            context = enter()
            context.__enter__()
        except MagiError as error:
            told = str(error).encode()
        os.write(here, told)
        signal.pause()
    try:
        yield os.read(there, 10_000).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(there)
        os.close(here)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with claim(tmp_path), other_process(lambda: claim(tmp_path)) as told:
        assert told == f"{tmp_path}: another run is at work there; wait for its end, or use another --out"
    with other_process(lambda: claim(tmp_path)) as told:
        assert told == "entered", "the run before has ended"
        with pytest.raises(MagiError, match="another run is at work there"), claim(tmp_path):
            pass
        with claim(tmp_path / "other"):
            pass


def test_death_frees_the_folder_even_if_children_live_on(tmp_path: Path) -> None:
    children, told = os.pipe()

    def enter_and_have_a_child() -> Any:
        context = claim(tmp_path)
        context.__enter__()
        if (child := os.fork()) == 0:
            signal.pause()
        os.write(told, str(child).encode())
        signal.pause()

    holder = os.fork()
    if holder == 0:
        enter_and_have_a_child()
    child = int(os.read(children, 100))
    try:
        with pytest.raises(MagiError, match="another run"), claim(tmp_path):
            pass
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with claim(tmp_path):
            os.kill(child, 0)  # it is there
    finally:
        os.kill(child, signal.SIGKILL)


def test_half_written_files_of_the_dead_go_but_not_those_of_a_folder_with_its_own_lock(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    with claim(tmp_path / "inner"):
        pass
    dead, alive = f".a.npy.{HOST}.{DEAD}.part", f".a.npy.{HOST}.{os.getppid()}.part"
    kept = [tmp_path / "inner" / dead, tmp_path / alive, tmp_path / dead[1:], tmp_path / ".c.part"]
    gone = [tmp_path / dead, tmp_path / "samples" / dead]
    for path in kept + gone:
        path.touch()
    with claim(tmp_path):
        assert [path.exists() for path in kept + gone] == [True] * 4 + [False] * 2


def test_a_folder_of_results_has_one_writer_and_no_lock_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with other_process(lambda: only_writer(out)) as told:
        assert told == "entered" and list(out.iterdir()) == []
        with pytest.raises(MagiError, match="another run is at work there"), only_writer(out):
            pass
    with only_writer(out):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(MagiError, match="file: results cannot be written there"), only_writer(tmp_path / "file"):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".lock").symlink_to(tmp_path / "elsewhere")
    with claim(tmp_path / "cache"):
        assert not (tmp_path / "elsewhere").exists()
