"""Pictures as a user of the pipeline hands them over and gets them back."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.video.image import as_rgb, fit_frames, to_model_range

Picture = Image.Image | np.ndarray


def given_frames(
    image: Picture | list[Picture] | None, video: np.ndarray | None, height: int, width: int, factor: int = 1
) -> Tensor | None:
    """The frames to begin from as float32 `[B, K, 3, height, width]` in [−1, 1]; None where none are given.

    Args:
        image: first frame, or a list of B of them: PIL or uint8 `[H, W, 3]`, any size.
        video: uint8 `[K, H, W, 3]` or `[B, K, H, W, 3]` instead, any size.
        height, width: of the model's frames in pixels.
        factor: frames that a latent frame holds; the first stands alone.

    Raises:
        MagiError: both are given, one is not what it should be, or the frames do not make whole latent frames.
    """
    if image is not None and video is not None:
        raise MagiError("give an image or a video to begin from, not both")
    if image is not None:
        clips = [_pixels(one)[None] for one in (image if isinstance(image, list) else [image])]
    elif video is not None:
        clips = list(video[None] if video.ndim == 4 else video)
    else:
        return None
    if not clips:
        raise MagiError("an empty list of first frames was given")
    for clip in clips:
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8 or 0 in clip.shape:
            raise MagiError(f"given frames must be uint8 [frames, height, width, 3], got {clip.dtype} {clip.shape}")
    if (given := len(clips[0])) % factor != 1 % factor:
        raise MagiError(
            f"{given} given frames do not make whole latent frames: this model's codec compresses time by {factor} "
            f"and takes {', '.join(str(1 + factor * count) for count in range(3))}, …"
        )
    return torch.stack([to_model_range(fit_frames(clip, height, width)) for clip in clips])


def given_latents(latents_BTCHW: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Latent frames `[B, K, C, h, w]` to begin from, float32; a `MagiError` if they are not of a model's (C, h, w)."""
    is_tensor = isinstance(latents_BTCHW, Tensor)
    if not is_tensor or latents_BTCHW.ndim != 5 or 0 in latents_BTCHW.shape or latents_BTCHW.shape[2:] != shape:
        got = list(latents_BTCHW.shape) if is_tensor else type(latents_BTCHW).__name__
        raise MagiError(f"latents must be [videos, latent frames, {', '.join(map(str, shape))}], got {got}")
    return latents_BTCHW.float()


def _pixels(image: Picture) -> np.ndarray:
    """A picture as an array; one of Pillow's as uint8 `[H, W, 3]`."""
    if isinstance(image, Image.Image):
        return as_rgb(image)
    if not hasattr(image, "shape"):
        raise MagiError(f"a first frame must be a PIL image or an array, as of read_image; got {type(image).__name__}")
    return image


def unit_range(frames: Tensor) -> Tensor:
    """Pixels of a codec, [−1, 1], as those of an output, [0, 1]."""
    return ((frames.float() + 1) / 2).clamp(0, 1)


OUTPUT_TYPES = ("np", "pt", "pil", "latent")
"""How a pipeline gives its frames; "latent" before they are decoded."""


def check_output(output_type: str) -> None:
    """Raise a `MagiError` unless this is one of `OUTPUT_TYPES`."""
    if output_type not in OUTPUT_TYPES:
        raise MagiError(f"unknown output_type {output_type!r}: choose from {', '.join(OUTPUT_TYPES)}")


def convert_output(frames: Tensor, output_type: str) -> Any:
    """Frames of one of `OUTPUT_TYPES`.

    Args:
        frames: pixels `[..., 3, H, W]` in [0, 1]; latents for "latent".
        output_type: "pt" and "latent" leave them; "np" puts the channels last; "pil" gives (nested lists of) images.
    """
    check_output(output_type)
    if output_type in ("pt", "latent"):
        return frames
    array = frames.movedim(-3, -1).cpu().numpy()
    return array if output_type == "np" else to_pil((array * 255).round().astype(np.uint8))


def to_pil(array: np.ndarray) -> Any:
    """uint8 `[..., H, W, 3]` as PIL images in lists nested like the leading dimensions."""
    return Image.fromarray(array) if array.ndim == 3 else [to_pil(one) for one in array]
