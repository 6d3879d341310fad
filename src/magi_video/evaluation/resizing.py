"""Resizing as the published evaluations do it: each step by itself, because FVD hangs on them.

The steps differ in what they take for the corners (pixel centres half a pixel in, or TensorFlow 1's top-left corner),
in whether they blur before they shrink (antialias), in the filter, and in how a side that is not whole is rounded. A
chain is a tuple of `Step`; frames go through it as float32 `[T, 3, H, W]` with values 0…255.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Filter = Literal["bilinear", "lanczos", "tf1-bilinear"]


@dataclass(frozen=True)
class Step:
    """One step of a resize chain.

    Attributes:
        action: "crop-square" cuts the centre with the short side as its side; "crop" cuts the centre of `size`;
            "resize" stretches to size × size; "resize-short" makes the short side `size` and keeps the aspect.
        size: pixels; None for "crop-square".
        filter: "bilinear" is torch's; "lanczos" Pillow's, on uint8, always antialiased; "tf1-bilinear" TensorFlow 1's
            `resize_bilinear` (align_corners False, no half-pixel centres, no antialias).
        antialias: whether shrinking blurs first.
        corners: where a pixel is: "half-pixel" or "top-left" (or none, for crops). The filter decides it; it is
            said for the reader of `metrics.json`, where every step is written out.
        long_side: how the long side of "resize-short" is made whole.
        offset: how a crop's offset is made whole: "floor", or "round" half to even as torchvision does.
    """

    action: Literal["crop-square", "crop", "resize", "resize-short"]
    size: int | None = None
    filter: Filter | None = None
    antialias: bool | None = None
    corners: Literal["half-pixel", "top-left"] | None = None
    long_side: Literal["ceil", "floor"] | None = None
    offset: Literal["floor", "round"] | None = None


CROP_SQUARE = Step("crop-square", offset="round")


def crop(size: int, offset: Literal["floor", "round"]) -> Step:
    """The step that cuts the centre, size × size."""
    return Step("crop", size, offset=offset)


def bilinear(size: int, *, antialias: bool) -> Step:
    """The step that stretches to size × size as `torch.nn.functional.interpolate` does."""
    return Step("resize", size, "bilinear", antialias, "half-pixel")


def bilinear_short(size: int, *, antialias: bool) -> Step:
    """The step that makes the short side `size`, bilinear; the long side is rounded up."""
    return Step("resize-short", size, "bilinear", antialias, "half-pixel", "ceil")


def lanczos(size: int) -> Step:
    """The step that stretches to size × size with Pillow's Lanczos filter."""
    return Step("resize", size, "lanczos", True, "half-pixel")


def lanczos_short(size: int) -> Step:
    """The step that makes the short side `size` with Pillow's Lanczos filter; the long side is rounded down."""
    return Step("resize-short", size, "lanczos", True, "half-pixel", "floor")


def tf1_bilinear(size: int) -> Step:
    """The step that stretches to size × size as TensorFlow 1 does."""
    return Step("resize", size, "tf1-bilinear", False, "top-left")


def apply_chain(frames_TCHW: Tensor, steps: Sequence[Step]) -> Tensor:
    """Frames float32 `[T, 3, H, W]` in 0…255 through the steps; a step that would change nothing is left out."""
    for step in steps:
        height, width = target_size(step, *frames_TCHW.shape[-2:])
        if (height, width) == tuple(frames_TCHW.shape[-2:]):
            continue
        if step.action in ("crop", "crop-square"):
            frames_TCHW = crop_centre(frames_TCHW, height, width, step.offset or "floor")
        elif step.filter == "lanczos":
            frames_TCHW = resize_lanczos(frames_TCHW, height, width)
        elif step.filter == "tf1-bilinear":
            frames_TCHW = resize_tf1_bilinear(frames_TCHW, height, width)
        else:
            frames_TCHW = resize_bilinear(frames_TCHW, height, width, antialias=bool(step.antialias))
    return frames_TCHW


def target_size(step: Step, height: int, width: int) -> tuple[int, int]:
    """Height and width that a step gives frames of this size."""
    short = min(height, width)
    size = short if step.size is None else step.size
    if step.action == "resize-short":
        exact = max(height, width) * size / short
        long = math.ceil(max(height, width) * (size / short)) if step.long_side == "ceil" else int(exact)
        return (size, long) if height <= width else (long, size)
    return size, size


def crop_centre(frames_TCHW: Tensor, height: int, width: int, offset: Literal["floor", "round"]) -> Tensor:
    """The centre of the frames, from the pixel at half the difference of the sizes."""
    whole = math.floor if offset == "floor" else round
    top, left = whole((frames_TCHW.shape[-2] - height) / 2), whole((frames_TCHW.shape[-1] - width) / 2)
    return frames_TCHW[..., top : top + height, left : left + width]


def resize_bilinear(frames_TCHW: Tensor, height: int, width: int, *, antialias: bool) -> Tensor:
    """Bilinear with half-pixel centres (align_corners False)."""
    return F.interpolate(frames_TCHW, (height, width), mode="bilinear", align_corners=False, antialias=antialias)


def resize_tf1_bilinear(frames_TCHW: Tensor, height: int, width: int) -> Tensor:
    """Bilinear as in TensorFlow 1: pixel i of the result lies at i · in/out of the source, its last pixel repeated."""
    top, bottom, down_H = _neighbours(frames_TCHW.shape[-2], height, frames_TCHW.device)
    left, right, across_W = _neighbours(frames_TCHW.shape[-1], width, frames_TCHW.device)
    upper, lower = frames_TCHW[..., top, :], frames_TCHW[..., bottom, :]
    upper = upper[..., left] + (upper[..., right] - upper[..., left]) * across_W
    lower = lower[..., left] + (lower[..., right] - lower[..., left]) * across_W
    return upper + (lower - upper) * down_H[:, None]


def _neighbours(given: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    place = torch.arange(wanted, device=device, dtype=torch.float32) * (given / wanted)
    before = place.floor().long()
    return before, (before + 1).clamp(max=given - 1), place - before


def resize_lanczos(frames_TCHW: Tensor, height: int, width: int) -> Tensor:
    """Pillow's Lanczos filter, frame by frame, on pixels rounded to uint8 as image files hold them."""
    arrays = to_bytes(frames_TCHW).permute(0, 2, 3, 1).cpu().numpy()
    fitted = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.LANCZOS)) for one in arrays]
    return torch.from_numpy(np.stack(fitted)).to(frames_TCHW.device).permute(0, 3, 1, 2).float()


def to_bytes(frames: Tensor) -> Tensor:
    """Rounded to whole grey levels, uint8."""
    return frames.round().clamp(0, 255).to(torch.uint8)
