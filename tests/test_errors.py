"""What users are told is one line that can be read, whatever a file has put into it."""

from pathlib import Path

import pytest

from magi_video.cli import main
from magi_video.errors import MAX_MESSAGE, MagiError, counted, first_line, spanned


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert str(MagiError("a: not b")) == "a: not b"
    assert str(MagiError("a\nb\r\nc\u2028d")) == "a b c d"
    long = str(MagiError("begin " + "x" * 10**6 + " end"))
    assert len(long) < MAX_MESSAGE + 10 and long.startswith("begin") and long.endswith("end")


def test_what_is_counted_is_one_or_several() -> None:
    assert [counted(count, "frame") for count in (0, 1, 2, 1200)] == ["0 frames", "1 frame", "2 frames", "1,200 frames"]
    assert (spanned(1, 1), spanned(1, 4)) == ("1", "1…4")


@pytest.mark.parametrize(
    ("message", "line", "with_kind"),
    [("", "OSError", "OSError"), (" \n", "OSError", "OSError"), ("\none\ntwo", "one", "OSError: one")],
)
def test_an_error_of_others_has_a_first_line(message: str, line: str, with_kind: str) -> None:
    error = OSError(message)
    assert (first_line(error), first_line(error, kind=True)) == (line, with_kind)


def test_a_recipe_with_an_endless_name_is_told_briefly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.json").write_text('{"small_vae": {"' + "l[" * 10_000 + '": 1}}')
    assert main(["train", str(tmp_path / "recipe.json"), "--data", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert len(error) < MAX_MESSAGE + 100 and error.count("\n") == 1 and "unknown setting" in error
