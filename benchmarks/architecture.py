"""Figures of the architecture: lines by ring, rooms, loose files, import cycles, signatures, what a reader must open.

Lines of code are those that are not blank, no comment and no docstring.

python benchmarks/architecture.py [--src src/magi_video] [--json FILE]
"""

import argparse
import ast
import io
import json
import tokenize
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

RINGS = {
    "paper": ("models", "paradigms", "sampling", "forcing"),
    "product": ("cli", "serving", "hub", "bench", "recordings", "experiments", "benchmark", "planning", "reproduce"),
}


def modules(src: Path) -> dict[str, Path]:
    """Dotted name → file."""
    found = {}
    for path in sorted(src.rglob("*.py")):
        parts = path.relative_to(src.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    code = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code)


def imports(path: Path, known: dict[str, Path], deferred: bool) -> set[str]:
    """Modules of ours that a file imports; with `deferred`, those in functions and for types too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if deferred else iter(tree.body)
    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("magi_video"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in known else node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name in known}
    return names & set(known)


def closure(start: list[str], graph: dict[str, set[str]]) -> set[str]:
    """Everything that is reached."""
    seen, todo = set(), list(start)
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo += graph[name]
    return seen


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Import cycles, one after another, each opened where it was found."""
    graph, found = {name: set(others) - {name} for name, others in graph.items()}, []
    while True:
        try:
            tuple(TopologicalSorter(graph).static_order())
        except CycleError as error:
            found.append(error.args[1])
            graph[error.args[1][1]].discard(error.args[1][0])
            continue
        return found


def behind_ctf(known: dict[str, Path]) -> set[str]:
    """What a reader of the paper reads: complete and masked teacher forcing, the epsilon head, the rollout, and every
    file that they import but errors and the packages' own."""
    start = ["paradigms.complete", "paradigms.masked", "models.epsilon", "sampling.rollout"]
    if "magi_video.paradigms" not in known:
        start = ["forcing.complete", "forcing.masked", "sampling.rollout"]
    graph = {name: imports(path, known, deferred=False) for name, path in known.items()}
    reached = closure([f"magi_video.{name}" for name in start], graph)
    return {name for name in reached if known[name].name != "__init__.py" and not name.endswith("errors")}


def widest(known: dict[str, Path]) -> tuple[int, str]:
    """Most parameters of a function, and where."""
    best = (0, "")
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                count = len([*node.args.args, *node.args.kwonlyargs]) - (
                    bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
                )
                best = max(best, (count, f"{name}.{node.name}"))
    return best


SAMPLING = {
    "mask_steps", "num_mask_steps", "mask_share", "denoise_steps", "num_denoise_steps", "sampler", "first_step",
    "refresh", "temperature", "guidance_scale", "guidance_schedule", "guide",
}  # fmt: skip
"""Names of the settings of sampling, of this version and of earlier ones."""


def sampling_places(known: dict[str, Path]) -> list[str]:
    """Files in which a class or a function declares two settings of sampling or more; the heads' arithmetic aside."""
    found = []
    for name, path in known.items():
        if name.startswith("magi_video.models"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                declared = {one.target.id for one in node.body if isinstance(one, ast.AnnAssign)
                            and isinstance(one.target, ast.Name)}  # fmt: skip
            elif isinstance(node, ast.FunctionDef):
                declared = {one.arg for one in [*node.args.args, *node.args.kwonlyargs] if one.arg in SAMPLING}
            else:
                continue
            if len(declared & SAMPLING) >= 2:
                found.append(name)
    return sorted(set(found))


def figures(src: Path) -> dict[str, Any]:
    """All of them."""
    known = modules(src)
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in known.items()}
    plain = {name: imports(path, known, deferred=False) for name, path in known.items()}
    every = {name: imports(path, known, deferred=True) for name, path in known.items()}
    ring_of = {name: next((one for one, rooms in RINGS.items() if name.split(".")[1] in rooms), "library")
               for name in known if "." in name}  # fmt: skip
    idea = behind_ctf(known)
    idea_in_ring = {name for name in idea if ring_of[name] == "paper"}
    return {
        "lines": sum(lines.values()),
        "files": len(lines),
        "lines_by_ring": {
            ring: sum(count for name, count in lines.items() if ring_of.get(name, "library") == ring)
            for ring in ("paper", "library", "product")
        },
        "code_lines_paper": sum(code_lines(known[name]) for name in known if ring_of.get(name) == "paper"),
        "rooms": len([path for path in src.iterdir() if (path / "__init__.py").exists()]),
        "loose_files": len([path for path in src.glob("*.py") if not path.name.startswith("__")]),
        "cycles": len(cycles(plain)),
        "cycles_with_deferred_and_typing": len(cycles(every)),
        "widest_signature": widest(known),
        "places_that_declare_sampling": sampling_places(known),
        "lines_cli": sum(count for name, count in lines.items() if name.startswith("magi_video.cli")),
        "files_behind_ctf": len(idea),
        "files_behind_ctf_in_the_paper": len(idea_in_ring),
        "lines_behind_ctf_in_the_paper": sum(lines[name] for name in idea_in_ring),
        "code_lines_behind_ctf_in_the_paper": sum(code_lines(known[name]) for name in idea_in_ring),
        "code_lines_behind_ctf": sum(code_lines(known[name]) for name in idea),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--src", type=Path, default=Path(__file__).resolve().parents[1] / "src/magi_video")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = figures(given.src)
    print(json.dumps(found, indent=2))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
