"""What `benchmarks/architecture.py` counts of the source, held where it should stay."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "magi_video"
spec = importlib.util.spec_from_file_location("architecture", ROOT / "benchmarks" / "architecture.py")
assert spec is not None and spec.loader is not None
counting = importlib.util.module_from_spec(spec)
spec.loader.exec_module(counting)


def test_sampling_is_declared_in_one_place_and_no_signature_is_wide() -> None:
    known = counting.modules(SOURCES)
    assert counting.sampling_places(known) == ["magi_video.sampling.sampling"]
    pipeline = {name: path for name, path in known.items() if name.startswith("magi_video.pipeline")}
    assert counting.widest(pipeline)[0] <= 12


def test_no_import_cycle_deferred_and_typing_imports_counted() -> None:
    known = counting.modules(SOURCES)
    graph = {name: counting.imports(path, known, deferred=True) for name, path in known.items()}
    assert counting.cycles(graph) == []


def test_a_cycle_through_a_deferred_import_is_seen(tmp_path: Path) -> None:
    (tmp_path / "magi_video").mkdir()
    (tmp_path / "magi_video/a.py").write_text("import magi_video.b\n")
    (tmp_path / "magi_video/b.py").write_text("def f():\n    from magi_video.a import x\n")
    known = counting.modules(tmp_path / "magi_video")
    graph = {name: counting.imports(path, known, deferred=True) for name, path in known.items()}
    assert len(counting.cycles(graph)) == 1


def test_what_a_reader_of_the_paper_reads_is_small() -> None:
    found = counting.figures(SOURCES)
    assert found["code_lines_behind_ctf_in_the_paper"] <= 1800
    assert found["files_behind_ctf_in_the_paper"] <= 20
    assert found["code_lines_paper"] <= 3025


def test_the_paper_needs_no_other_head_or_paradigm() -> None:
    needed = {name.removeprefix("magi_video.") for name in counting.behind_ctf(counting.modules(SOURCES))}
    heads = {"models.categorical", "models.distributional", "models.flow", "models.velocity"}
    paradigms = {f"paradigms.{name}" for name in ("confidence", "diffusion", "joint", "levels", "raster", "window")}
    assert needed.isdisjoint(heads | paradigms) and {"models.epsilon", "paradigms.masked_frames"} <= needed


def test_lines_of_code_leave_out_blanks_comments_and_docstrings(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""Two\nlines."""\n\nX = """a\nb"""  # both count\n# not this\nY = (\n    1,\n)\n')
    assert counting.code_lines(tmp_path / "a.py") == 5


@pytest.mark.parametrize("name", ["training/trainer.py", "latents/encoding.py", "evaluation/generation.py"])
def test_the_long_files_are_short(name: str) -> None:
    assert len((SOURCES / name).read_text(encoding="utf-8").splitlines()) < 400
