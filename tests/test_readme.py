"""What the README and the pages of docs/ tell people to type: every command and option exists, every recipe is one,
every file and target is there, and what is quick is run, with fewer frames."""

import ast
import importlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
import yaml

from magi_video.cli import VERBS, main
from magi_video.errors import MagiError
from magi_video.evaluation.weights import available
from magi_video.files.weights import SHIPPED
from magi_video.recipe import Preset
from magi_video.settings import from_json

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BEGINNERS = [ROOT / "README.md", ROOT / "docs/index.md", *sorted((ROOT / "docs/tutorials").glob("*.md"))]
"""Pages whose Python is run."""
SMALLER = {"--frames": "3", "--num": "1", "--mask-steps": "1", "--denoise-steps": "2", "--out": "out"}
"""Values of options in place of the pages' own when a command is run."""
QUICK = {"generate": "doom", "info": "doom", "plan": "doom"}
"""Commands that are run, for this model."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.M | re.S)
    all_blocks = [Block(page, text[: one.start()].count("\n") + 2, one[1], one[2]) for one in found]
    return [one for one in all_blocks if one.language in languages]


def commands(block: Block) -> list[list[str]]:
    """Its lines as words, comments and continuations taken care of; templates ("…") are nothing to run."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and "…" not in line.split("#")[0]]


def magi_arguments(words: list[str]) -> list[str] | None:
    """What `magi` is given, started directly or by a launcher."""
    if words[:1] == ["magi"]:
        return words[1:]
    return words[words.index("magi_video") + 1 :] if "magi_video" in words else None


SHELL = [(block, words) for page in PAGES for block in blocks(page, "bash", "sh") for words in commands(block) if words]
MAGI = [(block, arguments) for block, words in SHELL if (arguments := magi_arguments(words))]
PYTHON = [block for page in BEGINNERS for block in blocks(page, "python")]


def named(cases: list[tuple[Block, list[str]]]) -> list[Any]:
    return [pytest.param(block, words, id=f"{block} {' '.join(words)[:50]}") for block, words in cases]


class ParsedError(Exception):
    """Raised in place of running a command whose line was understood."""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody who has typed what came before: recipes saved, the demo made, two folders of clips."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/first_frame.png").write_bytes((SHIPPED / "doom/first_frame.png").read_bytes())
    random = np.random.default_rng(0)
    for folder in ("truth", "samples"):
        (tmp_path / folder).mkdir()
        for index in range(2):
            np.save(tmp_path / folder / f"{index}.npy", random.integers(0, 256, (16, 16, 16, 3), np.uint8))
    return tmp_path


def save_recipe(block: Block, arguments: list[str]) -> None:
    """A recipe that the command names, as its page shows it; or any, where the page shows none."""
    recipes = blocks(block.page, "json")
    for word in arguments[1:2]:
        if word.endswith(".json"):
            Path(word).write_text(recipes[0].text if recipes else "{}", encoding="utf-8")


def fill_in(arguments: list[str]) -> list[str]:
    """A preset for the run's folder of `magi encode RUN`, whose recipe is read; a recipe for the word RECIPE."""
    if arguments[0] == "encode" and "/" in arguments[1]:
        return ["encode", "doom", *arguments[2:]]
    return ["all" if word == "RECIPE" else word for word in arguments]


@pytest.mark.parametrize(("block", "arguments"), named(MAGI))
def test_commands_are_understood(
    block: Block, arguments: list[str], reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real parser, with the real options; nothing is run."""
    parse = tyro.cli

    def parse_only(*positional: Any, **named: Any) -> Any:
        parse(*positional, **named)
        raise ParsedError

    monkeypatch.setattr(tyro, "cli", parse_only)
    if arguments[0] in ("--help", "--version"):
        return
    assert arguments[0] in VERBS, f"{block}: there is no command magi {arguments[0]}"
    save_recipe(block, arguments)
    with pytest.raises(ParsedError):
        main(fill_in(arguments))


def test_an_option_that_does_not_exist_is_noticed(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the check above can fail."""
    block = Block(ROOT / "README.md", 1, "bash", "magi info doom --colour red")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):  # `main` says what is wrong and returns
        test_commands_are_understood(block, ["info", "doom", "--colour", "red"], reader, monkeypatch)
    with pytest.raises(AssertionError, match="no command"):
        test_commands_are_understood(block, ["paint"], reader, monkeypatch)


def quick_commands() -> list[tuple[Block, list[str]]]:
    """Commands to run, each in its smallest form, once."""
    seen, found = set(), []
    for block, arguments in MAGI:
        if arguments[1:2] != [QUICK.get(arguments[0])] or "--context" in arguments:
            continue
        small = list(arguments)
        for place, word in enumerate(arguments[:-1]):
            small[place + 1] = SMALLER.get(word, small[place + 1])
        if "--data" in small or "--compile" in small or tuple(small) in seen:
            continue
        seen.add(tuple(small))
        found.append((block, small))
    return found


