"""What visitors' requests become: checked against the model and the limits, then arguments of `MagiPipeline.stream`.

Nothing in a request is a path: first frames are chosen by number, uploads by their random token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from magi_video.data.image import fit_frames, read_image
from magi_video.errors import MagiError
from magi_video.sampling import SETTINGS
from magi_video.sampling.actions import parse_actions
from magi_video.serving.uploads import Uploads

if TYPE_CHECKING:
    from magi_video.pipeline import MagiPipeline

MAX_SCRIPT = 300
MAX_FIRST_FRAMES = 15
GIVEN_FRAMES = 5
"""Frames taken of a clip, unless another number is asked for."""


class Beginning(BaseModel):
    """What every request says: from where, how fast, with which randomness."""

    model_config = ConfigDict(extra="forbid", strict=True)

    first: int | None = None
    """Number of one of the model's own first frames."""
    upload: str | None = Field(None, max_length=64)
    """Token of an upload instead. Neither: from nothing."""
    given: int = Field(GIVEN_FRAMES, ge=1, le=256)
    """Frames taken of an uploaded clip, `interval` apart, where it has so many."""
    interval: int = Field(1, ge=1)
    setting: str = "balanced"
    seed: int = Field(0, ge=0, lt=2**32)
    label: int | None = None


class VideoRequest(Beginning):
    """A video to make."""

    frames: int = Field(48, ge=2)
    actions: str | None = Field(None, max_length=MAX_SCRIPT)
    """What is done, as of `magi generate --actions`; None: unknown."""


@dataclass(frozen=True)
class FirstFrame:
    """One of the model's own first frames."""

    title: str
    frame: np.ndarray


def find_first_frames(folder: Path, height: int, width: int) -> list[FirstFrame]:
    """The pictures that came with a model: `first_frame.png`, then those in `first_frames/`."""
    paths = [folder / "first_frame.png", *sorted((folder / "first_frames").glob("*.png"))[:MAX_FIRST_FRAMES]]
    return [
        FirstFrame(path.stem.replace("_", " ").capitalize(), fit_frames(read_image(path)[None], height, width)[0])
        for path in paths
        if path.is_file()
    ]


def stream_arguments(
    asked: Beginning, pipe: MagiPipeline, first_frames: list[FirstFrame], uploads: Uploads
) -> dict[str, Any]:
    """Arguments of `MagiPipeline.stream`, but for the number of frames and the actions.

    Raises:
        MagiError: the request does not fit this model, or its upload is gone.
    """
    pipe.transformer.check_interval(asked.interval)
    if asked.setting not in SETTINGS:
        raise MagiError(f"unknown speed setting: choose from {', '.join(SETTINGS)}")
    if asked.label is not None and not 0 <= asked.label < len(pipe.config.class_names):
        raise MagiError("this model has no such class")
    if asked.first is not None and asked.upload is not None:
        raise MagiError("begin from a first frame or from an upload, not both")
    arguments: dict[str, Any] = {
        "interval": asked.interval,
        "setting": asked.setting,
        "label": asked.label,
        "generator": torch.Generator().manual_seed(asked.seed),
    }
    if asked.first is not None:
        if not 0 <= asked.first < len(first_frames):
            raise MagiError("this model has no such first frame")
        arguments["image"] = first_frames[asked.first].frame
    if asked.upload is not None:
        clip = uploads.find(asked.upload).frames_THWC[:: asked.interval][: asked.given]
        arguments["video"] = clip[: 1 + (len(clip) - 1) // pipe.codec.temporal_factor * pipe.codec.temporal_factor]
    return arguments


def video_arguments(
    asked: VideoRequest, pipe: MagiPipeline, first_frames: list[FirstFrame], uploads: Uploads, max_frames: int
) -> dict[str, Any]:
    """All arguments of `MagiPipeline.stream` for a video; raises as `stream_arguments`."""
    arguments = stream_arguments(asked, pipe, first_frames, uploads)
    given = len(arguments.get("video", ()))
    if not max(2, given) <= asked.frames <= max_frames:
        raise MagiError(f"frames must lie in {max(2, given)}…{max_frames}, got {asked.frames}")
    arguments["num_frames"] = asked.frames
    if asked.actions is not None:
        if not pipe.config.action_names:
            raise MagiError("this model takes no actions")
        arguments["actions"] = parse_actions(asked.actions, pipe.config.action_names, asked.frames)
    return arguments
