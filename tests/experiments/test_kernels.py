"""All samples of a world are made with the kernels that its first ones were made with."""

import json
from pathlib import Path

import pytest
import torch

from magi_video.experiments.measure import KERNEL_RECORD, Measures
from magi_video.experiments.runs import Workplace
from magi_video.experiments.worlds import World
from magi_video.fast.kernel_choice import FAST_FLOAT32, KERNELS, Kernel, settle_kernels
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.training.display import Silent


@pytest.mark.usefixtures("settled_kernels")
def test_a_world_keeps_its_kernels(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MagiVideoPipeline, "from_pretrained", lambda model: torch.get_float32_matmul_precision())
    monkeypatch.setattr(KERNELS[FAST_FLOAT32], "works", True)
    record = tmp_path / "samples" / KERNEL_RECORD

    def loads(pays: bool) -> str:
        monkeypatch.setattr(Kernel, "pays", pays)
        measures = Measures(Workplace(world, tmp_path, None, Silent()))
        found = measures.load(tmp_path)
        settle_kernels([FAST_FLOAT32], kept={FAST_FLOAT32: found == "highest"})  # as a training in between may
        assert measures.load(tmp_path) == found, "whatever was settled meanwhile"
        return str(found)

    assert loads(True) == loads(False) == "medium" and json.loads(record.read_text()) == {FAST_FLOAT32: True}
    record.write_text('{"fast_float32": "yes"}')
    assert loads(False) == loads(True) == "highest" and json.loads(record.read_text()) == {FAST_FLOAT32: False}
    monkeypatch.setattr(KERNELS[FAST_FLOAT32], "works", False)
    record.write_text('{"fast_float32": true}')
    assert loads(True) == "highest" and json.loads(record.read_text()) == {FAST_FLOAT32: True}, "the choice is kept"
