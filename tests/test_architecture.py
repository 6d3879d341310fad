"""What `benchmarks/architecture.py` counts of the source, held where it should stay."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_sampling_is_declared_in_one_place_and_no_signature_is_wide() -> None:
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "benchmarks" / "architecture.py")
    assert spec is not None and spec.loader is not None
    counting = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(counting)
    known = counting.modules(ROOT / "src" / "magi_video")
    assert counting.sampling_places(known) == ["magi_video.sampling.sampling"]
    pipeline = {name: path for name, path in known.items() if name.startswith("magi_video.pipeline")}
    assert counting.widest(pipeline)[0] <= 12
