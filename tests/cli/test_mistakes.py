"""A wrong command line: one line says what is wrong with it, with the nearest name that there is, and exit code 2."""

import shlex
from collections.abc import Iterable

import pytest

from magi_video.cli import VERBS, main, mistakes
from magi_video.cli.completion import find_words
from magi_video.cli.parsing import unboxed
from magi_video.errors import nearest

MISTAKES = {
    "genrate doom": "magi: unknown command 'genrate'; did you mean generate?",
    "hop": f"magi: unknown command 'hop'; expected one of {', '.join(VERBS)}",
    "generate doom --frame 3": "magi generate: unknown option --frame; did you mean --frames?",
    "generate doom --out x --temp=3": "magi generate: unknown option --temp; did you mean --temperature?",
    "generate doom --out x --zzz": "magi generate: unknown option --zzz; magi generate --help lists all",
    "generate doom -x --out x": "magi generate: unknown option -x; magi generate --help lists all",
    "train tiny --small_vae.step 3": "magi train: unknown option --small-vae.step; did you mean --small-vae.steps?",
    "evaluate doom --no-cash": "magi evaluate: unknown option --no-cash; did you mean --no-cache?",
    "generate doom --out": "magi generate: --out needs a value",
    "generate doom --out --frames 3": "magi generate: --out needs a value",
    "generate doom --out x --temperature": "magi generate: --temperature needs a value",
    "generate doom --out x --text a red ball": "magi generate: --text takes one value, got 'a', 'red', 'ball'; quotes "
    "make several words one value",
    "info doom atari": "magi info: unexpected 'atari'; magi info --help says what is expected",
    "info doom --json true": "magi info: unexpected 'true' after --json, which takes no value; magi info --help says "
    "what is expected",
    "info doom --json=1": "magi info: --json takes no value, got '1'",
    "info": "magi info: MODEL must be given; magi info --help says what it is",
    "import lerobot": "magi import: DIR and --out must be given; magi import --help says what they are",
    "import": "magi import: {lerobot,minari}, DIR and --out must be given; magi import --help says what they are",
    "train tiny --steps 3": "magi train: --out must be given; magi train tiny --help says what it is",
    "compare --data y": "magi compare: MODEL-or-RECIPE and --out must be given; magi compare --help says what they are",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_one_line_says_what_is_wrong(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(command)) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", MISTAKES[command] + "\n")


@pytest.mark.parametrize("verb", VERBS)
def test_the_options_that_are_known_are_those_of_help(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: set[str] = set()

    def note(word: str, known: Iterable[str]) -> str:
        names.update(known)
        return ""

    monkeypatch.setattr(mistakes, "nearest", note)
    preset = ["doom"] if verb in ("train", "encode", "plan") else []
    assert main([verb, *preset, "--nothing-of-the-kind"]) == 2
    assert names == set(find_words(verb).options) - {"--help"}


def test_a_name_is_found_by_its_beginning_or_its_likeness() -> None:
    known = ["--frames", "--frame-skip", "--out"]
    assert nearest("--OUT", known) == nearest("-o", known) == "; did you mean --out?"
    assert nearest("--farmes", known) == "; did you mean --frames?"
    assert nearest("x" * 10**6, known) == ""


def test_what_else_the_parser_prints_comes_without_its_box() -> None:
    assert unboxed("╭─ Wrong ───╮\n│ It is     │\n│ ───────── │\n│ so.       │\n╰───────────╯\n") == "Wrong It is so."
