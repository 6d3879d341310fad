"""Pictures as a user of the pipeline hands them over and gets them back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.video.image import as_rgb, fit_frames, to_model_range

Picture = Image.Image | np.ndarray | Tensor
"""One of PIL, an array `[H, W, 3]` or a tensor `[3, H, W]`, of uint8 or of floating-point numbers in [0, 1]; what a
pipeline gives back is such a picture."""
Pictures = Picture | Sequence[Picture]
"""One, an array or tensor of several with a dimension in front, or a list of them, which may differ in size."""
Video = np.ndarray | Tensor | Sequence[Picture] | Sequence[Sequence[Picture]]
"""An array `[K, H, W, 3]` or a tensor `[K, 3, H, W]`, or several with a dimension in front; or a list of pictures, or
of such lists."""


def given_frames(
    image: Pictures | None, video: Video | None, height: int, width: int, factor: int = 1
) -> Tensor | None:
    """The frames to begin from as float32 `[B, K, 3, height, width]` in [−1, 1]; None where none are given.

    Floating-point pixels are rounded to 8 bits, as files hold them: a frame is the same start in whichever type it is
    given back.

    Args:
        image: first frame of each of B videos, any size.
        video: the K frames of one video or of B, any size, instead.
        height, width: of the model's frames in pixels.
        factor: frames that a latent frame holds; the first stands alone.

    Raises:
        MagiError: both are given, one is not what it should be, or the frames do not make whole latent frames.
    """
    if image is not None and video is not None:
        raise MagiError("give an image or a video to begin from, not both")
    if image is not None:
        clips = [picture_HWC[None] for picture_HWC in _starts(image)]
    elif video is not None:
        clips = _clips(video)
    else:
        return None
    if not clips:
        raise MagiError("an empty list of first frames was given")
    if len({len(clip_KHWC) for clip_KHWC in clips}) > 1:
        raise MagiError(
            f"given videos must have as many frames each, got {', '.join(str(len(clip)) for clip in clips)}"
        )
    if (given := len(clips[0])) % factor != 1 % factor:
        raise MagiError(
            f"{given} given frames do not make whole latent frames: this model's codec compresses time by {factor} "
            f"and takes {', '.join(str(1 + factor * count) for count in range(3))}, …"
        )
    return torch.stack([to_model_range(fit_frames(clip_KHWC, height, width)) for clip_KHWC in clips])


def _starts(image: Pictures) -> list[np.ndarray]:
    """First frames, uint8 `[H, W, 3]` each."""
    if isinstance(image, list | tuple):
        found = [_pixels(one, "image") for one in image]
    else:
        pixels = _pixels(image, "image")
        found = list(pixels) if pixels.ndim == 4 else [pixels]
    for pixels in found:
        _check_shape(pixels, "image", 3)
    return found


def _clips(video: Video) -> list[np.ndarray]:
    """Videos, uint8 `[K, H, W, 3]` each."""
    if isinstance(video, list | tuple):
        found = [_frames(one) for one in video]
        if all(one.ndim == 3 for one in found):
            found = [_stack(found)] if found else []
    else:
        pixels = _pixels(video, "video")
        found = list(pixels) if pixels.ndim == 5 else [pixels]
    for clip in found:
        _check_shape(clip, "video", 4)
    return found


def _frames(given: Any) -> np.ndarray:
    """A part of a listed video as uint8: a list of its frames stacked."""
    return (
        _stack([_pixels(one, "video") for one in given]) if isinstance(given, list | tuple) else _pixels(given, "video")
    )


def _stack(frames: list[np.ndarray]) -> np.ndarray:
    if len({frame.shape for frame in frames}) != 1:
        raise MagiError(f"the frames of a video must have one size, got {sorted({one.shape for one in frames})}")
    return np.stack(frames)


def _check_shape(pixels: np.ndarray, name: str, dimensions: int) -> None:
    if pixels.ndim != dimensions or pixels.shape[-1] != 3 or 0 in pixels.shape:
        frames = "frames, " * (dimensions - 3)
        raise MagiError(
            f"{name} must be an array [{frames}height, width, 3] or a tensor [{frames}3, height, width], several with "
            f"a dimension in front; got {list(pixels.shape)} with the channels last"
        )


def _pixels(given: Any, name: str) -> np.ndarray:
    """PIL, an array or a tensor as uint8 `[..., H, W, 3]`; its shape is not checked.

    Raises:
        MagiError: it is none of these, or its numbers are not uint8 or in [0, 1].
    """
    if isinstance(given, Image.Image):
        return as_rgb(given)
    if isinstance(given, Tensor):
        given = given.detach().cpu()
        given = (given.float() if given.is_floating_point() else given).numpy()
        given = np.moveaxis(given, -3, -1) if given.ndim >= 3 else given
    if not isinstance(given, np.ndarray):
        raise MagiError(
            f"{name}: expected PIL pictures, arrays or tensors (read_image reads a file), got {type(given).__name__}"
        )
    if given.dtype == np.uint8:
        return given
    if not np.issubdtype(given.dtype, np.floating):
        raise MagiError(f"{name}: pixels must be uint8, or floating-point numbers in [0, 1]; got {given.dtype}")
    if given.size and not (given.min() >= 0 and given.max() <= 1):  # also of NaN, which is neither
        raise MagiError(f"{name}: floating-point pixels must lie in [0, 1], got {given.min():g} to {given.max():g}")
    return to_8_bits(given)


def to_8_bits(array: np.ndarray) -> np.ndarray:
    """Floating-point pixels in [0, 1] as uint8."""
    return (array * 255).round().astype(np.uint8)


def given_latents(latents_BTCHW: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Latent frames `[B, K, C, h, w]` to begin from, float32; a `MagiError` if they are not of a model's (C, h, w)."""
    is_tensor = isinstance(latents_BTCHW, Tensor)
    if not is_tensor or latents_BTCHW.ndim != 5 or 0 in latents_BTCHW.shape or latents_BTCHW.shape[2:] != shape:
        got = list(latents_BTCHW.shape) if is_tensor else type(latents_BTCHW).__name__
        raise MagiError(f"latents must be [videos, latent frames, {', '.join(map(str, shape))}], got {got}")
    return latents_BTCHW.float()


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
    return array if output_type == "np" else to_pil(to_8_bits(array))


def to_pil(array: np.ndarray) -> Any:
    """uint8 `[..., H, W, 3]` as PIL images in lists nested like the leading dimensions."""
    return Image.fromarray(array) if array.ndim == 3 else [to_pil(one) for one in array]
