"""What visitors' requests become: checked against the model and the limits, then arguments of the pipeline's `stream`.

Nothing in a request is a path: first frames are chosen by number, uploads by their random token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from magi_video.codecs.text import check_text
from magi_video.errors import MagiError
from magi_video.models.architecture import LABEL, TEXT
from magi_video.pipeline.actions import parse_actions
from magi_video.pipeline.asked import check_controls
from magi_video.pipeline.inputs import check_guidance
from magi_video.sampling.sampling import Sampling
from magi_video.serving.errors import public_message
from magi_video.serving.uploads import Uploads
from magi_video.video.image import fit_frames, read_image

if TYPE_CHECKING:
    from magi_video.pipeline.pipeline import MagiVideoPipeline

MAX_SCRIPT = 300
MAX_TEXT = 1_000
"""Characters of a text; a caption in a data set may have ten times as many."""
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
    speed: str = "balanced"
    """Speed of `Sampling`."""
    seed: int = Field(0, ge=0, lt=2**32)
    label: int | None = None


class VideoRequest(Beginning):
    """A video to make."""

    frames: int = Field(48, ge=2)
    actions: str | None = Field(None, max_length=MAX_SCRIPT)
    """What is done, as of `magi generate --actions`; None: unknown."""
    text: str | None = Field(None, max_length=MAX_TEXT)
    """What the video shows, in words."""
    negative_text: str | None = Field(None, max_length=MAX_TEXT)
    """What guidance leads away from; None: a video of which nothing is known."""
    guidance_scale: float = 1.0
    """Guidance scale of `Sampling`: how strongly class and text are followed; 1 is no guidance."""


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
    asked: Beginning, pipe: MagiVideoPipeline, first_frames: list[FirstFrame], uploads: Uploads
) -> dict[str, Any]:
    """Arguments of `MagiVideoPipeline.stream`, but for the number of frames and the actions.

    Raises:
        MagiError: the request does not fit this model, or its upload is gone.
    """
    pipe.transformer.check_interval(asked.interval)
    if asked.label is not None and not 0 <= asked.label < len(pipe.config.class_names):
        raise MagiError("this model has no such class")
    if asked.first is not None and asked.upload is not None:
        raise MagiError("begin from a first frame or from an upload, not both")
    arguments: dict[str, Any] = {
        "interval": asked.interval,
        "sampling": Sampling.of(asked.speed),
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
    asked: VideoRequest, pipe: MagiVideoPipeline, first_frames: list[FirstFrame], uploads: Uploads, max_frames: int
) -> dict[str, Any]:
    """All arguments of `MagiVideoPipeline.stream` for a video; raises as `stream_arguments`."""
    arguments = stream_arguments(asked, pipe, first_frames, uploads)
    given = len(arguments.get("video", ()))
    if not max(2, given) <= asked.frames <= max_frames:
        raise MagiError(f"frames must lie in {max(2, given)}…{max_frames}, got {asked.frames}")
    arguments["num_frames"] = asked.frames
    if asked.actions is not None:
        if not pipe.config.action_names:
            raise MagiError("this model takes no actions")
        arguments["actions"] = parse_actions(asked.actions, pipe.config.action_names, asked.frames)
    sampling = Sampling.of(asked.speed, guidance_scale=asked.guidance_scale)
    check_texts(asked, sampling, pipe)
    return arguments | {"sampling": sampling, "text": asked.text, "negative_text": asked.negative_text}


def check_texts(asked: VideoRequest, sampling: Sampling, pipe: MagiVideoPipeline) -> None:
    """Refuse texts and guidance that the model cannot take."""
    specs = pipe.transformer.condition_tokens.specs
    for text in (asked.text, asked.negative_text):
        if text is not None:
            check_controls(specs, {TEXT: text})
            check_text(text)
    resolved = pipe.resolve(sampling)
    if resolved.guided:
        check_guidance(specs, resolved.guide, {LABEL: asked.label, TEXT: asked.text})
    elif asked.negative_text is not None:
        raise MagiError("a negative text needs guidance: give a guidance_scale above 1 too")


def find_text_problem(pipe: MagiVideoPipeline) -> str | None:
    """Loads the text encoder of a model that has one; says in a line why it cannot be used, None where it can."""
    if TEXT not in pipe.transformer.condition_tokens.specs:
        return None
    try:
        pipe.encode_text([pipe.find_text_encoder().example])
    except MagiError as error:
        return public_message(error, pipe.text_folder, "the text encoder")
    return None
