"""Completion of `magi` in bash, zsh and fish: a script with the commands, their options and the values of these.

The options are read from --help, which is made from the same dataclasses that parse them.
"""

import contextlib
import importlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from magi_video.errors import MagiError
from magi_video.files.weights import shipped_models
from magi_video.presets import PRESETS

SHELLS = ("bash", "zsh", "fish")
OPTION = re.compile(r"^[ │]+(?:-h, )?(--\w[\w.-]*)(?:, (--[\w.-]+))?(?: (?:\[)?\{([^}]*)\})?")
POSITIONAL = re.compile(r"^[ │]+\[?\{([^}]*)\}")


@dataclass(frozen=True)
class Words:
    """What may follow a verb.

    Attributes:
        first: words for the place right behind it, besides files.
        options: option → its values; none where these are not a few words.
    """

    first: tuple[str, ...]
    options: dict[str, tuple[str, ...]]


def completion(shell: str, verbs: dict[str, str]) -> str:
    """The script for a shell.

    Args:
        shell: one of `SHELLS`.
        verbs: verb → what it does.

    Raises:
        MagiError: another shell.
    """
    if shell not in SHELLS:
        raise MagiError(f"no completion for {shell[:40]!r}; expected {', '.join(SHELLS)}")
    words = {verb: find_words(verb) for verb in verbs}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](verbs, words)


def find_words(verb: str) -> Words:
    """What may follow a verb, from its --help."""
    printed, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "125"  # wide lines, yet options in a single column
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            importlib.import_module(f"magi_video.cli.{verb}").main(["--help"])
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    options: dict[str, tuple[str, ...]] = {}
    first: tuple[str, ...] = ()
    for line in printed.getvalue().splitlines():
        if found := OPTION.match(line):
            values = tuple(found[3].split(",")) if found[3] else ()
            options |= {name: values for name in found.group(1, 2) if name}
        elif found := POSITIONAL.match(line):
            first = tuple(found[1].split(","))
    models = tuple(shipped_models())
    known = dict.fromkeys(("train", "plan", "encode"), tuple(PRESETS)) | {"bench": (*models, *PRESETS)}
    known |= dict.fromkeys(("generate", "evaluate", "serve", "info", "export", "push"), models)
    return Words(first or known.get(verb, ()), options)


def _values(words: dict[str, Words]) -> Iterator[tuple[str, str, str]]:
    """Verb, option and values of every option that has a few words for values."""
    for verb, of_verb in words.items():
        for option, values in of_verb.options.items():
            if values:
                yield verb, option, " ".join(values)


def _bash(verbs: dict[str, str], words: dict[str, Words]) -> str:
    values = "\n".join(f'        "{verb} {option}") words="{some}" ;;' for verb, option, some in _values(words))
    options = "\n".join(f'        {verb}) words="{" ".join(one.options)}" ;;' for verb, one in words.items())
    first = "\n".join(f'        {verb}) words="{" ".join(one.first)}" ;;' for verb, one in words.items())
    return f"""# bash completion of magi: eval "$(magi --print-completion bash)"
_magi() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{" ".join(verbs)} --help --version --print-completion" -- "$word"))
        return
    fi
    case "$verb $before" in
{values}
        "--print-completion --print-completion") words="{" ".join(SHELLS)}" ;;
    esac
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
        return
    fi
    if [[ $word == -* ]]; then
        case "$verb" in
{options}
        esac
        COMPREPLY=($(compgen -W "$words" -- "$word"))
        return
    fi
    if [ "$COMP_CWORD" -eq 2 ]; then
        case "$verb" in
{first}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word") $(compgen -f -- "$word"))
}}
complete -o filenames -F _magi magi"""


def _zsh(verbs: dict[str, str], words: dict[str, Words]) -> str:
    printed = "\n".join(f"        {_quoted(f'{verb}:{what}')}" for verb, what in verbs.items())
    values = "\n".join(
        f'        "{verb} {option}") compadd -- {some}; return ;;' for verb, option, some in _values(words)
    )
    options = "\n".join(f"            {verb}) compadd -- {' '.join(one.options)} ;;" for verb, one in words.items())
    first = "\n".join(
        f"            {verb}) compadd -- {' '.join(one.first)} ;;" for verb, one in words.items() if one.first
    )
    return f"""#compdef magi
# zsh completion of magi: eval "$(magi --print-completion zsh)", after compinit
_magi() {{
    local -a verbs=(
{printed}
    )
    if (( CURRENT == 2 )); then
        _describe command verbs
        compadd -- --help --version --print-completion
        return
    fi
    case "${{words[2]}} ${{words[CURRENT-1]}}" in
{values}
        "--print-completion --print-completion") compadd -- {" ".join(SHELLS)}; return ;;
    esac
    if [[ $PREFIX == -* ]]; then
        case "${{words[2]}}" in
{options}
        esac
        return
    fi
    if (( CURRENT == 3 )); then
        case "${{words[2]}}" in
{first}
        esac
    fi
    _files
}}
compdef _magi magi"""


def _fish(verbs: dict[str, str], words: dict[str, Words]) -> str:
    lines = ["# fish completion of magi: magi --print-completion fish | source"]
    begins = "-n __fish_use_subcommand"
    lines += [f"complete -c magi -f {begins} -a {verb} -d {_quoted(what)}" for verb, what in verbs.items()]
    lines += [f"complete -c magi {begins} -l {option}" for option in ("help", "version")]
    lines.append(f"complete -c magi {begins} -l print-completion -x -a {_quoted(' '.join(SHELLS))}")
    for verb, one in words.items():
        within = f"-n {_quoted(f'__fish_seen_subcommand_from {verb}')}"
        if one.first:
            lines.append(f"complete -c magi {within} -a {_quoted(' '.join(one.first))}")
        for option, values in one.options.items():
            taken = f" -x -a {_quoted(' '.join(values))}" if values else ""
            lines.append(f"complete -c magi {within} -l {option.removeprefix('--')}{taken}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """In single quotes, as all three shells read them."""
    return "'" + text.replace("'", "'\\''") + "'"
