import io
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from magi_video.errors import MagiError
from magi_video.files.atomic import HOST, growing_array, replacing, scratch_folder, write_array, write_json

ARRAY = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.dtype(">i4")])
@pytest.mark.parametrize("pieces", [(7,), (1,) * 7, (3, 0, 4)])
def test_arrays_have_the_bytes_that_numpy_writes(tmp_path: Path, dtype: np.dtype, pieces: tuple[int, ...]) -> None:
    array = ARRAY.astype(dtype)
    write_array(tmp_path / "new" / "whole.npy", array)
    with growing_array(tmp_path / "new" / "grown.npy", array.shape, dtype) as append:
        for piece in np.split(array, np.cumsum(pieces)[:-1]):
            append(piece[:, :, ::-1][:, :, ::-1])  # not contiguous
            assert not (tmp_path / "new" / "grown.npy").exists()
    for name in ("whole.npy", "grown.npy"):
        assert (tmp_path / "new" / name).read_bytes() == saved(array)
    assert len(list((tmp_path / "new").iterdir())) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError(), OSError(28, "No space left on device")])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.npy"
    write_array(path, ARRAY)
    with (
        pytest.raises(MagiError if isinstance(error, OSError) else type(error)),
        growing_array(path, ARRAY.shape, np.uint8) as append,
    ):
        append(ARRAY[:2])
        raise error
    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert [one.name for one in tmp_path.iterdir()] == ["a.npy"] and np.array_equal(np.load(path), ARRAY)


def test_pieces_must_make_up_the_array(tmp_path: Path) -> None:
    for pieces, message in [
        ([ARRAY[:6]], "6 rows were written; expected 7"),
        ([ARRAY, ARRAY[:1]], "8 rows"),
        ([ARRAY[0]], "expected uint8"),
        ([ARRAY.astype(np.int8)], "int8"),
    ]:
        with pytest.raises(MagiError, match=message), growing_array(tmp_path / "a.npy", ARRAY.shape, np.uint8) as add:
            for piece in pieces:
                add(piece)
    with pytest.raises(MagiError, match="cannot be written"):
        (tmp_path / "file").write_text("")
        write_array(tmp_path / "file" / "a.npy", ARRAY)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from magi_video.video.video import VideoWriter
from magi_video.files.atomic import growing_array, part_beside, scratch_folder
out = Path(sys.argv[1])
with VideoWriter(out / "a.mp4", 10.0) as movie, growing_array(out / "a.npy", (9, 2), np.uint8) as append:
    movie.write(np.zeros((16, 16, 3), np.uint8))
    part_beside(out / "folder").mkdir()
    (part_beside(out / "folder") / "half").write_text("")
    with scratch_folder("test"):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_gone_with_the_next_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    code = subprocess.run(
        [sys.executable, "-c", KILLED, str(out)], env=os.environ | {"TMPDIR": str(temporary)}, check=False
    ).returncode
    assert code == -signal.SIGKILL and len(list(out.iterdir())) >= 2 and len(list(temporary.iterdir())) == 1
    living = [f".b.npy.{HOST}.{os.getppid()}.part", f".b.npy.{'0' * len(HOST)}.999999.part", "mine.part", ".hidden"]
    for name in living:
        (out / name).write_text("")
    write_json(out / "c.json", {})
    assert {path.name for path in out.iterdir()} == {"c.json", *living}, "of another machine, or at work: not ours"
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with scratch_folder("test") as scratch:
        assert list(temporary.iterdir()) == [scratch] and scratch.stat().st_mode & 0o77 == 0
    assert not list(temporary.iterdir())
