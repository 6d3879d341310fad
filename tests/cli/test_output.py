"""What is printed where the output is not UTF-8: never a traceback."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from magi_video.cli import VERBS
from magi_video.cli.output import write_any_text

ASK = """
import contextlib, json, sys
from magi_video.cli import main
for arguments in json.loads(sys.argv[1]):
    with contextlib.suppress(SystemExit):
        main(arguments)
"""


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_no_verb_ends_in_a_traceback(encoding: str, tmp_path: Path) -> None:
    commands = [["--help"], ["plan", "doom", "--devices", "1"], ["plan", "doom", "--devices", "0"], ["info", "doom"]]
    commands += [["info", "nö such → model"], ["nö→"], ["plan", "doom", "--dévices→", "1"]]
    commands += [["train", "→"], ["train", "doom", "--steps", "→"], *([verb, "--help"] for verb in VERBS)]
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(commands)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80"},
        cwd=tmp_path,
        check=False,
        timeout=200,
    )
    told = done.stdout.decode(encoding) + done.stderr.decode(encoding)
    assert done.returncode == 0 and "Traceback" not in told and "UnicodeEncodeError" not in told
    assert "frames -> " in told


def test_what_an_encoding_lacks_is_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, expected in (("latin-1", b"64\xd764 -> 1...4 ?"), ("ascii", b"64x64 -> 1...4 ?")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        write_any_text()
        print("64×64 → 1…4 é"[:-1] + "\udcff", end="", flush=True)  # a file's name that is no UTF-8
        assert stream.buffer.getvalue() == expected  # type: ignore[attr-defined]