@pytest.mark.parametrize(("block", "arguments"), named(quick_commands()))
def test_quick_commands_run(block: Block, arguments: list[str], reader: Path) -> None:
    assert main(arguments) == 0, block
    if arguments[0] == "generate":
        assert {"contact.png", "generate.json", "sample_000.mp4"} <= {one.name for one in Path("out").iterdir()}


README = [words for block, words in SHELL if block.page.name == "README.md"]


def test_the_readme_activates_before_it_runs() -> None:
    """`magi` and `pip` are those of .venv, which `make` makes."""
    first = next(index for index, words in enumerate(README) if words[0] != "make")
    assert README[first] == ["source", ".venv/bin/activate"]
    assert ["make", "demo"] in README[:first]


def test_the_readme_lists_every_command() -> None:
    rows = re.findall(r"^\| `magi (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted(VERBS)


@pytest.mark.parametrize("words", [words for words in README if "train" in words and "--accumulate" in words], ids=str)
def test_what_the_readme_gives_to_gpus_fits(words: list[str]) -> None:
    """On H100s, as `magi plan` counts; without the options that a plan has no use for, or takes from the disk."""
    from magi_video.bench.hardware import DATA_SHEETS
    from magi_video.bench.plan import make_plan
    from magi_video.cli.plan import parse

    arguments = (magi_arguments(words) or [])[1:]
    flags = [word for pair in zip(arguments[1::2], arguments[2::2], strict=True)
             for word in pair if pair[0] not in ("--data", "--latents", "--out")]  # fmt: skip
    devices = words[words.index("--nproc-per-node") + 1] if "--nproc-per-node" in words else "1"
    command = parse([arguments[0], "--devices", devices, *flags])
    assert make_plan(arguments[0], command.preset(), command.devices, DATA_SHEETS["h100"]).given.fits


def test_the_citation_is_of_this_version() -> None:
    citation, project = (yaml.safe_load((ROOT / "CITATION.cff").read_text()), (ROOT / "pyproject.toml").read_text())
    assert f'version = "{citation["version"]}"' in project and f'license = "{citation["license"]}"' in project
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert {"type", "title", "authors"} <= citation["references"][0].keys()


SCORES = [(block, words) for block, words in MAGI if words[0] == "score" and all(map(str.islower, words[1:3]))]


@pytest.mark.skipif(not (available("i3d") and available("inception")), reason="the networks of the scores are missing")
@pytest.mark.parametrize(("block", "arguments"), named([one for one in SCORES if one[0].page.name == "README.md"]))
def test_scores_run(block: Block, arguments: list[str], reader: Path) -> None:
    assert main([*arguments, "--no-fid", "--no-lpips", "--no-over-length", "--no-cache"]) == 0
    assert json.loads(Path("score/metrics.json").read_text())["num_fake"] == 2


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Block, reader: Path) -> None:
    """As it stands, but for the number of frames, and of their actions."""
    text = re.sub(r"(num_frames=|\] \* )\d+", r"\g<1>3", block.text)
    exec(compile(text, str(block), "exec"), {"__name__": "page"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [b for page in BEGINNERS for b in blocks(page, "json")], ids=str)
def test_recipes_are_recipes(block: Block) -> None:
    from_json(Preset, json.loads(block.text), str(block))
    with pytest.raises(MagiError):
        from_json(Preset, {"no_such_field": 1}, str(block))


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_name_what_exists(path: Path) -> None:
    """Every cell compiles, and what is imported is there; the cells' work is done by whoever opens the notebook."""
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] for cell in cells)
    for number, cell in enumerate(cells):
        tree = ast.parse("".join(cell["source"]), f"{path.name}, cell {number}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("magi_video"):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


def test_files_targets_and_extras_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    extras = (ROOT / "pyproject.toml").read_text()
    for block, words in SHELL:
        if words[0] == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets), f"{block}: {words}"
        scripts = [word for word in words if re.fullmatch(r"(benchmarks|examples)/\S+\.(py|sbatch|sh)", word)]
        assert all((ROOT / script).is_file() for script in scripts), f"{block}: {scripts}"
        for asked in re.findall(r"\[([\w,]+)\]", " ".join(words)) if words[:2] == ["pip", "install"] else ():
            assert all(re.search(rf"^{extra} = \[", extras, re.M) for extra in asked.split(",")), f"{block}: {asked}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Links within the repository, headings included; pages that the site is given at build time count as there."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)\s#]*)(#[^)\s]*)?\)", text):
        file = (page.parent / target).resolve() if target else page
        if "reference" in file.parts and file.suffix == ".md":
            continue  # mkdocs build --strict knows
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            slugs |= {name for heading in headings for name in re.findall(r"\{#([\w-]+)\}$", heading)}  # its own name
            assert anchor[1:] in slugs, f"{page.name}: {target}{anchor}"
