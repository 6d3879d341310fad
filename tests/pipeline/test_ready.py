"""A model made ready: the precision that is chosen where graphs, which compute in float32, are there."""

import pytest
import torch

from magi_video.distributed import Processes
from magi_video.fast import engine_choice
from magi_video.fast.probes import Choice
from magi_video.pipeline import ready
from magi_video.pipeline.ready import make_ready

pytest.importorskip("onnxruntime", reason="lacks onnxruntime: pip install -e '.[export]'")


@pytest.mark.usefixtures("measured", "settled_kernels")
@pytest.mark.parametrize(("by_graph", "by_torch", "chosen"), [(0.02, 0.03, "float32"), (0.03, 0.02, "bf16")])
def test_bf16_must_be_quicker_than_the_graphs(
    by_graph: float, by_torch: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "choose_for", lambda *_: Choice("bf16", "said"))
    measured: list[tuple[str, torch.dtype]] = []

    def seconds(job: engine_choice.Job, engines: list[engine_choice.Engine], trials: int) -> list[float]:
        measured.extend((one.name, job.model.dtype) for one in engines)
        return [
            by_graph if one.name == "onnx" else by_torch if job.model.dtype == torch.bfloat16 else 1 for one in engines
        ]

    monkeypatch.setattr(engine_choice, "frame_seconds", seconds)
    usual = {"sampling": "realtime", "threads": torch.get_num_threads()}
    made = make_ready("doom", "auto", Processes("cpu"), engine="auto", **usual)  # type: ignore[arg-type]
    assert measured[:2] == [("torch", torch.bfloat16), ("onnx", torch.float32)]
    assert made.choice.precision == chosen and made.pipe.engine.name == ("onnx" if chosen == "float32" else "torch")
    assert made.pipe.transformer.dtype == (torch.float32 if chosen == "float32" else torch.bfloat16)
    if chosen == "float32":
        assert str(made).startswith("precision: float32 (a frame takes 20.0 ms by onnx, 30.0 ms by torch in bf16)")
    assert len(list(made.pipe.stream(num_frames=2, sampling="realtime"))) == 2
    for said in ({"precision": "bf16"}, {"engine": "torch"}, {"frames": 8}):
        measured.clear()
        asked = {"precision": "auto", "engine": "auto"} | usual | said
        make_ready("doom", processes=Processes("cpu"), **asked)  # type: ignore[arg-type]
        assert not measured, "nothing is compared where one of the two is asked for, or few frames are"
