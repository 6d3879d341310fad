"""--help of every command: no wider than the terminal, with the defaults that hold."""

import contextlib
import dataclasses
import re
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from magi_video.cli import VERBS, main
from magi_video.cli.completion import SHELLS, completion, find_words
from magi_video.cli.parsing import fit
from magi_video.presets import load_preset
from magi_video.serving.options import ServeOptions


def told_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with contextlib.suppress(SystemExit):
        main([*arguments])
    return capsys.readouterr().out


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("verb", VERBS)
def test_every_line_fits_and_says_no_pythons_names(verb: str, narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    told = told_by(capsys, verb, "--help")
    assert f"usage: magi {verb}" in told and max(map(len, told.splitlines())) <= 80
    assert not re.search(r"options options|options\.", told), "no heading of a field of Python"
    assert "{None}" not in told and "(default: )" not in told
    assert not re.search(r"\w\(\w+=|<factory>|object at 0x|Path\(|MISSING|dataclass", told)


def test_the_list_of_commands_fits(narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert max(map(len, told_by(capsys, "--help").splitlines())) <= 80


def defaults(told: str) -> dict[str, str]:
    """Option → default, as --help tells them."""
    plain = " ".join(line.strip(" │") for line in told.splitlines())
    pieces = re.split(r" (--\w[\w.-]*)(?:, --no-[\w.-]+)? ", plain)
    return {
        name: found[1]
        for name, text in zip(pieces[1::2], pieces[2::2], strict=True)
        if (found := re.search(r"\(default: (.*?)\)", text))
    }


@pytest.mark.parametrize("preset", ["doom", "k600"])
def test_the_defaults_are_the_presets(preset: str, narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    told, recipe = defaults(told_by(capsys, "train", preset, "--help")), load_preset(preset)
    groups: list[tuple[str, Any]] = [(group, getattr(recipe, group)) for group in ("data", "model", "train")]
    groups.append(("sample", recipe.own_sampling))
    for group, values in groups:
        for one in dataclasses.fields(values):
            if one.name != "precision":  # which several groups have
                value = getattr(values, one.name)
                shown = " ".join(value) if isinstance(value, tuple) else str(value)
                assert told[f"--{one.name.replace('_', '-')}"] == shown, (group, one.name)
    assert told["--small-vae.steps"] == str(recipe.small_vae.steps)


def test_and_those_of_nested_options_their_own(narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    told, serve = defaults(told_by(capsys, "serve", "--help")), ServeOptions()
    assert told["--port"] == str(serve.port)
    for one in dataclasses.fields(serve.limits):
        assert told[f"--{one.name.replace('_', '-')}"] == str(getattr(serve.limits, one.name))


def test_long_paragraphs_are_broken_and_columns_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    told = fit("usage: magi x --number {None}|INT\n" + "word " * 20 + "\n│ --number {None}|INT  How many. │\n")
    assert told.splitlines()[-1] == "│ --number INT         How many. │"
    assert max(map(len, told.splitlines())) <= 40 and told.count("word") == 20


@pytest.mark.parametrize("verb", VERBS)
def test_completion_knows_the_options_of_every_command(verb: str) -> None:
    words = find_words(verb)
    assert "--help" in words.options
    if verb in ("train", "encode"):
        assert "--small-vae.width" in words.options and "--out" in words.options
        assert set(words.options["--codec"]) >= {"image_vae", "video_vae", "omnitokenizer", "small_vae", "pixels"}
        assert "doom-mtf" in words.first
    if verb == "demo":
        assert words.first == ("doom", "atari", "coinrun")
    if verb == "info":
        assert words.options.keys() == {"--help", "--json", "--no-json"} and "atari" in words.first


FIRST = {
    "train": ["tiny"], "plan": ["tiny", "--devices", "1"], "encode": ["tiny", "--data", "."], "reproduce": ["drift"],
    "score": [".", "."], "import": ["minari", "."], "evaluate": ["doom", "--data", "."], "push": ["doom", "me/it"],
    "compare": ["doom", "atari", "--data", "."],
}  # fmt: skip
"""What a verb wants besides --out; of the others it is a model, or nothing."""


def options_with_values(verb: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Options that not every word will do for → what is expected of a wrong one, in words."""
    found = {
        option: f"must be one of {', '.join(names)}"
        for option, names in find_words(verb).options.items()
        if len(names) > 1
    }
    numbers = {"INT": "must be a whole number", "FLOAT": "must be a number"}
    for line in told_by(capsys, verb, "--help").splitlines():
        if option := re.match(r"[ │]+(--\w[\w.-]*) \[?(INT|FLOAT)\b", line):
            found[option[1]] = numbers[option[2]]
    return found


def test_a_wrong_word_for_any_option_is_refused_in_a_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "125")
    tried: set[str] = set()
    for verb in VERBS:
        for option, expected in options_with_values(verb, capsys).items():
            if option in tried:  # the same group of settings in another verb
                continue
            tried.add(option)
            out = [] if verb in ("serve", "info", "plan") else ["--out", "nowhere"]
            assert main([verb, *FIRST.get(verb, ["doom"]), *out, option, "nosuch"]) == 1, (verb, option)
            told = capsys.readouterr().err
            name = option if option not in REGISTERED else option.removeprefix("--")
            assert re.fullmatch(rf"magi {verb}: {name} {re.escape(expected)}.*, got 'nosuch'\n", told), (option, told)
            assert "None" not in told
    assert tried >= {"--engine", "--guide", "--forcing", "--scale", "--sink-frames", "--small-vae.steps", "--max-share"}
    assert tried >= {"--intervals", "--shard-size", "--episodes", "--mfu", "--port", "--seeds", "--num", "--frames"}
    assert len(tried) > 150


REGISTERED = {"--forcing", "--codec", "--dataset", "--exposure"}
"""Whose values are names in a registry: the recipe refuses them, by its own name for the setting."""


@pytest.mark.skipif(which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_values_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    (tmp_path / "doomed.json").touch()
    asked = [
        "magi tr",
        "magi train doom --cod",
        "magi train doom --codec p",
        "magi plan doo",
        "magi --print-completion f",
    ]
    lines = [f'COMP_WORDS=({words}); COMP_CWORD={words.count(" ")}; _magi; echo "${{COMPREPLY[*]}}"' for words in asked]
    done = subprocess.run(
        ["bash", "-c", "\n".join([f"source {script}", *lines])],
        capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["train", "--codec", "pixels", "doom doom-mtf doomed.json", "fish"]


def test_every_shell_has_a_script_and_others_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    scripts = {shell: completion(shell, {"info": "tell what a model is"}) for shell in SHELLS}
    assert (
        all("--json" in script or "-l json" in script for script in scripts.values())
        and len(set(scripts.values())) == 3
    )
    assert main(["--print-completion", "cmd"]) == 2 and main(["--print-completion"]) == 2
    assert "expected bash, zsh, fish" in capsys.readouterr().err
