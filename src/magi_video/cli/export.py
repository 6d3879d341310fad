"""`magi export MODEL`: the options are the fields of `Export`."""

from dataclasses import dataclass
from typing import Literal

from magi_video.cli.parsing import Model, OutFolder, parse
from magi_video.cli.progress import TaskDisplay


@dataclass(frozen=True)
class Export:
    """Write a model as programs without Python: the pass over a frame, the head, the codec. What drives them is
    examples/exported_rollout.py."""

    model: Model
    """Folder, hub id, or the name of a shipped model ("doom", "atari", "coinrun")."""
    out: OutFolder
    """Folder for the files."""
    form: Literal["pt2", "onnx"] = "pt2"
    """torch.export programs, or ONNX graphs, which need the optional packages "export"."""
    frames: int | None = None
    """Of the longest video that will be made; by default those of a training clip. No limit to a model that goes on
    without end, unless its codec compresses time."""


def main(argv: list[str]) -> None:
    """Parse, export, print."""
    settings = parse(Export, "magi export", argv)
    with TaskDisplay("loading the model") as display:
        from magi_video.hub.export import export_model
        from magi_video.pipeline.pipeline import MagiVideoPipeline

        pipe = MagiVideoPipeline.from_pretrained(settings.model)
        display.stage("writing the programs")
        files = export_model(pipe, settings.out, settings.form, settings.frames)
    for file in files:
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
