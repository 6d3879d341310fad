"""The pipeline: what a user calls. `magi_video.pipeline.pipeline` defines it."""

from typing import Any


def __getattr__(name: str) -> Any:
    """The pipeline and its output, loaded when they are asked for: `description` needs no PyTorch."""
    if name not in ("MagiVideoPipeline", "MagiPipeline", "MagiVideoPipelineOutput"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from magi_video.pipeline import pipeline

    return getattr(pipeline, name)
