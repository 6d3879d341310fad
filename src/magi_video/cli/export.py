"""`magi export MODEL`: the options are the fields of `Export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Export:
    """Write a model as programs without Python: the pass over a frame, the head, the codec. What drives them is
    examples/exported_rollout.py."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder, hub id, or the name of a shipped model ("doom")."""
    out: Path
    """Folder for the files."""
    form: Literal["pt2", "onnx"] = "pt2"
    """torch.export programs, or ONNX graphs (pip install "magi-video[export]")."""
    slots: int | None = None
    """Frames that the past may hold; by default those of a training clip but one."""


def main(argv: list[str]) -> None:
    """Parse, export, tell."""
    import tyro

    settings = tyro.cli(Export, prog="magi export", args=argv)
    from magi_video.export import export_model
    from magi_video.pipeline import MagiPipeline

    for file in export_model(MagiPipeline.from_pretrained(settings.model), settings.out, settings.form, settings.slots):
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
